# SPDX-License-Identifier: Apache-2.0
"""Live migration of a guest that writes, reads and compares all the while.

What the disk reads into memory after QEMU copied that memory must be copied again: only the dirty
log of the daemon knows. fio finds what was missed, for its buffers are read from the disk.
"""
import time

import pytest

from guest import Disk, Guest
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


def check_migration(sockets, qemu, **disk_options):
    """From the daemon's first socket to its second under fio, and its data are right there."""
    def guest(index, **options):
        return Guest([Disk(sockets[index], num_queues=2, **disk_options)], smp=2, qemu=qemu,
                     **options)

    with guest(0) as source, guest(1, incoming=True) as destination:
        source.fio(KEPT)
        running = source.send(f"cd /tmp && fio {ACROSS} >/tmp/across.log 2>&1 & "
                              "echo $! >/tmp/across.pid")
        assert source.result(running)[0] == 0
        time.sleep(2)
        migrate(source, destination)
        source.kill()
        # Still comparing, and it goes on without an error for a while.
        time.sleep(5)
        destination.run("kill -0 $(cat /tmp/across.pid) && kill -INT $(cat /tmp/across.pid)")
        log = destination.run("while kill -0 $(cat /tmp/across.pid) 2>/dev/null; do sleep 0.1; "
                              "done; cat /tmp/across.log")
        assert "err= 0" in log and "verify:" not in log, log
        destination.fio(KEPT + "--verify_only=1")
        destination.fio(FIO + "--name=after --size=8M --iodepth=32")
        destination.power_off()


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
