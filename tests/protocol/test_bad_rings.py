# SPDX-License-Identifier: Apache-2.0
"""Rings and chains no driver makes. The request fails, its queue stops, or its session ends;
never a crash, a stuck reactor, a byte outside the guest's buffers, or silent success."""

import os

import pytest

from blk import HEADER, S_OK, STATUS_POISON, Layout, Pending, Type
from daemon import MIB
from guest_memory import GuestMemory, Region
from vhost_user import SessionClosed
from virtq import DESC, F_INDIRECT, F_NEXT, F_WRITE, Segment

pytestmark = pytest.mark.usefixtures("hostile")

FAR = 0x7FFF_0000_0000  # a guest address in no region
POISON = 0xA5


class Chain:
    """Hand-made descriptors for one request: header 16, data 512, status 1 at known places,
    in memory full of a known byte, so that a stray write shows."""

    def __init__(self, driver, type_=Type.IN, sector=0):
        self.driver = driver
        self.queue = driver.queues[0]
        mem = driver.mem
        self.area = mem.alloc(16384, 4096)
        mem.write(self.area, bytes([POISON]) * 16384)
        self.header = self.area + 1024
        self.data = self.area + 2048
        self.status = self.area + 8192
        self.table = self.area + 12288
        mem.write(self.header, HEADER.pack(type_, 0, sector))
        mem.write(self.status, bytes([STATUS_POISON]))

    def desc(self, index, addr, length, flags=0, next_index=0):
        self.queue.write_desc(index, addr, length, flags, next_index)
        return self

    def entry(self, index, addr, length, flags=0, next_index=0):
        """A descriptor of the indirect table."""
        self.queue.write_desc(index, addr, length, flags, next_index, self.table)
        return self

    def good_entries(self):
        self.entry(0, self.header, 16, F_NEXT, 1)
        self.entry(1, self.data, 512, F_NEXT | F_WRITE, 2)
        return self.entry(2, self.status, 1, F_WRITE)

    def good(self):
        self.desc(0, self.header, 16, F_NEXT, 1)
        self.desc(1, self.data, 512, F_NEXT | F_WRITE, 2)
        return self.desc(2, self.status, 1, F_WRITE)

    def submit(self, head=0, writable=True):
        segments = [Segment(self.data, 512, True), Segment(self.status, 1, True)]
        pending = Pending(self.queue, head, [], segments if writable else [], [])
        self.queue.publish_raw(head)
        self.queue.kick()
        return pending

    def fails(self, head=0, status=True):
        """Submit; it must fail, and nothing but the status byte (and the data, which an honest
        read may have filled before the fault was found) may change.

        status says whether the chain has a status byte where the device can reach it.
        """
        pending = self.submit(head, status)
        outcome = self.driver.expect_stopped_or_failed(pending)
        area = self.driver.mem.read(self.area, 16384)
        for start, end in ((0, 1024), (1040, 2048), (2560, 8192), (8193, 12288)):
            assert set(area[start:end]) == {POISON}, "the device wrote outside the buffers"
        assert area[8192] != S_OK
        if outcome == "failed":
            # The queue goes on.
            self.queue.free_descs = type(self.queue.free_descs)(range(64, 128))
            self.driver.stop_queue()
            self.driver.restart_queue(0, self.queue.avail_idx)
            self.driver.read(0, 512)
        return outcome


@pytest.fixture
def chain(connect, memory_disk):
    return Chain(connect(memory_disk))


def test_the_hand_made_chain_itself(chain):
    """A test of the tests: without a fault both forms succeed."""
    chain.good()
    pending = chain.submit()
    assert chain.queue.wait(0) == 513
    assert chain.driver.status_of(pending) == S_OK
    chain.good_entries().desc(0, chain.table, 48, F_INDIRECT)
    chain.submit()
    assert chain.queue.wait(0) == 513


# -- the avail ring ------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [128, 129, 255, 1024, 32767, 32768, 65535])
def test_head_beyond_the_ring(chain, head):
    chain.good().fails(head, status=False)


@pytest.mark.parametrize("jump", [129, 130, 1000, 32768, 65535])
def test_avail_idx_jumps(chain, jump):
    """The index claims more entries than the ring has: none can be trusted. Some of these
    claim the same head again and again."""
    chain.good()
    queue = chain.queue
    queue.chains[0] = []
    queue.set_avail_idx(jump)
    queue.kick()
    try:
        queue.try_wait(0, 0.2)
    except AssertionError:
        pass  # head 0 used more than once: the driver's own doing
    try:
        chain.driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_avail_idx_goes_back(chain):
    chain.good()
    queue = chain.queue
    chain.submit()
    queue.wait(0)
    queue.set_avail_idx(queue.avail_idx - 1)
    queue.kick()
    assert queue.try_wait(0, 0.1) is None
    try:
        chain.driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_head_made_available_twice_in_one_batch(chain):
    """PEERS.md: the same head twice while in flight. Each use may end, once; never more used
    elements than available ones."""
    queue = chain.queue
    chain.good()
    queue.publish(0, 0)
    queue.kick()
    used_twice_or_less(chain, 2)


def test_head_made_available_many_times(chain):
    queue = chain.queue
    chain.good()
    queue.publish(*([0] * 128))
    queue.kick()
    used_twice_or_less(chain, 128)


def test_overlapping_chains(chain):
    """Two heads that lead into the same tail."""
    queue = chain.queue
    chain.good()
    chain.desc(5, chain.header, 16, F_NEXT, 1)
    queue.publish(0, 5)
    queue.kick()
    used_twice_or_less(chain, 2)


def used_twice_or_less(chain, count):
    queue = chain.queue
    try:
        base = chain.driver.conn.get_vring_base(0)
        assert (queue.used_idx - queue.used_seen) & 0xFFFF <= count
        assert (base - queue.used_seen) & 0xFFFF <= count
    except SessionClosed:
        pass


def test_same_head_twice_in_flight_on_a_slow_disk(connect, file_disk):
    """The same, with I/O that does not complete inline."""
    driver = connect(file_disk)
    chain = Chain(driver)
    for _ in range(20):
        chain.good()
        chain.queue.publish(0, 0, 0)
        chain.queue.kick()
    used_twice_or_less(chain, 60)


def test_used_ring_written_by_the_driver(chain):
    """The device's own index scribbled over: the device does not read it back."""
    queue = chain.queue
    chain.good()
    queue._used[1] = 40000
    queue.used_seen = 40000
    chain.submit()
    queue.memory.write(queue.used_gpa + 4, b"\xff" * 1024)
    try:
        chain.driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_random_ring_noise(connect, memory_disk, rng):
    """Descriptors, avail ring and index full of random bits, changing while the device reads
    them (torn reads, double fetches)."""
    for _ in range(15):
        driver = connect(memory_disk, queues=2, memory=GuestMemory([Region(0x100000, MIB)]))
        region = driver.mem.regions[0]
        for _ in range(40):
            for queue in driver.queues:
                for _ in range(8):
                    addr = rng.choice((region.gpa + rng.randrange(MIB), rng.getrandbits(64), 0))
                    length = rng.choice((0, 1, 16, 512, 4096, rng.getrandbits(32)))
                    queue.write_desc(rng.randrange(128), addr, length, rng.randrange(8),
                                     rng.choice((rng.randrange(128), rng.getrandbits(16))))
                    queue._avail[2 + rng.randrange(128)] = rng.choice(
                        (rng.randrange(128), rng.getrandbits(16)))
                queue.set_avail_idx(queue.avail_idx + rng.choice((1, 1, 1, 2, 5)))
                queue.kick()
        driver.close()


# -- descriptors ---------------------------------------------------------------------------------


def test_self_linked_descriptor(chain):
    """CVE-2019-9547."""
    chain.desc(0, chain.header, 16, F_NEXT, 0).fails(status=False)


def test_self_linked_writable_descriptor(chain):
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, chain.data, 512, F_NEXT | F_WRITE, 1).fails(status=False)


@pytest.mark.parametrize("length", [2, 3, 64, 128])
def test_loop(chain, length):
    """A circle through length descriptors: the walk is bounded by the ring's size."""
    for i in range(length):
        chain.desc(i, chain.header if i == 0 else chain.data, 16 if i == 0 else 4,
                   F_NEXT | (F_WRITE if i else 0), (i + 1) % length)
    chain.fails(status=False)


@pytest.mark.parametrize("next_index", [128, 129, 1024, 65535])
def test_next_beyond_the_ring(chain, next_index):
    chain.desc(0, chain.header, 16, F_NEXT, next_index).fails(status=False)


def test_whole_ring_then_one_more(chain):
    """128 descriptors, each once, and the last links to the first."""
    for i in range(128):
        chain.desc(i, chain.header + i % 16 if i < 16 else chain.data, 1,
                   F_NEXT | (0 if i < 16 else F_WRITE), (i + 1) % 128)
    chain.fails(status=False)


BAD_BUFFERS = {
    "unmapped": lambda chain: (FAR, 512),
    "null": lambda chain: (0, 512),
    "wraps": lambda chain: ((1 << 64) - 256, 512),
    "wraps_to_zero": lambda chain: ((1 << 64) - 512, 512),
    "top_bit": lambda chain: ((1 << 63) + chain.data, 512),
    "user_address": lambda chain: (chain.driver.mem.uva(chain.data), 512),
    "across_the_end": lambda chain: (end_of(chain) - 256, 512),
    "at_the_end": lambda chain: (end_of(chain), 512),
    "before_the_start": lambda chain: (chain.driver.mem.regions[0].gpa - 256, 512),
    "4GiB_long": lambda chain: (chain.data, 0xFFFFFFFF),
    "4GiB_from_the_start": lambda chain: (chain.driver.mem.regions[0].gpa, 0xFFFFFE00),
}


def end_of(chain):
    region = chain.driver.mem.regions[0]
    return region.gpa + region.size


@pytest.mark.parametrize("case", BAD_BUFFERS)
@pytest.mark.parametrize("type_", [Type.IN, Type.OUT], ids=["read", "write"])
def test_bad_data_address(connect, memory_disk, case, type_):
    """Buffers in no region, partly in one, or whose end wraps (CVE-2018-1059)."""
    chain = Chain(connect(memory_disk), type_)
    chain.good()
    addr, length = BAD_BUFFERS[case](chain)
    chain.desc(1, addr, length, F_NEXT | (F_WRITE if type_ == Type.IN else 0), 2)
    chain.fails()


@pytest.mark.parametrize("case", BAD_BUFFERS)
def test_bad_header_address(chain, case):
    chain.good()
    addr, length = BAD_BUFFERS[case](chain)
    chain.desc(0, addr, length, F_NEXT, 1).fails()


@pytest.mark.parametrize("case", sorted(set(BAD_BUFFERS) - {"4GiB_long", "4GiB_from_the_start"}))
def test_bad_status_address(chain, case):
    """No status byte can be written: used with length 0, or the queue stops."""
    chain.good()
    addr, length = BAD_BUFFERS[case](chain)
    chain.desc(2, addr, length, F_WRITE)
    chain.fails(status=False)


def test_total_length_near_4gib(chain):
    """Lengths whose 32-bit sum wraps to a plausible one (CVE-2022-2132)."""
    mem_bytes = chain.driver.mem.regions[0].size
    start = chain.driver.mem.regions[0].gpa
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    count = 100
    chunk = 0x1_0000_0000 // 64
    for i in range(1, count):
        chain.desc(i, start, min(chunk, mem_bytes), F_NEXT, i + 1)
    chain.desc(count, chain.status, 1, F_WRITE)
    chain.driver.mem.write(chain.header, HEADER.pack(Type.OUT, 0, 0))
    chain.fails()


def test_lengths_that_wrap_to_one_sector(chain):
    """4 GiB + 512 in all; the sum in 32 bits is a good request."""
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, chain.data, 0xFFFFFFFF, F_NEXT | F_WRITE, 2)
    chain.desc(2, chain.data, 513, F_NEXT | F_WRITE, 3)
    chain.desc(3, chain.status, 1, F_WRITE).fails()


def test_zero_length_descriptors(chain):
    """Skipped or refused; never a loop, never an I/O of nothing that reports success for
    something."""
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, chain.data, 0, F_NEXT | F_WRITE, 2)
    chain.desc(2, chain.data, 512, F_NEXT | F_WRITE, 3)
    chain.desc(3, chain.status, 1, F_WRITE)
    pending = chain.submit()
    length = chain.queue.try_wait(0, 0.3)
    if length is None or chain.driver.status_of(pending) != S_OK:
        chain.queue.chains.setdefault(0, [])
        return
    assert length == 513


@pytest.mark.parametrize("where", ["header", "status"])
def test_zero_length_header_or_status(chain, where):
    chain.good()
    if where == "header":
        chain.desc(0, chain.header, 0, F_NEXT, 1).fails()
    else:
        chain.desc(2, chain.status, 0, F_WRITE)
        # The last writable byte is then the data's last, which is the status by 2.7.4.1.
        pending = chain.submit()
        used_len = chain.queue.try_wait(0, 0.25)
        assert used_len is None or used_len <= 512
        assert chain.driver.mem.read(chain.status, 1)[0] == STATUS_POISON
        del pending


def test_zero_length_address_is_not_touched(chain):
    """A zero-length buffer at a wild address: nothing to translate, or refused."""
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, FAR, 0, F_NEXT | F_WRITE, 2)
    chain.desc(2, chain.status, 1, F_WRITE)
    chain.submit()
    chain.queue.try_wait(0, 0.25)


def test_readable_after_writable(chain):
    """Virtio 1.2, 2.7.4.2: device-writable descriptors come last."""
    chain.desc(0, chain.data, 512, F_NEXT | F_WRITE, 1)
    chain.desc(1, chain.header, 16, F_NEXT, 2)
    chain.desc(2, chain.status, 1, F_WRITE).fails()


def test_readable_in_the_middle_of_writable(chain):
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, chain.data, 256, F_NEXT | F_WRITE, 2)
    chain.desc(2, chain.data + 256, 128, F_NEXT, 3)
    chain.desc(3, chain.data + 384, 128, F_NEXT | F_WRITE, 4)
    chain.desc(4, chain.status, 1, F_WRITE).fails()


def test_no_writable_descriptor(chain):
    """No byte for the status: used with length 0, or the queue stops."""
    chain.desc(0, chain.header, 16, F_NEXT, 1)
    chain.desc(1, chain.data, 512).fails(status=False)


def test_header_alone(chain):
    chain.desc(0, chain.header, 16).fails(status=False)


def test_nothing_but_writable(chain):
    """No byte of a header."""
    chain.desc(0, chain.data, 512, F_NEXT | F_WRITE, 1)
    chain.desc(1, chain.status, 1, F_WRITE).fails()


def test_status_alone(chain):
    chain.desc(0, chain.status, 1, F_WRITE).fails()


@pytest.mark.parametrize("length", [1, 8, 15])
def test_header_too_short(chain, length):
    chain.good().desc(0, chain.header, length, F_NEXT, 1).fails()


def test_header_writable(chain):
    chain.good().desc(0, chain.header, 16, F_NEXT | F_WRITE, 1)
    pending = chain.submit()
    outcome = chain.driver.expect_stopped_or_failed(pending)
    assert outcome in ("failed", "stopped", "closed")


@pytest.mark.parametrize("flags", [0x8, 0x10, 0x8000, 0xFFF8])
def test_unknown_descriptor_flags(chain, flags):
    """Reserved bits: ignored or refused."""
    chain.good().desc(1, chain.data, 512, F_NEXT | F_WRITE | flags, 2)
    chain.submit()
    chain.queue.try_wait(0, 0.25)


def test_more_segments_than_seg_max(connect, memory_disk):
    """A chain through the whole ring of 1024: served, or failed, whichever the server's limit
    says; the data is then right."""
    driver = connect(memory_disk, queue_size=1024)
    layout = Layout("1022", lambda total: [16] + [512] * ((total - 16) // 512),
                    lambda total: [512] * (total // 512) + [1])
    data = os.urandom(1022 * 512)
    result = driver.request(Type.OUT, 0, out=data, layout=layout)
    if result.status == S_OK:
        assert driver.read(0, len(data)) == data


# -- indirect tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 15, 17, 40, 47, 49])
def test_indirect_length_not_of_descriptors(chain, length):
    """Virtio 1.2, 2.7.5.3: the length is a multiple of 16, and not 0."""
    chain.good_entries().desc(0, chain.table, length, F_INDIRECT).fails(status=False)


@pytest.mark.parametrize("length", [0xFFFFFFF0, 0x80000000, 16 * 65536, 16 * 65537])
def test_indirect_table_huge(chain, length):
    """More entries than any ring; the count must not be cut to 16 bits. The chain within is
    short and good, so it may be served when the whole table is mapped."""
    chain.good_entries().desc(0, chain.table, length, F_INDIRECT)
    if chain.table + length > end_of(chain):
        chain.fails()
    else:
        chain.submit()
        chain.queue.try_wait(0, 0.3)


def test_nested_indirect(chain):
    """2.7.5.3.1: no indirect descriptor within a table."""
    chain.entry(0, chain.table, 48, F_INDIRECT)
    chain.desc(0, chain.table, 48, F_INDIRECT).fails(status=False)


def test_nested_indirect_at_the_end(chain):
    chain.good_entries().entry(2, chain.table, 48, F_INDIRECT)
    chain.desc(0, chain.table, 48, F_INDIRECT).fails(status=False)


def test_next_and_indirect(chain):
    """2.7.5.3.1: not both flags. A good tail follows, which must not make it good."""
    chain.good_entries().desc(0, chain.table, 48, F_INDIRECT | F_NEXT, 1)
    chain.desc(1, chain.data, 512, F_WRITE | F_NEXT, 2)
    chain.desc(2, chain.status, 1, F_WRITE).fails()


def test_indirect_as_the_last_of_a_chain(connect, memory_disk):
    """A chain of direct descriptors that ends in an indirect one is legal (2.7.5.3.1 forbids
    only NEXT beside INDIRECT)."""
    driver = connect(memory_disk)
    layout = Layout("header_direct", indirect=True, direct_first=1)
    data = os.urandom(4096)
    driver.write(0, data, layout=layout)
    assert driver.read(0, 4096, layout=layout) == data


def test_indirect_and_write_flag(chain):
    """2.7.5.3.2: the device ignores WRITE of a descriptor that refers to a table."""
    chain.good_entries().desc(0, chain.table, 48, F_INDIRECT | F_WRITE)
    pending = chain.submit()
    length = chain.queue.try_wait(0, 0.3)
    if length is not None and chain.driver.status_of(pending) == S_OK:
        assert length == 513


INDIRECT_PLACES = ["unmapped", "null", "wraps", "top_bit", "user_address", "across_the_end",
                   "at_the_end", "before_the_start"]


@pytest.mark.parametrize("case", INDIRECT_PLACES)
def test_indirect_table_at_a_bad_address(chain, case):
    addr, _ = BAD_BUFFERS[case](chain)
    chain.desc(0, addr, 512, F_INDIRECT).fails(status=False)


def test_indirect_self_linked(chain):
    chain.entry(0, chain.header, 16, F_NEXT, 0)
    chain.desc(0, chain.table, 48, F_INDIRECT).fails(status=False)


def test_indirect_loop(chain):
    chain.entry(0, chain.header, 16, F_NEXT, 1)
    chain.entry(1, chain.data, 4, F_NEXT | F_WRITE, 2)
    chain.entry(2, chain.data, 4, F_NEXT | F_WRITE, 1)
    chain.desc(0, chain.table, 48, F_INDIRECT).fails(status=False)


@pytest.mark.parametrize("next_index", [3, 128, 65535])
def test_indirect_next_beyond_the_table(chain, next_index):
    """The entry after the table looks good, and must not be read."""
    chain.good_entries()
    chain.entry(3, chain.status, 1, F_WRITE)
    chain.entry(1, chain.data, 512, F_NEXT | F_WRITE, next_index)
    chain.desc(0, chain.table, 48, F_INDIRECT).fails(status=False)


def test_indirect_not_negotiated(connect, memory_disk):
    """An indirect descriptor without the feature: refused, or served; then with right data."""
    driver = connect(memory_disk, features=1 << 32 | 1 << 30)
    chain = Chain(driver)
    chain.good_entries().desc(0, chain.table, 48, F_INDIRECT)
    chain.submit()
    chain.queue.try_wait(0, 0.25)


def test_table_that_changes_while_it_is_read(connect, memory_disk):
    """Lengths fetched twice: a table is rewritten under the device's hands, over and over. The
    guard bytes behind the buffer never change."""
    driver = connect(memory_disk)
    chain = Chain(driver)
    queue = chain.queue
    short = DESC.pack(chain.data, 512, F_NEXT | F_WRITE, 2)
    long = DESC.pack(FAR, 0xFFFFFFFF, F_NEXT | F_WRITE, 2)
    view = driver.mem.regions[0].view
    at = chain.table - driver.mem.regions[0].gpa + 16
    for _ in range(300):
        chain.good_entries().desc(0, chain.table, 48, F_INDIRECT)
        queue.chains[0] = []
        queue.publish(0)
        queue.kick()
        for _ in range(20):
            view[at:at + 16] = long
            view[at:at + 16] = short
        if queue.try_wait(0, 0.25) is None:
            break
    area = driver.mem.read(chain.area, 16384)
    for start, end in ((0, 1024), (1040, 2048), (2560, 8192), (8193, 12288)):
        assert set(area[start:end]) == {POISON}


# -- endurance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory_disk", "null_disk"])
def test_endless_submission(request, hostile, connect, memory_disk, null_disk, kind):
    """CVE-2016-5403: a guest that submits without end and never looks at its completions. Its
    neighbour on the same reactor still gets its share."""
    disk = {"memory_disk": memory_disk, "null_disk": null_disk}[kind]
    driver = connect(disk, queues=4, queue_size=1024)
    for queue in driver.queues:
        pending = driver.prepare(Type.IN, in_len=4096, queue=queue.index)
        queue.set_no_interrupt(True)
        for i in range(1024):
            queue._avail[2 + i] = pending.head
    done = hostile.neighbour.done
    while hostile.neighbour.done < done + 40 and not hostile.neighbour.error:
        for queue in driver.queues:
            queue.set_avail_idx(queue.avail_idx + 1024)
            queue.kick()
    assert not hostile.neighbour.error


def test_no_log_line_that_a_guest_can_repeat(server, connect, memory_disk):
    """Thousands of broken chains over restarts of one queue: a bounded number of lines."""
    driver = connect(memory_disk)
    chain = Chain(driver)
    before = server.log_lines()
    for _ in range(100):
        chain.desc(0, chain.header, 16, F_NEXT, 0)
        pending = chain.submit(writable=False)
        if chain.queue.try_wait(0, 0.02) is None:
            try:
                driver.stop_queue()
            except SessionClosed:
                break
            chain.queue.reset()
            driver.restart_queue(0, 0)
        del pending
    assert server.log_lines() - before <= 30
