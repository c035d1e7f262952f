# SPDX-License-Identifier: Apache-2.0
"""Packed rings and chains no driver makes; see test_bad_rings.py for split ones, and for what must
hold."""

import os

import pytest

from blk import HEADER, S_OK, STATUS_POISON, Layout, Pending, Type
from guest_memory import GuestMemory, Region
from test_bad_rings import FAR
from vhost_user import SessionClosed
from virtq import F_AVAIL, F_INDIRECT, F_NEXT, F_USED, F_WRITE, Segment

pytestmark = pytest.mark.usefixtures("hostile")
SIZES = [1, 3, 7, 100, 1000, 1023, 1024]
POISON = 0xA5


class Chain:
    """Hand-made descriptors for one request, in memory full of a known byte."""

    def __init__(self, driver, type_=Type.IN):
        self.driver = driver
        self.queue = driver.queues[0]
        self.area = driver.mem.alloc(16384, 4096)
        driver.mem.write(self.area, bytes([POISON]) * 16384)
        self.header, self.data = self.area + 1024, self.area + 2048
        self.status, self.table = self.area + 8192, self.area + 12288
        driver.mem.write(self.header, HEADER.pack(type_, 0, 0))
        driver.mem.write(self.status, bytes([STATUS_POISON]))

    def good(self, id_=0):
        return [(self.header, 16, F_NEXT, id_), (self.data, 512, F_NEXT | F_WRITE, id_),
                (self.status, 1, F_WRITE, id_)]

    def put_table(self, *entries):
        for i, entry in enumerate(entries):
            self.queue.write_desc(i, *entry, table=self.table)

    def submit(self, descs, id_=0):
        self.queue.chains[id_] = len(descs)
        self.queue.offer(*descs)
        self.queue.kick()
        return Pending(self.queue, id_, [], [Segment(self.data, 512, True),
                                             Segment(self.status, 1, True)], [])

    def fails(self, descs, id_=0):
        outcome = self.driver.expect_stopped_or_failed(self.submit(descs, id_))
        self.check_memory()
        return outcome

    def ends(self, descs):
        """Served or not, it must only do no harm."""
        self.submit(descs)
        self.queue.try_wait(0, 0.1)
        self.check_memory()
        try:
            self.driver.stop_queue()
        except SessionClosed:
            pass

    def check_memory(self):
        area = self.driver.mem.read(self.area, 16384)
        for start, end in ((0, 1024), (1040, 2048), (2560, 8192), (8193, 12288)):
            assert set(area[start:end]) == {POISON}, "the device wrote outside the buffers"


@pytest.fixture
def chain(connect, memory_disk):
    return Chain(connect(memory_disk, packed=True))


def test_the_hand_made_chain_itself(chain):
    """A test of the tests: without a fault both forms succeed."""
    pending = chain.submit(chain.good())
    assert chain.queue.wait(0) == 513
    assert chain.driver.status_of(pending) == S_OK
    chain.put_table(*((addr, length, flags & F_WRITE) for addr, length, flags, _ in chain.good()))
    chain.submit([(chain.table, 48, F_INDIRECT, 5)], 5)
    assert chain.queue.wait(5) == 513


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_are_no_power_of_two(connect, memory_disk, size, event_idx):
    """Legal for packed rings (2.8.10.1), a ring of one descriptor included."""
    driver = connect(memory_disk, packed=True, queue_size=size, event_idx=event_idx,
                     memory=GuestMemory([Region(0x100000, 1 << 20)]))
    layouts = [Layout("indirect", indirect=True)] + [Layout("direct")] * (size >= 3)
    for i in range(min(3 * size, 60)):
        data = os.urandom(512)
        driver.write(i, data, layout=layouts[i % len(layouts)])
        assert driver.read(i, 512, layout=layouts[(i + 1) % len(layouts)]) == data


@pytest.mark.parametrize("id_", [128, 129, 255, 1024, 32767, 32768, 65535])
def test_id_beyond_the_ring(chain, id_):
    """spdk#3860. Only the id of the last descriptor counts (2.8.9)."""
    descs = chain.good()
    descs[-1] = (*descs[-1][:3], id_)
    assert chain.fails(descs) in ("stopped", "closed")


@pytest.mark.parametrize("id_", [128, 65535])
def test_only_the_last_id_counts(chain, id_):
    chain.submit([(*chain.good()[0][:3], id_), (*chain.good()[1][:3], id_), chain.good()[2]])
    assert chain.queue.wait(0) == 513


def test_id_twice_in_flight(connect, file_disk):
    """On a disk that does not complete inline. Never more used descriptors than available ones."""
    chain = Chain(connect(file_disk, packed=True))
    for _ in range(20):
        chain.submit(chain.good())
    used_at_most(chain, 20)


def test_id_twice_in_one_batch(chain):
    queue = chain.queue
    for _ in range(10):
        queue.offer(*chain.good())
    queue.kick()
    used_at_most(chain, 10)


def used_at_most(chain, count):
    try:
        base = chain.driver.stop_queue()
        used = (base >> 16 & 0x7FFF) - chain.queue.used_slot
        assert used <= 3 * count
    except SessionClosed:
        pass
    chain.check_memory()


def test_slots_reused_while_in_flight(connect, file_disk):
    """Descriptors of a request that is not given back are offered again, a lap further."""
    chain = Chain(connect(file_disk, packed=True, queue_size=8))
    for i in range(30):
        chain.queue.offer(*chain.good(i % 8))
        chain.queue.kick()
    used_at_most(chain, 90)


def test_chain_longer_than_the_ring(chain):
    """NEXT in every descriptor: a circle."""
    for slot in range(127, -1, -1):
        chain.queue.write_desc(slot, chain.data, 4, F_AVAIL | F_NEXT | F_WRITE * (slot > 3), 0)
    chain.queue.kick()
    assert chain.queue.try_wait(0, 0.1) is None
    try:
        chain.driver.stop_queue()
    except SessionClosed:
        pass


def test_chain_of_the_whole_ring(connect, memory_disk):
    """The longest legal one."""
    chain = Chain(connect(memory_disk, packed=True, queue_size=8))
    chain.driver.mem.write(chain.header, HEADER.pack(Type.IN, 0, 0))
    descs = [(chain.header + 4 * i, 4, F_NEXT, 0) for i in range(4)] + [
        (chain.data, 256, F_NEXT | F_WRITE, 0), (chain.data + 256, 128, F_NEXT | F_WRITE, 0),
        (chain.data + 384, 128, F_NEXT | F_WRITE, 0), (chain.status, 1, F_WRITE, 3)]
    for _ in range(5):
        chain.submit(descs, 3)
        assert chain.queue.wait(3) == 513


def test_rest_of_a_chain_not_available(chain):
    """The descriptors behind the first bear flags of another lap: the first one's count."""
    queue = chain.queue
    descs = chain.good()
    for slot in (2, 1, 0):
        queue.write_desc(slot, descs[slot][0], descs[slot][1],
                         descs[slot][2] | (F_AVAIL if slot == 0 else F_USED), 0)
    queue.chains[0] = 3
    queue.kick()
    queue.try_wait(0, 0.1)
    chain.check_memory()


@pytest.mark.parametrize("flags", [0, F_USED], ids=["none", "used"])
def test_wrap_counter_that_lies(chain, flags):
    """Not available by the device's counter: it must wait, then go on with what is."""
    queue = chain.queue
    for slot, desc in enumerate(chain.good()):
        queue.write_desc(slot, desc[0], desc[1], desc[2] | flags, 0)
    queue.kick()
    assert queue.try_wait(0, 0.05) is None
    assert chain.driver.mem.read(chain.status, 1)[0] == STATUS_POISON
    chain.submit(chain.good())
    assert queue.wait(0) == 513


def test_next_and_indirect(chain):
    chain.put_table(*((a, n, f & F_WRITE) for a, n, f, _ in chain.good()))
    chain.fails([(chain.table, 48, F_INDIRECT | F_NEXT, 0), *chain.good()[1:]])


def test_nested_indirect(chain):
    chain.put_table((chain.header, 16), (chain.table, 48, F_INDIRECT), (chain.status, 1, F_WRITE))
    chain.fails([(chain.table, 48, F_INDIRECT, 0)])


@pytest.mark.parametrize("length", [0, 1, 15, 17, 47, 0xFFFFFFF0, 0x80000000])
def test_indirect_length(chain, length):
    chain.put_table(*((a, n, f & F_WRITE) for a, n, f, _ in chain.good()))
    chain.ends([(chain.table, length, F_INDIRECT, 0)])


def test_flags_in_a_table_are_ignored(chain):
    """2.8.19: in a table only WRITE counts; it has as many entries as its length says."""
    chain.put_table((chain.header, 16, F_AVAIL | F_USED), (chain.data, 512, F_WRITE | F_NEXT),
                    (chain.status, 1, F_WRITE | F_NEXT))
    chain.submit([(chain.table, 48, F_INDIRECT, 0)])
    assert chain.queue.wait(0) == 513


BAD_ADDRESSES = [FAR, 0, (1 << 64) - 256, (1 << 63) + 0x100000, 0x100000 - 16]


@pytest.mark.parametrize("addr", BAD_ADDRESSES, ids=hex)
@pytest.mark.parametrize("what", ["header", "data", "status", "table"])
def test_unmapped(chain, what, addr):
    if what == "table":
        chain.fails([(addr, 48, F_INDIRECT, 0)])
        return
    descs = chain.good()
    place = ["header", "data", "status"].index(what)
    descs[place] = (addr, *descs[place][1:])
    if what == "status":
        chain.ends(descs)
    else:
        chain.fails(descs)


BAD_BASES = {"avail_128": 128 | 1 << 15 | 1 << 31, "avail_32767": 0x8000FFFF,
             "used_128": 1 << 15 | (128 | 1 << 15) << 16, "both": 0xFFFFFFFF}


@pytest.mark.parametrize("case", BAD_BASES)
def test_base_beyond_the_ring(connect, memory_disk, case):
    """SET_VRING_BASE tells slots of a packed ring: both checked against its size."""
    driver = connect(memory_disk, packed=True, start_up=False)
    with pytest.raises(SessionClosed):
        driver.start_up(base=BAD_BASES[case])
        driver.read(0, 512)


def test_base_that_is_not_where_the_ring_is(connect, memory_disk):
    """Legal numbers, but not this ring's: the device finds nothing, or what is not there."""
    for base in (0, 0x80000000, 0x8000, 0x80058005, 0x00058005):
        driver = connect(memory_disk, packed=True, start_up=False)
        try:
            driver.start_up(base=base)
            pending = driver.submit(Type.IN, in_len=512)
            pending.queue.kick()
            pending.queue.try_wait(pending.head, 0.05)
            driver.stop_queue()
        except (SessionClosed, AssertionError):
            pass


@pytest.mark.parametrize("flags, position", [
    (2, 0xFFFF), (2, 0x7FFF), (2, 128), (3, 0), (0xFFFF, 0xFFFF), (0xFFFD, 5)])
def test_driver_event_nonsense(connect, memory_disk, flags, position):
    """The driver's event structure points beyond the ring, or has reserved flags."""
    driver = connect(memory_disk, packed=True, event_idx=True)
    queue = driver.queues[0]
    queue.arm_calls = lambda: None
    queue.call_expected = False
    queue._driver_event[0], queue._driver_event[1] = position, flags
    for i in range(100):
        driver.read(i % 64, 512)


def test_random_ring_noise(connect, memory_disk, rng):
    """Random descriptors that change while the device reads them, under both notifications."""
    for round_ in range(12):
        driver = connect(memory_disk, queues=2, packed=True, event_idx=round_ % 2 == 1,
                         queue_size=rng.choice((5, 64, 128)),
                         memory=GuestMemory([Region(0x100000, 1 << 20)]))
        region = driver.mem.regions[0]
        for _ in range(60):
            for queue in driver.queues:
                for slot in range(queue.size):
                    if rng.random() < 0.2:
                        addr = rng.choice((region.gpa + rng.randrange(region.size),
                                           rng.getrandbits(64), 0))
                        queue.write_desc(
                            slot, addr, rng.choice((0, 1, 16, 48, 512, rng.getrandbits(32))),
                            rng.randrange(8) | rng.choice((F_AVAIL, F_USED)),
                            rng.choice((rng.randrange(queue.size), rng.getrandbits(16))))
                queue.kick()
        driver.close()
