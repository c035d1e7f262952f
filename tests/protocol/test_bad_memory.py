# SPDX-License-Identifier: Apache-2.0
"""Memory tables that lie, and guest memory that goes away under the server."""

import ctypes
import os
import socket
import struct
import time

import pytest

from blk import Layout, Type
from daemon import MIB, wait_until
from guest_memory import GuestMemory, Region
from vhost_user import (
    MEMORY_HEADER, NEED_REPLY, U64, VERSION, VRING_STATE, Request, SessionClosed,
    pack_mem_table, pack_region)

pytestmark = pytest.mark.usefixtures("hostile")

REGION = struct.Struct("=QQQQ")


@pytest.fixture
def memfd():
    fd = os.memfd_create("guest")
    os.ftruncate(fd, MIB)
    yield fd
    os.close(fd)


# Regions that cannot be, each against a memfd of 1 MiB: (gpa, size, uva, mmap_offset).
BAD_REGIONS = {
    "size_zero": (0, 0, 1 << 40, 0),
    "guest_range_wraps": ((1 << 64) - 4096, MIB, 1 << 40, 0),
    "user_range_wraps": (0, MIB, (1 << 64) - 4096, 0),
    "huge_size": (0, 1 << 63, 1 << 40, 0),
    "largest_size": (0, (1 << 64) - 1, 0, 0),
    "size_and_offset_wrap": (0, MIB, 1 << 40, (1 << 64) - MIB + 4096),
    "size_and_offset_wrap_to_zero": (0, MIB, 1 << 40, (1 << 64) - MIB),
    "offset_beyond_the_file": (0, 4096, 1 << 40, 2 * MIB),
    "offset_negative": (0, 4096, 1 << 40, 1 << 63),
    "file_shorter_than_the_region": (0, 2 * MIB, 1 << 40, 0),
    "offset_leaves_too_little": (0, MIB, 1 << 40, 4096),
    "one_byte_too_long": (0, MIB + 1, 1 << 40, 0),
    "exabyte": (0, 1 << 60, 1 << 40, 0),
}


@pytest.mark.parametrize("request_", [Request.SET_MEM_TABLE, Request.ADD_MEM_REG],
                         ids=lambda r: r.name)
@pytest.mark.parametrize("case", BAD_REGIONS)
def test_bad_region(dial, memory_disk, memfd, request_, case):
    """CVE-2024-11614, CVE-2018-1059 and relatives: refused when announced, not when used."""
    region = REGION.pack(*BAD_REGIONS[case])
    header = (MEMORY_HEADER.pack(1, 0) if request_ == Request.SET_MEM_TABLE else U64.pack(0))
    dial(memory_disk).expect_refused(request_, header + region, [memfd])


OVERLAPS = {
    "same": ((0, MIB, 1 << 40, 0), (0, MIB, 1 << 41, 0)),
    "guest_overlap": ((0, MIB, 1 << 40, 0), (MIB - 4096, MIB, 1 << 41, 0)),
    "guest_within": ((0, MIB, 1 << 40, 0), (4096, 4096, 1 << 41, 0)),
    "user_overlap": ((0, MIB, 1 << 40, 0), (1 << 32, MIB, (1 << 40) + 4096, 0)),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlapping_regions_of_a_table(dial, memory_disk, memfd, case):
    first, second = OVERLAPS[case]
    payload = MEMORY_HEADER.pack(2, 0) + REGION.pack(*first) + REGION.pack(*second)
    dial(memory_disk).expect_refused(Request.SET_MEM_TABLE, payload, [memfd, memfd])


@pytest.mark.parametrize("case", OVERLAPS)
def test_overlapping_slots(dial, memory_disk, memfd, case):
    first, second = OVERLAPS[case]
    connection = dial(memory_disk)
    connection.command(Request.ADD_MEM_REG, U64.pack(0) + REGION.pack(*first), [memfd])
    connection.expect_refused(Request.ADD_MEM_REG, U64.pack(0) + REGION.pack(*second), [memfd])


@pytest.mark.parametrize("count", [9, 16, 255, 0x7FFFFFFF, 0xFFFFFFFF])
def test_table_of_too_many_regions(dial, memory_disk, memfd, count):
    """The count is above 8; the payload has 8 at most, or as many as it says."""
    regions = b"".join(REGION.pack(i << 32, 4096, (i + 1) << 40, 0) for i in range(min(count, 9)))
    for entries in (8, 9):
        connection = dial(memory_disk)
        payload = MEMORY_HEADER.pack(count, 0) + regions[:32 * entries]
        connection.expect_refused(Request.SET_MEM_TABLE, payload, [memfd] * min(count, 8))


@pytest.mark.parametrize("count, fds", [(2, 1), (8, 7), (1, 0), (1, 2), (0, 1)])
def test_table_with_other_than_an_fd_each(dial, memory_disk, memfd, count, fds):
    regions = b"".join(REGION.pack(i << 32, 4096, (i + 1) << 40, 0) for i in range(count))
    connection = dial(memory_disk)
    connection.send(Request.SET_MEM_TABLE, MEMORY_HEADER.pack(count, 0) + regions, [memfd] * fds,
                    flags=VERSION | NEED_REPLY)
    try:
        value = connection.recv_reply(Request.SET_MEM_TABLE).u64
        assert value != 0 or count == 0
    except SessionClosed:
        pass


def test_empty_table(connect, memory_disk):
    """A table of no regions, under a running ring: refused, or all memory is gone and the ring
    with it."""
    driver = connect(memory_disk)
    driver.read(0, 512)
    try:
        driver.conn.send(Request.SET_MEM_TABLE, pack_mem_table([]), flags=VERSION | NEED_REPLY)
        driver.conn.recv_reply(Request.SET_MEM_TABLE)
        driver.submit(Type.IN, in_len=512).queue.kick()
        driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


@pytest.mark.parametrize("kind", ["eventfd", "pipe", "directory", "null", "socket", "read_only"])
def test_memory_that_cannot_be_mapped(connect, dial, memory_disk, kind):
    others = []
    if kind == "eventfd":
        fd = os.eventfd(0)
    elif kind == "pipe":
        fd, other = os.pipe()
        others.append(other)
    elif kind == "directory":
        fd = os.open("/", os.O_RDONLY)
    elif kind == "null":
        fd = os.open("/dev/null", os.O_RDWR)
    elif kind == "socket":
        fd = socket.socket(socket.AF_UNIX).detach()
    else:
        fd = os.open(__file__, os.O_RDONLY)
    try:
        dial(memory_disk).expect_refused(
            Request.ADD_MEM_REG, U64.pack(0) + REGION.pack(0, 4096, 1 << 40, 0), [fd])
    finally:
        for each in (fd, *others):
            os.close(each)


def test_more_slots_than_promised(server, dial, memory_disk, memfd):
    """GET_MAX_MEM_SLOTS is a limit; fds and mappings of the refused are not kept."""
    connection = dial(memory_disk)
    limit = connection.get_max_mem_slots()
    refused = False
    for i in range(limit + 1):
        payload = U64.pack(0) + REGION.pack(i << 32, 4096, (i + 1) << 40, 0)
        if i < limit:
            connection.command(Request.ADD_MEM_REG, payload, [memfd])
        else:
            connection.expect_refused(Request.ADD_MEM_REG, payload, [memfd])
            refused = True
    assert refused


REMOVALS = {
    "unknown": (1 << 32, MIB, 1 << 41, 0),
    "another_size": (0, MIB // 2, 1 << 40, 0),
    "another_guest_address": (4096, MIB, 1 << 40, 0),
    "another_user_address": (0, MIB, (1 << 40) + 4096, 0),
    "all_ones": ((1 << 64) - 1,) * 4,
}


@pytest.mark.parametrize("case", REMOVALS)
def test_removal_of_a_region_that_is_not(dial, memory_disk, memfd, case):
    connection = dial(memory_disk)
    connection.command(Request.ADD_MEM_REG, U64.pack(0) + REGION.pack(0, MIB, 1 << 40, 0),
                       [memfd])
    connection.expect_refused(Request.REM_MEM_REG, U64.pack(0) + REGION.pack(*REMOVALS[case]))


def test_removal_twice(dial, memory_disk, memfd):
    connection = dial(memory_disk)
    payload = U64.pack(0) + REGION.pack(0, MIB, 1 << 40, 0)
    connection.command(Request.ADD_MEM_REG, payload, [memfd])
    connection.command(Request.REM_MEM_REG, payload)
    connection.expect_refused(Request.REM_MEM_REG, payload)


@pytest.mark.parametrize("slots", [False, True], ids=["table", "slots"])
def test_removal_of_the_memory_of_a_running_ring(connect, memory_disk, slots):
    """The region of ring and buffers goes away while requests fly: the ring stops or the
    session ends; nothing is read through the old mapping."""
    for _ in range(10):
        driver = connect(memory_disk, mem_slots=slots, queue_size=64)
        for i in range(10):
            driver.submit(Type.OUT, 8192 + i * 8, os.urandom(4096))
        try:
            if slots:
                driver.conn.send(Request.REM_MEM_REG,
                                 U64.pack(0) + pack_region(driver.mem.regions[0]),
                                 flags=VERSION | NEED_REPLY)
                driver.conn.recv_reply(Request.REM_MEM_REG)
            else:
                other = Region(1 << 40, MIB)
                driver.conn.send(Request.SET_MEM_TABLE, pack_mem_table([other]), [other.fd],
                                 flags=VERSION | NEED_REPLY)
                other.close()
                driver.conn.recv_reply(Request.SET_MEM_TABLE)
            driver.queues[0].kick()
            driver.submit(Type.OUT, 8192, os.urandom(4096)).queue.kick()
            driver.conn.get_features()
            driver.conn.get_vring_base(0)
        except SessionClosed:
            pass
        driver.close()


def test_buffers_in_a_removed_region(connect, memory_disk):
    """A chain whose buffer lies in a slot that was removed: fails."""
    driver = connect(memory_disk, mem_slots=True)
    extra = Region(1 << 32, MIB)
    driver.conn.add_mem_reg(extra)
    driver.mem.regions.append(extra)
    driver.write(0, os.urandom(4096), region=1)
    driver.conn.rem_mem_reg(extra)
    layout = Layout("plain")
    pending = driver.prepare(Type.IN, in_len=4096, layout=layout)
    data = pending.writable[0]
    pending.queue.write_desc(pending.queue.chains[pending.head][1], extra.gpa, data.length, 3,
                             pending.queue.chains[pending.head][2])
    pending.queue.publish(pending.head)
    pending.queue.notify()
    assert driver.expect_stopped_or_failed(pending) in ("failed", "stopped", "closed")


def test_add_and_remove_1000_times(server, dial, memory_disk, memfd):
    connection = dial(memory_disk)
    payload = U64.pack(0) + REGION.pack(0, MIB, 1 << 40, 0)
    before = None
    for i in range(1000):
        connection.command(Request.ADD_MEM_REG, payload, [memfd])
        connection.command(Request.REM_MEM_REG, payload)
        if i == 100:
            before = server.rss_anon()
    assert server.rss_anon() - before < 8 * MIB


# -- memory that goes away (SIGBUS) --------------------------------------------------------------


def memory_of_two(file_size=None):
    """Rings in region 0, buffers in region 1, which a test then truncates."""
    return GuestMemory([Region(MIB, MIB), Region(1 << 32, 8 * MIB)])


@pytest.mark.parametrize("kind", ["memory_disk", "file_disk", "null_disk"])
def test_buffers_truncated_while_io_runs(connect, memory_disk, file_disk, null_disk, kind):
    """The file behind the buffers shrinks to nothing with I/O in flight (SIGBUS, or EFAULT from
    the kernel): the session may die, nothing else may."""
    disk = {"memory_disk": memory_disk, "file_disk": file_disk, "null_disk": null_disk}[kind]
    for _ in range(3):
        driver = connect(disk, memory=memory_of_two(), queue_size=256)
        for i in range(50):
            driver.submit(Type.IN if i % 2 else Type.OUT, 8192 + i * 8,
                          b"" if i % 2 else os.urandom(4096), 4096 if i % 2 else 0, region=1,
                          notify=False)
        driver.queues[0].kick()
        os.ftruncate(driver.mem.regions[1].fd, 0)
        more = driver.prepare(Type.FLUSH)
        more.queue.publish(more.head)
        more.queue.kick()
        wait_until(lambda: driver.conn.is_closed()
                   or driver.queues[0].used_idx == driver.queues[0].avail_idx
                   or answered(driver), "an end")
        driver.close()


def answered(driver):
    """A ring that was stopped by its fault still lets the session talk."""
    try:
        driver.conn.get_features()
    except SessionClosed:
        pass
    return True


@pytest.mark.parametrize("direction", [Type.IN, Type.OUT])
@pytest.mark.parametrize("size", [0, 4096])
def test_request_into_truncated_memory(connect, memory_disk, direction, size):
    """The memory is gone before the request is made: it fails or the session ends; it cannot
    succeed with data from nowhere."""
    driver = connect(memory_disk, memory=memory_of_two())
    driver.read(0, 512)
    pending = driver.prepare(direction, 64, b"x" * 8192 if direction == Type.OUT else b"",
                             8192 if direction == Type.IN else 0)
    data = pending.readable[1] if direction == Type.OUT else pending.writable[0]
    index = driver.queues[0].chains[pending.head][1]
    after = driver.queues[0].chains[pending.head][2]
    driver.queues[0].write_desc(index, (1 << 32) + MIB, data.length,
                                1 | (2 if direction == Type.IN else 0), after)
    os.ftruncate(driver.mem.regions[1].fd, size)
    pending.queue.publish(pending.head)
    pending.queue.kick()
    used_len = pending.queue.try_wait(pending.head, 0.3)
    if used_len is None:
        assert driver.expect_stopped_or_failed(pending) in ("failed", "stopped", "closed")


@pytest.mark.parametrize("part", ["desc", "avail", "used", "all"])
def test_ring_truncated_while_it_runs(connect, memory_disk, part):
    """The ring's own memory goes: what the reactor polls, reads and writes is no more."""
    driver = connect(memory_disk, memory=memory_of_two(), start_up=False)
    queue = driver.queues[0]
    if part != "all":
        gpa = driver.mem.alloc(16384, 4096, 1)
        setattr(queue, f"{part}_gpa", gpa)
        if part != "desc":
            count = (6 + (2 if part == "avail" else 8) * queue.size) // 2
            setattr(queue, f"_{part}", driver.mem.words(gpa, count))
        queue.reset()
    driver.start_up()
    driver.read(0, 512)
    if part == "all":
        driver.submit(Type.IN, in_len=512)
        os.ftruncate(driver.mem.regions[0].fd, 0)
    else:
        pending = driver.prepare(Type.IN, in_len=512)
        pending.queue.publish(pending.head)
        os.ftruncate(driver.mem.regions[1].fd, 0)
    queue.kick()
    time.sleep(0.05)  # nothing in this ring can be waited for any more
    try:
        driver.conn.get_features()
        driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_truncated_before_the_ring_starts(connect, memory_disk):
    """Mapped, then truncated, then the ring is set up in it."""
    driver = connect(memory_disk, start_up=False)
    for _ in driver.negotiate():
        pass
    for _ in driver.share_memory():
        pass
    os.ftruncate(driver.mem.regions[0].fd, 0)
    queue = driver.queues[0]
    try:
        driver.conn.set_vring_num(0, queue.size)
        region = driver.mem.regions[0]
        driver.conn.send(Request.SET_VRING_ADDR, struct.pack(
            "=IIQQQQ", 0, 0, region.uva, region.uva + 8192, region.uva + 4096, 0))
        driver.conn.send(Request.SET_VRING_KICK, U64.pack(0), [queue.kick_fd])
        driver.conn.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
        queue.kick()
        driver.conn.get_features()
        driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_file_with_a_hole_and_back(connect, memory_disk):
    """A balloon: pages punched out of guest memory and written again; all ordinary."""
    driver = connect(memory_disk)
    data = os.urandom(4096)
    driver.write(0, data)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    region = driver.mem.regions[0]
    assert libc.fallocate(region.fd, 3, 8 * MIB, 4 * MIB) == 0
    assert driver.read(0, 4096) == data
