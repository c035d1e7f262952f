# SPDX-License-Identifier: Apache-2.0
"""Live migration of a guest that writes, reads and compares all the while.

What the disk reads into memory after QEMU copied that memory must be copied again: only the dirty
log of the daemon knows. fio finds what was missed, for its buffers are read from the disk.
"""
import json
import time

import pytest

from guest import Disk, Guest, build_image
from target import Sluice

MIGRATE_TIMEOUT_S = 240
FIO = ("--filename=/dev/vda --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 "
       "--rw=randwrite --bs=4k ")
KEPT = FIO + "--name=kept --offset=32M --size=8M --iodepth=32 --randseed=7 --verify_state_save=0 "
ACROSS = FIO + "--name=across --size=16M --iodepth=16 --verify_backlog=128 --loops=1000 "
# Slow enough that memory which was copied is written again by the disk before the end.
BANDWIDTH = 48 << 20


def finished(guest):
    """The status of a migration on its source, when it has ended."""
    deadline = time.monotonic() + MIGRATE_TIMEOUT_S
    while True:
        info = guest.qmp("query-migrate")
        if info.get("status") in ("completed", "failed", "cancelled"):
            return info
        assert time.monotonic() < deadline, info
        time.sleep(0.2)


def migrate(source, destination):
    """Moves the guest; returns when it runs at the destination."""
    uri = f"unix:{destination.dir}/migration"
    destination.qmp("migrate-incoming", uri=uri)
    source.qmp("migrate-set-parameters",
               **{"max-bandwidth": BANDWIDTH, "downtime-limit": 3000})
    source.qmp("migrate", uri=uri)
    info = finished(source)
    assert info["status"] == "completed", info
    deadline = time.monotonic() + 60
    while destination.qmp("query-status")["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    destination.adopt(source)
    return info


def start_across(guest):
    """Writes what is compared at the end, and starts what goes on across the migration."""
    guest.fio(KEPT)
    guest.run(f"cd /tmp && fio {ACROSS} >/tmp/across.log 2>&1 & echo $! >/tmp/across.pid")
    time.sleep(2)


def end_across(guest):
    """It is still comparing, goes on for a while, and met no error; all data are right."""
    time.sleep(4)
    guest.run("kill -INT $(cat /tmp/across.pid)")  # Fails if fio ended by itself.
    log = guest.run("while kill -0 $(cat /tmp/across.pid) 2>/dev/null; do sleep 0.1; done; "
                    "cat /tmp/across.log")
    assert "err= 0" in log and "verify:" not in log, log
    guest.fio(KEPT + "--verify_only=1")
    guest.fio(FIO + "--name=after --size=8M --iodepth=32")
    guest.power_off()


def check_migration(sockets, qemu, **disk_options):
    """From the daemon's first socket to its second under fio, and its data are right there."""
    def guest(index, **options):
        return Guest([Disk(sockets[index], num_queues=2, **disk_options)], smp=2, qemu=qemu,
                     **options)

    with guest(0) as source, guest(1, incoming=["defer"]) as destination:
        start_across(source)
        migrate(source, destination)
        source.kill()
        end_across(destination)


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_between_daemons(backing, qemu, packed):
    """Two daemons have one file open; the lock changes hands with the rings."""
    disk = backing("shared", "file", num_queues=2, migratable=True, packed=packed)
    with Sluice([disk]) as here, Sluice([disk]) as there:
        check_migration([here.socket("shared"), there.socket("shared")], qemu,
                        options="packed=on" if packed else "")
        here.stop()
        there.stop()


def test_one_daemon(backing, qemu):
    """Both QEMUs are connected to one controller."""
    with Sluice([backing("both", "file", num_queues=2)]) as target:
        check_migration([target.socket("both")] * 2, qemu)
        target.stop()


def test_inflight_migration(backing, newer_qemu):
    """With `inflight-migration` the source does not drain: requests in flight move as a journal."""
    disk = backing("inflight", "file", num_queues=2, migratable=True)
    with Sluice([disk]) as here, Sluice([disk]) as there:
        check_migration([here.socket("inflight"), there.socket("inflight")], newer_qemu,
                        options="inflight-migration=on")
        here.stop()
        there.stop()


def cpr_guest(target, qemu, **options):
    """A guest whose memory can be handed to another QEMU."""
    guest = Guest([Disk(target.socket("cpr"), num_queues=2)], smp=2, qemu=qemu, **options)
    guest.machine += ",aux-ram-share=on"
    return guest


def channel(kind, path):
    """A migration channel in QMP's words."""
    return {"channel-type": kind,
            "addr": {"transport": "socket", "type": "unix", "path": str(path)}}


def test_cpr_transfer(backing, newer_qemu, folder):
    """Another QEMU takes memory over without a copy; the disk sees a new session."""
    main, cpr = channel("main", folder / "main"), channel("cpr", folder / "cpr")
    incoming = [json.dumps(main), json.dumps(cpr)]
    with Sluice([backing("cpr", "file", num_queues=2)]) as target:
        with cpr_guest(target, newer_qemu) as source:
            start_across(source)
            destination = cpr_guest(target, newer_qemu, incoming=incoming)
            try:
                destination.launch()
                while not (folder / "cpr").exists():
                    time.sleep(0.1)
                source.qmp("migrate-set-parameters", mode="cpr-transfer")
                source.qmp("migrate", channels=[main, cpr])
                destination.connect()
                assert finished(source)["status"] == "completed"
                destination.adopt(source)
                source.kill()
                end_across(destination)
            finally:
                destination.kill()
        target.stop()


def test_cpr_exec(backing, newer_qemu, folder):
    """QEMU replaces itself by exec(2) and keeps the guest's memory."""
    with Sluice([backing("cpr", "file", num_queues=2)]) as target:
        with cpr_guest(target, newer_qemu) as guest:
            start_across(guest)
            uri = f"file:{folder}/state"
            command = guest.command(build_image()) + ["-incoming", uri]
            guest.qmp("migrate-set-parameters", mode="cpr-exec", **{"cpr-exec-command": command})
            guest.listen()
            guest.qmp("migrate", uri=uri)
            guest.connect()
            while guest.qmp("query-status")["status"] != "running":
                time.sleep(0.1)
            end_across(guest)
        target.stop()
