# SPDX-License-Identifier: Apache-2.0
"""What happens to a disk in its life: reboots, killed VMMs, a restarted daemon."""
import time

import pytest

from guest import Disk, Guest

FIO = ("--name=t --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --iodepth=16 "
       "--rw=randwrite --size=8M --verify=crc32c --verify_fatal=1 ")
PATTERN = FIO + "--randseed=7 --verify_state_save=0 "


@pytest.fixture(scope="module")
def disk(backing):
    """A file disk with two queues."""
    return backing("disk", "file", num_queues=2)


@pytest.fixture(scope="module")
def bystander(backing):
    """A disk whose guest nobody disturbs is not needed: it shows that its socket keeps serving."""
    return backing("bystander", "memory", num_queues=1)


@pytest.fixture(scope="module")
def target(target_class, disk, bystander):
    """The daemon."""
    with target_class([disk, bystander]) as daemon:
        yield daemon


def attach(target, **options):
    """The disk of this file, as a device."""
    return Disk(target.socket("disk"), num_queues=2, **options)


def check_written(guest):
    """Reads back what PATTERN wrote, in this life of the guest or an earlier one."""
    job = guest.fio(PATTERN + "--verify_only=1")
    assert job["error"] == 0


def test_reboots_and_restart(target, target_class):
    """One guest: the reset button, `reboot -f` under load, and a daemon killed and started again."""
    with Guest([attach(target, reconnect_s=1)], smp=2) as guest:
        guest.fio(PATTERN)
        guest.reset()
        check_written(guest)
        target.check_alive()

        # The guest reboots by itself with I/O in flight.
        guest.run("fio --name=load --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k "
                  "--iodepth=32 --rw=randread --runtime=60 --time_based >/dev/null 2>&1 &")
        time.sleep(1)
        guest.send("reboot -f")
        guest.wait_ready()
        check_written(guest)
        target.check_alive()

        # The daemon dies while the guest is quiet, comes back, and QEMU connects again.
        if target_class.__name__ == "Sluice":
            guest.run("sync")
            time.sleep(0.5)
            target.kill()
            target.start()
            time.sleep(2)  # reconnect=1
            check_written(guest)
            guest.fio(FIO + "--offset=16M")
        guest.power_off()
    target.check_alive()


def test_killed_qemu(target):
    """QEMU dies by kill -9 in the middle of I/O: the daemon serves the next one."""
    with Guest([attach(target), Disk(target.socket("bystander"))], smp=2) as guest:
        guest.fio(PATTERN)
        guest.run("for d in vda vdb; do fio --name=load --filename=/dev/$d --direct=1 "
                  "--ioengine=libaio --bs=4k --iodepth=64 --rw=randread --runtime=60 --time_based "
                  ">/dev/null 2>&1 & done")
        time.sleep(2)
        guest.kill()
    target.check_alive()
    with Guest([attach(target), Disk(target.socket("bystander"))], smp=2) as guest:
        check_written(guest)
        guest.fio(FIO.replace("vda", "vdb"))
        guest.power_off()
    target.check_alive()
    target.stop()
