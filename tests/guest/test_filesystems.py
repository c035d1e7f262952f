# SPDX-License-Identifier: Apache-2.0
"""File systems on disks of 512-byte and 4 KiB blocks: made, filled, trimmed, read back; by-id."""
import os

import pytest

from guest import Disk, Guest

MIB = 1 << 20
# XFS is not made smaller than 300 MB.
SIZE = 320 * MIB
FILLED_MIB = 48

# The guest names them vda, vdb, ... in this order; serials of the shortest and longest kind.
DISKS = {
    "ext4-512": dict(block_size=512, serial="s"),
    "ext4-4096": dict(block_size=4096, serial="exactly-20-bytes-lon"),
    "xfs-512": dict(block_size=512, serial="WD-1234_5.6"),
    "xfs-4096": dict(block_size=4096, serial=""),
}
DEVICE = {name: f"/dev/vd{chr(ord('a') + i)}" for i, name in enumerate(DISKS)}
MKFS = {"ext4": "mkfs.ext4 -q -E nodiscard", "xfs": "mkfs.xfs -q -K"}


@pytest.fixture(scope="module")
def disks(backing):
    """File disks: only a file can give its space back."""
    return {name: backing(name, "file", SIZE, num_queues=1, **options)
            for name, options in DISKS.items()}


@pytest.fixture(scope="module")
def target(target_class, disks):
    """A daemon with all of them."""
    with target_class(list(disks.values())) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guest(target):
    """The guest, booted once for the whole file."""
    with Guest([Disk(target.socket(name)) for name in DISKS], smp=2) as machine:
        yield machine


def space(disk):
    """Bytes that the file of a disk occupies."""
    return os.stat(disk.path).st_blocks * 512


@pytest.mark.parametrize("name", DISKS)
def test_fstrim(guest, disks, target, name):
    """What a file system deletes and trims leaves the host's file; what it keeps stays right."""
    disk, device, kind = disks[name], DEVICE[name], name.split("-", maxsplit=1)[0]
    queue = f"/sys/block/{device[-3:]}/queue"
    assert int(guest.run(f"cat {queue}/logical_block_size")) == disk.block_size
    assert int(guest.run(f"cat {queue}/discard_max_bytes")) > 0

    guest.run(f"load {kind} && {MKFS[kind]} {device} && mount -t {kind} {device} /mnt && "
              "dd if=/dev/urandom of=/mnt/kept bs=1M count=4 conv=fsync 2>&1 && "
              f"dd if=/dev/urandom of=/mnt/big bs=1M count={FILLED_MIB} conv=fsync 2>&1")
    kept = guest.run("sha256sum </mnt/kept")
    full = space(disk)
    assert full >= (FILLED_MIB + 4) * MIB
    guest.run("rm /mnt/big && sync && fstrim /mnt")
    assert space(disk) <= full - (FILLED_MIB - 8) * MIB

    guest.run(f"umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t {kind} {device} /mnt")
    assert guest.run("sha256sum </mnt/kept") == kept
    guest.run("umount /mnt")
    assert "error" not in guest.run("dmesg | grep -i 'error' || true").lower()
    target.check_alive()


def test_by_id(guest, target):
    """udev names the disks by their serials, also the one that got its serial from us."""
    guest.run("ln -s /usr/bin/udevadm /tmp/systemd-udevd && /tmp/systemd-udevd --daemon && "
              "udevadm trigger --action=add --subsystem-match=block && udevadm settle -t 60")
    links = guest.run("cd /dev/disk/by-id && for l in virtio-*; do "
                      "echo $l $(readlink -f $l); done").splitlines()
    found = dict(reversed(line.split()) for line in links)
    for name, options in DISKS.items():
        serial = options["serial"] or guest.run(f"cat /sys/block/{DEVICE[name][-3:]}/serial")
        assert len(serial) > 0
        assert found[DEVICE[name]] == f"virtio-{serial}"
    assert len(set(found.values())) == len(DISKS)
    target.check_alive()
    target.stop()
