# SPDX-License-Identifier: Apache-2.0
"""QEMU's own block layer as front-end: qemu-img and qemu-io with the virtio-blk-vhost-user driver.

Debian 13's QEMU has it, Debian 12's (7.2) does not: there these tests are counted as skipped.
"""
import os
import random
import subprocess

import pytest

MIB = 1 << 20
SIZE = 16 * MIB
MATRIX = [(kind, block_size) for kind in ("memory", "file") for block_size in (512, 4096)]


def tool(*args, check=True):
    """Runs one of QEMU's tools; returns (status, all output)."""
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, check=False)
    assert not check or done.returncode == 0, f"{args}:\n{done.stdout}"
    return done.returncode, done.stdout


def options(socket):
    """--image-opts for a vhost-user socket."""
    return f"driver=virtio-blk-vhost-user,path={socket},cache.direct=on"


def has_driver():
    """Whether this QEMU knows the driver at all."""
    return "Unknown driver" not in tool("qemu-img", "info", "--image-opts", options("/none"),
                                        check=False)[1]


pytestmark = pytest.mark.skipif(not has_driver(),
                                reason="this QEMU has no virtio-blk-vhost-user driver")


@pytest.fixture(scope="module")
def target(target_class, backing):
    """A daemon with the matrix of disks."""
    with target_class([backing(f"{kind}-{block_size}", kind, size=SIZE, block_size=block_size)
                       for kind, block_size in MATRIX]) as daemon:
        yield daemon
        daemon.stop()


@pytest.fixture(scope="module")
def image(folder):
    """An image with random data and holes."""
    path = str(folder / "source.raw")
    with open(path, "wb") as out:
        out.truncate(SIZE)
        generator = random.Random(1)
        for start in range(0, SIZE, MIB):
            out.seek(start + 4096 * generator.randint(0, 100))
            out.write(generator.randbytes(512 << 10))
    return path


@pytest.mark.parametrize("kind, block_size", MATRIX)
def test_convert_and_compare(target, image, folder, kind, block_size):
    """An image goes to the disk, compares equal, and comes back equal."""
    disk = options(target.socket(f"{kind}-{block_size}"))
    # What was there before must not shine through the image's holes.
    tool("qemu-io", "-c", f"write -P 0xa5 0 {SIZE}", "--image-opts", disk)
    tool("qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", image, disk)
    back = str(folder / f"{kind}-{block_size}.back")
    tool("qemu-img", "convert", "-O", "raw", "--image-opts", disk, back)
    with open(image, "rb") as one, open(back, "rb") as other:
        assert one.read() == other.read()
    os.unlink(back)
    target.check_alive()


@pytest.mark.parametrize("kind, block_size", MATRIX)
def test_patterns(target, kind, block_size):
    """Writes, zeroes, discards and flushes, each read back by qemu-io itself."""
    commands = [f"write -P 0x11 0 {MIB}", f"write -P 0x22 {MIB} 64k", "flush",
                f"write -z {block_size} {block_size}", f"write -z -u {2 * block_size} 4096",
                "discard 512k 64k",
                f"read -P 0x11 0 {block_size}", f"read -P 0 {block_size} {block_size}",
                f"read -P 0 {2 * block_size} 4096", f"read -P 0x22 {MIB} 64k",
                f"aio_write -P 0x33 {2 * MIB} 1M", f"aio_write -P 0x44 {3 * MIB} 1M", "aio_flush",
                f"read -P 0x33 {2 * MIB} 1M", f"read -P 0x44 {3 * MIB} 1M"]
    arguments = [word for command in commands for word in ("-c", command)]
    _, said = tool("qemu-io", *arguments, "--image-opts",
                   options(target.socket(f"{kind}-{block_size}")))
    assert "verification failed" not in said and "failed" not in said, said
    target.check_alive()
