# SPDX-License-Identifier: Apache-2.0
"""One guest, two processors, every kind of disk: sizes, identity, verified I/O, discard."""
import hashlib
import os
import re

import pytest

from guest import Disk, Guest

MIB = 1 << 20
FIO = "--name=t --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 "

# The guest names them vda, vdb, ... in this order.
DISKS = {
    "file512": dict(kind="file", block_size=512, num_queues=2, serial="file-512"),
    "file4k": dict(kind="file", block_size=4096, num_queues=1, serial="file-4096"),
    "memory512": dict(kind="memory", block_size=512, num_queues=1, serial="m"),
    "memory4k": dict(kind="memory", block_size=4096, num_queues=2, serial="exactly-20-bytes-lon"),
    "readonly": dict(kind="file", block_size=512, num_queues=1, readonly=True, serial="ro"),
    "null": dict(kind="null", block_size=512, num_queues=2, size=1 << 40),
}
DEVICE = {name: f"vd{chr(ord('a') + i)}" for i, name in enumerate(DISKS)}
WRITABLE = ["file512", "file4k", "memory512", "memory4k"]


@pytest.fixture(scope="module")
def disks(backing):
    """The disks; the read-only one has known bytes."""
    made = {name: backing(name, **options) for name, options in DISKS.items()}
    with open(made["readonly"].path, "wb") as out:
        out.write(b"read me" + bytes(made["readonly"].size - 7))
    return made


@pytest.fixture(scope="module")
def target(target_class, disks):
    """A daemon with all of them."""
    with target_class(list(disks.values())) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guest(target, disks):
    """The guest, booted once for the whole file."""
    attached = [Disk(target.socket(name), num_queues=disk.num_queues)
                for name, disk in disks.items()]
    with Guest(attached, smp=2) as machine:
        yield machine


@pytest.fixture(autouse=True)
def daemon_stays_alive(target):
    """No test may cost the daemon its life."""
    yield
    target.check_alive()


def is_sluice(target):
    """False when the harness is tried against the peer."""
    return type(target).__name__ == "Sluice"


@pytest.mark.parametrize("name", DISKS)
def test_identity(guest, disks, target, name):
    """Size, block size, queues, read-only and serial reach the guest's kernel."""
    disk, sys = disks[name], f"/sys/block/{DEVICE[name]}"
    values = guest.run(f"cd {sys}; cat size queue/logical_block_size ro; ls mq | wc -l").split()
    assert values == [str(disk.size // 512), str(disk.block_size), str(int(disk.readonly)),
                      str(disk.num_queues)]
    if is_sluice(target) and disk.serial:
        assert guest.run(f"cat {sys}/serial") == disk.serial


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("block, depth", [("bs=4k", 32), ("bsrange=4k-256k", 8)])
def test_verify(guest, name, block, depth):
    """fio writes at random, reads all back and compares checksums."""
    job = guest.fio(f"{FIO} --filename=/dev/{DEVICE[name]} --rw=randwrite --{block} "
                    f"--iodepth={depth} --size=16M")
    assert job["write"]["io_bytes"] == 16 * MIB
    assert job["read"]["io_bytes"] >= 16 * MIB


@pytest.mark.parametrize("name", ["file512", "memory512"])
def test_single_sectors(guest, name):
    """512-byte I/O, which a 4 KiB-aligned back-end path would get wrong."""
    job = guest.fio(f"{FIO} --filename=/dev/{DEVICE[name]} --rw=randwrite --bs=512 "
                    "--iodepth=16 --offset=32M --size=512k")
    assert job["read"]["io_bytes"] >= 512 << 10


def test_both_queues_carry_io(guest):
    """Two jobs on two processors write disjoint halves and verify them."""
    job = guest.fio(f"{FIO} --filename=/dev/{DEVICE['file512']} --rw=randwrite --bs=4k "
                    "--iodepth=8 --size=8M --offset_increment=8M --numjobs=2 --group_reporting "
                    "--cpus_allowed=0-1 --cpus_allowed_policy=split")
    assert job["write"]["io_bytes"] == 16 * MIB
    # Each queue has an interrupt of its own, and each fired.
    lines = re.findall(r"virtio\d+-req\.\d+", guest.run("cat /proc/interrupts"))
    assert len(lines) >= sum(d["num_queues"] for d in DISKS.values())


def test_null_disk_answers(guest):
    """A null disk takes any I/O, at the end of its terabyte too."""
    job = guest.fio("--name=t --direct=1 --ioengine=libaio --rw=randrw --bs=4k --iodepth=32 "
                    f"--filename=/dev/{DEVICE['null']} --offset=1048568M --size=8M")
    assert job["read"]["total_ios"] + job["write"]["total_ios"] == 2048


def test_read_only(guest, disks):
    """The guest reads, cannot write, and the file is untouched."""
    device, path = f"/dev/{DEVICE['readonly']}", disks["readonly"].path
    assert guest.run(f"head -c 7 {device}") == "read me"
    status, _, _ = guest.try_run(f"dd if=/dev/zero of={device} bs=4096 count=1 oflag=direct")
    assert status != 0
    # Past the kernel's own check of the flag, as a careless driver would write.
    guest.try_run(f"blockdev --setrw {device}; dd if=/dev/zero of={device} bs=4096 count=1 "
                  f"oflag=direct; blockdev --setro {device}")
    with open(path, "rb") as file:
        assert file.read(7) == b"read me"


def test_written_data_is_in_the_file(guest, disks):
    """What the guest wrote and flushed, the host reads."""
    text = guest.run("dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null; "
                     f"dd if=/tmp/data of=/dev/{DEVICE['file512']} bs=64k seek=256 oflag=direct "
                     "conv=fsync 2>/dev/null; sha256sum </tmp/data")
    with open(disks["file512"].path, "rb") as file:
        file.seek(256 << 16)
        assert hashlib.sha256(file.read(16 << 16)).hexdigest() == text.split()[0]


@pytest.mark.parametrize("name", ["file512", "file4k"])
def test_discard_frees_space(guest, disks, name):
    """blkdiscard of a written disk gives the file's blocks back, and it reads as zeroes."""
    device, path = f"/dev/{DEVICE[name]}", disks[name].path
    guest.run(f"dd if=/dev/urandom of={device} bs=1M count=32 oflag=direct conv=fsync 2>&1")
    before = os.stat(path).st_blocks * 512
    assert before >= 32 * MIB
    guest.run(f"blkdiscard -o {4 * MIB} -l {24 * MIB} {device}")
    assert os.stat(path).st_blocks * 512 <= before - 20 * MIB
    assert guest.run(f"dd if={device} bs=1M skip=4 count=24 iflag=direct 2>/dev/null | tr -d '\\0' | "
                     "wc -c").strip() == "0"
    assert guest.run(f"dd if={device} bs=1M count=4 iflag=direct 2>/dev/null | tr -d '\\0' | "
                     "wc -c").strip() != "0"


@pytest.mark.parametrize("name", WRITABLE)
def test_write_zeroes(guest, name):
    """WRITE_ZEROES clears exactly its range. blkdiscard -z sends the command, not zero pages."""
    device = f"/dev/{DEVICE[name]}"
    assert int(guest.run(f"cat /sys/block/{DEVICE[name]}/queue/write_zeroes_max_bytes")) > 0
    guest.run(f"tr '\\0' x </dev/zero | dd of={device} bs=1M count=8 iflag=fullblock oflag=direct "
              "2>&1")
    guest.run(f"blkdiscard -z -o {MIB} -l {4 * MIB} {device}")
    kept = guest.run(f"dd if={device} bs=1M count=8 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c")
    assert int(kept) == 4 * MIB


def test_file_system(guest, disks):
    """ext4 on the disk: made, filled, trimmed, checked again after unmounting."""
    device, path = f"/dev/{DEVICE['file4k']}", disks["file4k"].path
    guest.run(f"load ext4 && mkfs.ext4 -q -E nodiscard {device} && mount -t ext4 {device} /mnt && "
              "dd if=/dev/urandom of=/mnt/big bs=1M count=24 conv=fsync 2>&1 && "
              "dd if=/dev/urandom of=/mnt/kept bs=1M count=4 conv=fsync 2>&1")
    total = guest.run("sha256sum </mnt/kept")
    full = os.stat(path).st_blocks
    guest.run("rm /mnt/big && sync && fstrim /mnt")
    assert os.stat(path).st_blocks <= full - (16 * MIB) // 512
    guest.run("umount /mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 "
              f"{device} /mnt")
    assert guest.run("sha256sum </mnt/kept; umount /mnt") == total
