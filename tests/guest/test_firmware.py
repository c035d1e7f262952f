# SPDX-License-Identifier: Apache-2.0
"""Firmware boots from our disk, and again after resets; drivers come and go; guests end under load.

SeaBIOS and OVMF each have a virtio-blk driver of their own, that uses one queue of the disk, polls
it, and leaves it to the kernel's driver as it is.
"""
import platform
import shutil
import time

import pytest

import bootable
from guest import Disk, Guest

OVMF = "/usr/share/OVMF/OVMF_{}_4M.fd"
LOADERS = {"seabios": "syslinux", "ovmf": "systemd-boot"}
FIO = ("--name=t --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --iodepth=16 "
       f"--rw=randwrite --offset={bootable.DATA_START} --size=8M --verify=crc32c "
       "--verify_fatal=1 --randseed=7 --verify_state_save=0 ")
LOAD = ("fio --name=load --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --iodepth=64 "
        f"--rw=randrw --offset={bootable.DATA_START + (16 << 20)} --size=16M --runtime=600 "
        "--time_based >/dev/null 2>&1 &")
REBINDS = 40

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64",
                                reason="SeaBIOS and syslinux are for x86 only")


@pytest.fixture(scope="module")
def disk(backing):
    """The bootable disk, with two queues."""
    made = backing("disk", "file", bootable.DISK_SIZE, num_queues=2)
    bootable.build(made.path)
    return made


@pytest.fixture(scope="module")
def target(target_class, disk):
    """The daemon."""
    with target_class([disk]) as daemon:
        yield daemon


def boot(target, folder, firmware):
    """A guest that finds its kernel on the disk."""
    extra = []
    if firmware == "ovmf":
        variables = shutil.copy(OVMF.format("VARS"), folder / "variables.fd")
        extra = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF.format('CODE')}",
                 "-drive", f"if=pflash,format=raw,file={variables}"]
    return Guest([Disk(target.socket("disk"), num_queues=2, options="bootindex=1")], smp=2,
                 firmware_boot=True, extra=extra)


def check_booted(guest, firmware):
    """It came from the disk, by the loader of this firmware."""
    assert f"sluice.loader={LOADERS[firmware]}" in guest.run("cat /proc/cmdline")
    efi = guest.try_run("test -d /sys/firmware/efi")[0] == 0
    assert efi == (firmware == "ovmf")


def check_written(guest):
    """Reads back what FIO wrote in an earlier life of the guest."""
    guest.fio(FIO + "--verify_only=1")


@pytest.mark.parametrize("firmware", LOADERS)
def test_boots(target, folder, firmware):
    """From power on, after the reset button under load, after `reboot -f` under load."""
    with boot(target, folder, firmware) as guest:
        check_booted(guest, firmware)
        guest.fio(FIO)

        guest.run(LOAD)
        time.sleep(1)
        guest.reset()
        check_booted(guest, firmware)
        check_written(guest)

        guest.run(LOAD)
        time.sleep(1)
        guest.send("reboot -f")
        guest.wait_ready()
        check_booted(guest, firmware)
        check_written(guest)
        target.check_alive()

        # The guest switches itself off with I/O in flight; QEMU ends with it.
        guest.run(LOAD)
        time.sleep(1)
        guest.send("poweroff -f")
        assert guest.process.wait(60) == 0
    target.check_alive()


@pytest.mark.full
def test_driver_comes_and_goes(target, folder):
    """Unbinds and binds the kernel's driver, quiet and with I/O in flight; then QEMU is killed."""
    with boot(target, folder, "seabios") as guest:
        guest.fio(FIO)
        guest.run("cd /sys/bus/virtio/drivers/virtio_blk; d=$(basename $(ls -d virtio*)); "
                  f"for i in $(seq {REBINDS}); do echo $d >unbind; echo $d >bind; "
                  "dd if=/dev/vda of=/dev/null bs=4k count=8 iflag=direct 2>/dev/null || exit 1; "
                  "done")
        check_written(guest)
        target.check_alive()
        for _ in range(4):
            guest.run(LOAD)
            guest.run("sleep 0.5; cd /sys/bus/virtio/drivers/virtio_blk; "
                      "d=$(basename $(ls -d virtio*)); echo $d >unbind; killall fio; echo $d >bind")
            check_written(guest)
        target.check_alive()
        guest.run(LOAD)
        time.sleep(1)
        guest.kill()
    target.check_alive()
    with boot(target, folder, "seabios") as guest:
        check_written(guest)
        guest.power_off()
    target.stop()
