# SPDX-License-Identifier: Apache-2.0
"""Verified I/O by libblkio on every back-end, block size and number of queues."""
import ctypes
import errno
import random
import subprocess

import pytest

from blkio import Blkio, BlkioError, load

MIB = 1 << 20
DISK_SIZE = 32 * MIB
ROUNDS = 60
DEPTH = 24              # Requests in flight on a queue.
SLOT = 64 << 10         # Largest request, and each request's own piece of memory.
SEED = 20260101

MATRIX = [(kind, block_size, num_queues) for kind in ("null", "memory", "file")
          for block_size in (512, 4096) for num_queues in (1, 4)]


def disk_name(kind, block_size, num_queues):
    """A disk of the matrix."""
    return f"{kind}-{block_size}-{num_queues}"


@pytest.fixture(scope="module")
def library():
    """libblkio."""
    return load()


@pytest.fixture(scope="module")
def target(target_class, backing):
    """A daemon with the whole matrix of disks, and a read-only one."""
    disks = [backing(disk_name(*case), case[0], size=DISK_SIZE, block_size=case[1],
                     num_queues=case[2]) for case in MATRIX]
    disks.append(backing("readonly", "file", size=MIB, readonly=True))
    with target_class(disks) as daemon:
        yield daemon
        daemon.stop()


@pytest.fixture(autouse=True)
def daemon_stays_alive(target):
    """No test may cost the daemon its life."""
    yield
    target.check_alive()


class Model:
    """The disk as it must be, and random requests that agree with it.

    A queue's requests of one round never overlap each other or those of another queue, since their
    order is open; rounds are separated by waiting.
    """

    def __init__(self, seed, block_size, region, queue_index):
        self.random = random.Random(seed)
        self.bytes = bytearray(DISK_SIZE)
        self.block_size = block_size
        self.region = region
        self.memory = region.addr + queue_index * DEPTH * SLOT
        self.expected = {}

    def extents(self, first, last):
        """Disjoint random extents within the bytes [first, last)."""
        share = (last - first) // DEPTH // self.block_size * self.block_size
        for tag in range(DEPTH):
            blocks = self.random.randint(1, SLOT // self.block_size)
            length = blocks * self.block_size
            slack = (share - length) // self.block_size
            yield tag, first + tag * share + self.random.randint(0, slack) * self.block_size, length

    def submit(self, queue, first, last):
        """A round of requests; what reads must find is kept in `expected`."""
        self.expected = {}
        for tag, start, length in self.extents(first, last):
            address = self.memory + tag * SLOT
            kind = self.random.random()
            if kind < 0.45:
                data = self.random.randbytes(length)
                ctypes.memmove(address, data, length)
                self.bytes[start:start + length] = data
                queue.write(start, address, length, tag)
            elif kind < 0.55:
                self.bytes[start:start + length] = bytes(length)
                queue.write_zeroes(start, length, tag, unmap=kind < 0.5)
            elif kind < 0.6:
                queue.flush(tag)
            else:
                ctypes.memset(address, 0xa5, length)
                self.expected[tag] = (start, length)
                queue.read(start, address, length, tag)

    def check(self, results):
        """Every request succeeded and every read found what it must."""
        assert set(results.values()) == {0}, results
        assert len(results) == DEPTH
        for tag, (start, length) in self.expected.items():
            found = ctypes.string_at(self.memory + tag * SLOT, length)
            assert found == self.bytes[start:start + length], f"wrong data at {start}+{length}"


@pytest.mark.parametrize("kind, block_size, num_queues", MATRIX)
def test_verified_io(library, target, kind, block_size, num_queues):
    """Random writes, zeroes, flushes and reads on all queues at once, against a model."""
    socket = target.socket(disk_name(kind, block_size, num_queues))
    with Blkio(library, socket, num_queues) as disk:
        assert disk.get_uint64("capacity") == DISK_SIZE
        assert disk.get_int("request-alignment") == block_size
        region = disk.map(num_queues * DEPTH * SLOT)
        share = DISK_SIZE // num_queues
        models = [Model(SEED + i, block_size, region, i) for i in range(num_queues)]
        if kind != "null":  # The model starts from zeroes.
            for start in range(0, DISK_SIZE, 4 * MIB):
                disk.queues[0].write_zeroes(start, 4 * MIB, start)
            assert set(disk.queues[0].wait().values()) == {0}
        for _ in range(ROUNDS):
            for i, model in enumerate(models):
                model.submit(disk.queues[i], i * share, (i + 1) * share)
                if kind == "null":
                    model.expected = {}
            for i, model in enumerate(models):
                model.check(disk.queues[i].wait())
        if kind == "file":
            disk.queues[0].flush(0)
            assert disk.queues[0].wait() == {0: 0}
            path = next(d.path for d in target.disks if d.name == disk_name(kind, block_size,
                                                                           num_queues))
            with open(path, "rb") as file:
                for i, model in enumerate(models):
                    file.seek(i * share)
                    assert file.read(share) == model.bytes[i * share:(i + 1) * share]


def test_discard_frees_space(library, target):
    """DISCARD punches a hole in the file."""
    name = disk_name("file", 4096, 1)
    path = next(d.path for d in target.disks if d.name == name)

    def used_bytes():
        return int(subprocess.run(["stat", "-c", "%b", path], stdout=subprocess.PIPE,
                                  check=True).stdout) * 512

    with Blkio(library, target.socket(name)) as disk:
        queue, region = disk.queues[0], disk.map(MIB)
        ctypes.memset(region.addr, 0x5a, MIB)
        for i in range(16):
            queue.write(i * MIB, region.addr, MIB, i)
        assert set(queue.wait().values()) == {0}
        queue.flush(0)
        assert queue.wait() == {0: 0}
        before = used_bytes()
        queue.discard(0, 16 * MIB, 0)
        assert queue.wait() == {0: 0}
        assert used_bytes() <= before - 15 * MIB


def test_memory_slots_come_and_go(library, target):
    """Regions are added and removed while the disk runs, more often than there are slots."""
    with Blkio(library, target.socket(disk_name("memory", 512, 1))) as disk:
        queue, stay = disk.queues[0], disk.map(MIB)
        for turn in range(64):
            region = disk.map(MIB)
            ctypes.memset(region.addr, turn, 4096)
            queue.write(turn * 4096, region.addr, 4096, 0)
            assert queue.wait() == {0: 0}
            disk.unmap(region)
            queue.read(turn * 4096, stay.addr, 4096, 0)
            assert queue.wait() == {0: 0}
            assert ctypes.string_at(stay.addr, 4096) == bytes([turn]) * 4096
        slots = disk.get_uint64("max-mem-regions")
        regions = [disk.map(MIB) for _ in range(min(slots, 32) - 2)]
        for region in regions:
            queue.read(0, region.addr, 4096, 0)
            assert queue.wait() == {0: 0}
            assert ctypes.string_at(region.addr, 4096) == bytes(4096)


def test_bad_requests_end_themselves(library, target):
    """Past the end: the request fails, the queue goes on."""
    with Blkio(library, target.socket(disk_name("memory", 512, 1))) as disk:
        queue, region = disk.queues[0], disk.map(MIB)
        queue.read(DISK_SIZE, region.addr, 4096, 1)
        queue.write(DISK_SIZE - 2048, region.addr, 4096, 2)
        queue.read(0, region.addr, 4096, 3)
        results = queue.wait()
        assert results[1] < 0 and results[2] < 0 and results[3] == 0


def test_read_only(library, target):
    """libblkio refuses to open a read-only disk for writing; the file stays as it was."""
    with pytest.raises(BlkioError) as error:
        with Blkio(library, target.socket("readonly")):
            pass
    assert error.value.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def test_reconnect_at_once(library, target):
    """The disk is there again for the next front-end, with its data."""
    socket = target.socket(disk_name("file", 512, 4))
    for turn in range(1, 6):
        with Blkio(library, socket, 4) as disk:
            region = disk.map(MIB)
            if turn > 1:
                disk.queues[turn % 4].read(0, region.addr, 512, 0)
                assert disk.queues[turn % 4].wait() == {0: 0}
                assert ctypes.string_at(region.addr, 512) == bytes([turn - 1]) * 512
            ctypes.memset(region.addr, turn, 512)
            disk.queues[0].write(0, region.addr, 512, 0)
            assert disk.queues[0].wait() == {0: 0}
