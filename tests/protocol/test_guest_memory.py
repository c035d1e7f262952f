# SPDX-License-Identifier: Apache-2.0
"""Memory tables: several regions, boundaries, slots that come and go while I/O runs."""

import os
import threading

import pytest

from blk import S_OK, Layout, Type
from daemon import MIB
from guest_memory import GuestMemory, Region
from rings import FORMATS
from virtq import Segment

pytestmark = pytest.mark.parametrize("slots", [False, True], ids=["table", "slots"])
SERVER_OPTIONS = {"cores": "0,1"}  # queues of one session on two reactors


def apart(count=8, size=2 * MIB):
    """Regions with gaps between them, guest and user addresses in different orders."""
    return GuestMemory([Region((i + 1) << 32, size, uva=0x7000_0000_0000 - (i << 33),
                               mmap_offset=4096 * i) for i in range(count)])


def touching(size=MIB):
    """Two regions that follow each other for the guest, and lie apart for everybody else."""
    return GuestMemory([Region(MIB, size, uva=0x7000_0000_0000),
                        Region(MIB + size, size, uva=0x6000_0000_0000)])


def test_several_regions(connect, memory_disk, slots):
    """Rings in one region, buffers in each of eight."""
    driver = connect(memory_disk, memory=apart(), mem_slots=slots, ring_region=3)
    for region in range(8):
        data = os.urandom(4096)
        driver.write(region * 8, data, region=region)
        assert driver.read(region * 8, 4096, region=7 - region) == data


def test_data_across_a_region_boundary(connect, memory_disk, slots):
    """A buffer contiguous for the guest, in two regions: one descriptor, two mappings
    (CVE-2018-1059: the length checked against the first region alone)."""
    driver = connect(memory_disk, memory=touching(), mem_slots=slots)
    boundary = driver.mem.regions[1].gpa
    queue = driver.queues[0]
    for before in (1, 511, 512, 513, 4095):
        data = os.urandom(4096)
        driver.write(0, data)
        header = driver.mem.alloc(16)
        status = driver.mem.alloc(1)
        start = boundary - before
        driver.mem.write(header, bytes(16))
        driver.mem.write(status, b"\xee")
        head = queue.add([Segment(header, 16), Segment(start, 4096, True),
                          Segment(status, 1, True)])
        queue.publish(head)
        queue.notify()
        queue.wait(head)
        assert driver.mem.read(status, 1)[0] == S_OK
        assert driver.mem.read(start, 4096) == data


@FORMATS
def test_header_and_status_across_a_region_boundary(connect, memory_disk, slots):
    driver = connect(memory_disk, memory=touching(), mem_slots=slots)
    boundary = driver.mem.regions[1].gpa
    queue = driver.queues[0]
    data = os.urandom(512)
    driver.write(0, data)
    driver.mem.write(boundary - 7, bytes(16))
    status = driver.mem.alloc(513)
    head = queue.add([Segment(boundary - 7, 16), Segment(status, 513, True)])
    queue.publish(head)
    queue.notify()
    assert queue.wait(head) == 513
    assert driver.mem.read(status, 513) == data + b"\0"


def test_indirect_table_across_a_region_boundary(connect, memory_disk, slots):
    """Served, or refused: a table split by a boundary, in the middle of a descriptor."""
    driver = connect(memory_disk, memory=touching(), mem_slots=slots)
    boundary = driver.mem.regions[1].gpa
    queue = driver.queues[0]
    pending = driver.prepare(Type.IN, in_len=512)
    segments = pending.readable + pending.writable
    table = boundary - 24
    queue.write_chain(segments, range(len(segments)), table)
    queue.write_desc(pending.head, table, 16 * len(segments), 4)
    queue.publish(pending.head)
    queue.notify()
    length = queue.try_wait(pending.head, 0.3)
    if length is None:
        assert driver.expect_stopped_or_failed(pending) in ("stopped", "closed", "failed")
    else:
        assert driver.status_of(pending) in (0, 1, 2)


@FORMATS
def test_same_guest_and_user_addresses(connect, memory_disk, slots):
    """SPDK's initiator: guest physical = user address."""
    gpa = 0x2000_0000_0000
    driver = connect(memory_disk, memory=GuestMemory([Region(gpa, 4 * MIB, uva=gpa)]),
                     mem_slots=slots)
    driver.write(0, os.urandom(4096))


def test_one_memfd_in_several_regions(connect, memory_disk, slots):
    """QEMU's memory below and above 4 GiB: one file, two regions at different offsets."""
    low = Region(0, 2 * MIB)
    os.ftruncate(low.fd, 4 * MIB)
    high = Region(1 << 32, 2 * MIB, mmap_offset=2 * MIB, fd=low.fd)
    driver = connect(memory_disk, memory=GuestMemory([low, high]), mem_slots=slots)
    data = os.urandom(4096)
    driver.write(0, data, region=1)
    assert driver.read(0, 4096, region=0) == data


def test_region_of_one_page_and_odd_sizes(connect, memory_disk, slots):
    """Sizes and offsets need not be multiples of huge pages."""
    memory = GuestMemory([Region(MIB, 2 * MIB), Region(16 * MIB, 4096, mmap_offset=4096 * 3),
                          Region(32 * MIB, 12288, mmap_offset=4096)])
    driver = connect(memory_disk, memory=memory, mem_slots=slots)
    data = os.urandom(2048)
    driver.write(0, data, region=1)
    assert driver.read(0, 2048, region=2) == data


class Load:
    """Verified I/O in a thread, for as long as the block lasts."""

    def __init__(self, driver):
        self.driver = driver
        self.error = None
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            while not self._stop.is_set():
                data = os.urandom(4096)
                sector = self.count % 64 * 8
                self.driver.write(sector, data)
                assert self.driver.read(sector, 4096) == data
                self.count += 1
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        if self.error:
            raise AssertionError("I/O failed while memory changed") from self.error
        assert self.count > 0


@FORMATS
def test_memory_changes_while_io_runs(connect, file_disk, slots):
    """Slots added and removed, or the table repeated, a hundred times under verified I/O
    (spdk#3867: other queues must not feel it). The region in use stays."""
    driver = connect(file_disk, mem_slots=slots)
    with Load(driver) as load:
        for i in range(100):
            extra = Region((i % 30 + 1) << 32, MIB)
            if slots:
                driver.conn.add_mem_reg(extra)
                driver.conn.rem_mem_reg(extra, with_fd=i % 2 == 1)
            else:
                driver.conn.set_mem_table([*driver.mem.regions, extra][::1 if i % 2 else -1])
            extra.close()
        before = load.count
        while load.count < before + 3 and not load.error:
            pass
    driver.read(0, 512)


@FORMATS
def test_added_memory_is_usable_at_once(connect, memory_disk, slots):
    """When the acknowledgement is there, so is the memory; removed, it is not read again."""
    driver = connect(memory_disk, mem_slots=slots)
    for i in range(20):
        extra = Region((i + 1) << 32, MIB)
        driver.mem.regions.append(extra)
        if slots:
            driver.conn.add_mem_reg(extra)
        else:
            driver.conn.set_mem_table(driver.mem.regions)
        data = os.urandom(4096)
        driver.write(i, data, region=1)
        assert driver.read(i, 4096, region=0) == data
        driver.mem.regions.pop()
        if slots:
            driver.conn.rem_mem_reg(extra)
        else:
            driver.conn.set_mem_table(driver.mem.regions)
        extra.close()
        driver.read(i, 512)


@FORMATS
def test_as_many_slots_as_promised(server, connect, memory_disk, slots):
    """32 or more by slots, 8 by the table; all usable, all gone afterwards."""
    driver = connect(memory_disk, start_up=False)
    for _ in driver.negotiate():
        pass
    count = min(driver.conn.get_max_mem_slots(), 64) if slots else 8
    for i in range(count - 1):
        driver.mem.regions.append(Region((i + 1) << 32, 65536))
    driver.mem_slots = slots
    for _ in driver.share_memory():
        pass
    for _ in driver.set_up_queue(driver.queues[0]):
        pass
    for _ in driver.driver_ok():
        pass
    for region in range(count):
        driver.write(region, os.urandom(512), region=region)


@FORMATS
def test_rings_survive_a_new_table(connect, memory_disk, slots):
    """The memory behind running rings moves in user space: SET_MEM_TABLE replaces, and
    SET_VRING_ADDR follows; the ring goes on where it was."""
    driver = connect(memory_disk, mem_slots=slots)
    data = os.urandom(512)
    driver.write(5, data)
    base = driver.stop_queue()
    region = driver.mem.regions[0]
    if slots:
        driver.conn.rem_mem_reg(region)
    region.uva += 1 << 36
    if slots:
        driver.conn.add_mem_reg(region)
    else:
        driver.conn.set_mem_table(driver.mem.regions)
    driver.restart_queue(0, base)
    assert driver.read(5, 512) == data


def test_parts_of_a_ring_in_three_regions(connect, memory_disk, slots):
    """Descriptors, avail and used ring each in a region of its own."""
    memory = apart(3)
    driver = connect(memory_disk, memory=memory, mem_slots=slots, start_up=False)
    queue = driver.queues[0]
    queue.avail_gpa = memory.alloc(6 + 2 * queue.size, 2, 1)
    queue.used_gpa = memory.alloc(6 + 8 * queue.size, 4, 2)
    queue._avail = memory.words(queue.avail_gpa, 3 + queue.size)
    queue._used = memory.words(queue.used_gpa, 3 + 4 * queue.size)
    queue.reset()
    driver.start_up()
    data = os.urandom(4096)
    driver.write(0, data, layout=Layout("indirect", indirect=True))
    assert driver.read(0, 4096) == data
