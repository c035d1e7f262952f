# SPDX-License-Identifier: Apache-2.0
"""Packed rings with the Linux driver, on both QEMUs: verified I/O, resets, a restarted daemon."""
import time

import pytest

from guest import Disk, Guest

RING_PACKED, EVENT_IDX, INDIRECT_DESC = 34, 29, 28
FIO = "--name=t --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 "
DEVICE = {"file": "vda", "memory": "vdb", "split": "vdc"}


@pytest.fixture(scope="module")
def target(target_class, backing):
    """Two disks with packed rings and one with split rings, in one daemon."""
    disks = [backing("file", "file", num_queues=2, packed=True),
             backing("memory", "memory", num_queues=1, packed=True),
             backing("split", "memory", num_queues=1, packed=True)]
    with target_class(disks) as daemon:
        yield daemon
        daemon.stop()


def negotiated(guest, device):
    """The feature bits that the guest's driver took."""
    bits = guest.run(f"cat /sys/block/{device}/device/features").strip()
    return {bit for bit, value in enumerate(bits) if value == "1"}


@pytest.mark.parametrize("qemu", [
    "debian", pytest.param("backports", marks=pytest.mark.full)], indirect=True)
def test_packed_rings(target, qemu):
    """One guest a QEMU: negotiation, I/O, the reset button, the driver anew, the daemon anew."""
    disks = [Disk(target.socket("file"), num_queues=2, options="packed=on", reconnect_s=1),
             Disk(target.socket("memory"), options="packed=on", reconnect_s=1),
             Disk(target.socket("split"), reconnect_s=1)]
    with Guest(disks, smp=2, qemu=qemu) as guest:
        for name, device in DEVICE.items():
            bits = negotiated(guest, device)
            assert (RING_PACKED in bits) == (name != "split")
            assert {EVENT_IDX, INDIRECT_DESC} <= bits
            for block, depth in (("bs=4k", 64), ("bsrange=512-256k", 8)):
                guest.fio(f"{FIO} --filename=/dev/{device} --rw=randwrite --{block} "
                          f"--iodepth={depth} --size=8M")
        guest.fio(f"{FIO} --filename=/dev/vda --rw=randwrite --bs=4k --iodepth=32 --size=8M "
                  "--offset_increment=8M --numjobs=2 --group_reporting --cpus_allowed=0-1 "
                  "--cpus_allowed_policy=split")

        kept = f"{FIO} --filename=/dev/vda --rw=randwrite --bs=4k --iodepth=32 --offset=32M " \
               "--size=8M --randseed=7 --verify_state_save=0 "
        guest.fio(kept)
        guest.run("cd /sys/bus/virtio/drivers/virtio_blk; d=$(basename $(readlink "
                  "/sys/block/vda/device)); for i in $(seq 20); do echo $d >unbind; "
                  "echo $d >bind; dd if=/dev/vda of=/dev/null bs=4k count=300 iflag=direct "
                  "2>/dev/null || exit 1; done")
        guest.fio(kept + "--verify_only=1")

        guest.run("fio --name=load --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k "
                  "--iodepth=64 --rw=randread --runtime=60 --time_based >/dev/null 2>&1 &")
        time.sleep(1)
        guest.reset()
        assert RING_PACKED in negotiated(guest, "vda")
        guest.fio(kept + "--verify_only=1")

        # The daemon dies in the middle of writes; they complete when it is back.
        running = guest.send(f"cd /tmp && fio {FIO} --filename=/dev/vda --rw=randwrite --bs=4k "
                             "--iodepth=32 --size=24M --verify_backlog=512 --output-format=terse")
        time.sleep(2)
        target.kill()
        target.start()
        status, out, err = guest.result(running)
        assert status == 0, out + err
        guest.fio(kept + "--verify_only=1")
        guest.power_off()
    target.check_alive()
