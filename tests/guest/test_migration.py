# SPDX-License-Identifier: Apache-2.0
"""Live migration of a guest that writes, reads and compares all the while.

fio compares what it reads from the disk. And since only the daemon's dirty log knows of memory that
the disk wrote after QEMU had copied it, `CACHED` fills the page cache from the disk again and again,
which no processor writes to, and compares what is cached: a page that the log missed is stale.
"""
import json
import time

import pytest

from guest import Disk, Guest, build_image
from target import Sluice

# In `make check-full` only: two or three guests under emulation at once, and on QEMU 7.2 the guest was
# seen to lock up after the move, in one run of three, which is not explained yet.
pytestmark = pytest.mark.full


MIGRATE_TIMEOUT_S = 240
FIO = ("--filename=/dev/vda --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 "
       "--rw=randwrite --bs=4k ")
KEPT = FIO + "--name=kept --offset=32M --size=8M --iodepth=32 --randseed=7 --verify_state_save=0 "
ACROSS = FIO + "--name=across --size=16M --iodepth=16 --verify_backlog=128 --loops=1000 "
# Until /tmp/stop is there; a line in /tmp/stale for each sum that is wrong.
CACHED = """
part() { dd if=/dev/vda bs=1M skip=48 count=12 2>/dev/null | md5sum; }
right=$(part)
(while [ ! -e /tmp/stop ]; do
	echo 1 >/proc/sys/vm/drop_caches
	for i in 1 2 3 4 5 6; do
		now=$(part); [ "$now" = "$right" ] || echo "$i $now" >>/tmp/stale
	done
done; touch /tmp/stopped) >/dev/null 2>&1 &
"""
# A page that the kernel clears when it hands it out is dirty anyhow.
APPEND = "init_on_alloc=0"
PASSES = 3  # Over the guest's memory, before the migration may end.
BANDWIDTH = 32 << 20


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
    source.qmp("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH, "downtime-limit": 1})
    source.qmp("migrate", uri=uri)
    # Memory that was copied is written again, by the disk among others, before the guest moves.
    deadline = time.monotonic() + MIGRATE_TIMEOUT_S
    while True:
        info = source.qmp("query-migrate")
        assert info["status"] in ("setup", "active"), info
        if info.get("ram", {}).get("dirty-sync-count", 0) > PASSES:
            break
        assert time.monotonic() < deadline, info
        time.sleep(0.2)
    source.qmp("migrate-set-parameters", **{"downtime-limit": 5000})
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
    guest.run("dd if=/dev/urandom of=/dev/vda bs=1M seek=48 count=12 oflag=direct 2>&1")
    guest.run(CACHED)
    guest.run(f"cd /tmp && fio {ACROSS} >/tmp/across.log 2>&1 & echo $! >/tmp/across.pid")
    time.sleep(2)


def end_across(guest):
    """It is still comparing, goes on for a while, and met no error; all data are right."""
    time.sleep(4)
    guest.run("touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.1; done")
    assert guest.run("cat /tmp/stale 2>/dev/null || true") == ""
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
                     append=APPEND, **options)

    with guest(0) as source, guest(1, incoming=["defer"]) as destination:
        start_across(source)
        migrate(source, destination)
        source.kill()
        end_across(destination)


@pytest.mark.parametrize("qemu, packed", [
    pytest.param("debian", False, id="debian-split", marks=pytest.mark.full),
    pytest.param("debian", True, id="debian-packed", marks=pytest.mark.full),
    pytest.param("backports", False, id="backports-split", marks=pytest.mark.full),
    pytest.param("backports", True, id="backports-packed")], indirect=["qemu"])
def test_between_daemons(backing, qemu, packed):
    """Two daemons have one file open; the lock changes hands with the rings."""
    disk = backing("shared", "file", num_queues=2, migratable=True, packed=packed)
    with Sluice([disk]) as here, Sluice([disk]) as there:
        check_migration([here.socket("shared"), there.socket("shared")], qemu,
                        options="packed=on" if packed else "")
        here.stop()
        there.stop()


@pytest.mark.parametrize("qemu", [
    "debian", pytest.param("backports", marks=pytest.mark.full)], indirect=True)
def test_one_daemon(backing, qemu):
    """Both QEMUs are connected to one controller."""
    with Sluice([backing("both", "file", num_queues=2)]) as target:
        check_migration([target.socket("both")] * 2, qemu)
        target.stop()


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
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
