# SPDX-License-Identifier: Apache-2.0
"""The log of dirty pages: who gives it and how, what is in it, and whether it suffices."""

import os
import random
import threading

import pytest

from blk import (
    DEFAULT_FEATURES, DEFAULT_PROTOCOL_FEATURES, HEADER, S_OK, Driver, Layout, Type, ranges)
from daemon import wait_until
from dirty_log import PAGE, DirtyLog, paged_memory, pages
from guest_memory import GuestMemory, Region
from rings import FORMATS
from virtq import Segment
from vhost_user import LOG, VHOST_F_LOG_ALL, ProtocolFeature, Request, SessionClosed, bits

PROTOCOL = DEFAULT_PROTOCOL_FEATURES | bits(ProtocolFeature.LOG_SHMFD)
LOGGING = DEFAULT_FEATURES | bits(VHOST_F_LOG_ALL)


def logging_driver(connect, disk, on=True, **options):
    """A driver in paged memory, its log, and what its device writes in the ring."""
    driver = connect(disk, memory=paged_memory(), features=LOGGING, protocol_features=PROTOCOL,
                     **options)
    assert driver.negotiated(VHOST_F_LOG_ALL)
    log = DirtyLog(driver.mem)
    log.give(driver.conn)
    if not on:
        driver.conn.set_features(driver.features & ~bits(VHOST_F_LOG_ALL))
    queue = driver.queues[0]
    ring = pages(queue.used_gpa, 4 if queue.packed else 6 + 8 * queue.size)
    if queue.packed:
        ring |= pages(queue.desc_gpa, 16 * queue.size)
    return driver, log, ring


# -- what is marked ------------------------------------------------------------------------------


REQUESTS = {
    "read": (Type.IN, b"", 5 * PAGE, True), "write": (Type.OUT, bytes(3 * PAGE), 0, False),
    "flush": (Type.FLUSH, b"", 0, False), "get_id": (Type.GET_ID, b"", 20, True),
    "write_zeroes": (Type.WRITE_ZEROES, ranges((0, 8)), 0, False),
    "discard": (Type.DISCARD, ranges((0, 8)), 0, False),
    "unknown": (99, b"", 3 * PAGE, False), "short_read": (Type.IN, bytes(512), 512, False),
}


@FORMATS
@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_exactly_what_was_written(connect, file_disk, kind, indirect):
    """Data that was read, the status byte and the used ring; not headers, data that was written,
    tables, the driver's part of the ring, or pages of the request before."""
    driver, log, ring = logging_driver(connect, file_disk)
    driver.read(0, 4 * PAGE)
    wait_until(lambda: log.pages() >= ring, "the used ring in the log")
    driver.stop_queue()
    driver.restart_queue(0, driver.queues[0].drained_base())
    log.clear()
    type_, out, in_len, data_is_written = REQUESTS[kind]
    pending = driver.prepare(type_, out=out, in_len=in_len,
                             layout=Layout(kind, indirect=indirect))
    expected = ring | pages(pending.writable[-1].addr)
    if data_is_written:
        expected |= pages(pending.writable[0].addr, in_len)
    pending.queue.publish(pending.head)
    pending.queue.notify()
    driver.finish(pending)
    driver.stop_queue()
    assert log.pages() == expected
    log.close()


@FORMATS
def test_read_that_fails_is_marked(connect, file_disk):
    """It may have written some of its buffer."""
    driver, log, ring = logging_driver(connect, file_disk)
    pending = driver.submit(Type.IN, file_disk.sectors, in_len=PAGE)
    status = pages(pending.writable[-1].addr)
    assert driver.finish(pending).status != S_OK
    driver.stop_queue()
    assert log.pages() >= ring | status
    log.close()


@FORMATS
def test_nothing_when_off(connect, memory_disk):
    driver, log, _ = logging_driver(connect, memory_disk, on=False)
    log.clear()
    for i in range(20):
        driver.write(i, os.urandom(512))
        driver.read(i, 512)
    driver.stop_queue()
    assert log.pages() == set()
    log.close()


@FORMATS
def test_on_and_off_while_io_runs(connect, memory_disk):
    """VHOST_F_LOG_ALL comes and goes by SET_FEATURES, without a pause of the rings."""
    driver, log, ring = logging_driver(connect, memory_disk)
    with Load(driver, random.Random(0)) as load:
        for i in range(60):
            off = i % 2 == 0
            driver.conn.set_features(driver.features & ~(bits(VHOST_F_LOG_ALL) * off))
            log.clear()
            load.wait_for(3)
            assert (log.pages() == set()) == off
    assert ring
    log.close()


@FORMATS
def test_log_at_an_odd_offset(connect, memory_disk):
    driver, log, _ = logging_driver(connect, memory_disk)
    odd = DirtyLog(driver.mem, offset=4096 + 13)
    odd.give(driver.conn)
    before = log.pages()
    pending = driver.submit(Type.IN, in_len=512)
    driver.finish(pending)
    driver.stop_queue()
    assert pages(pending.writable[0].addr) <= odd.pages()
    assert log.pages() == before
    log.close()
    odd.close()


@FORMATS
@pytest.mark.parametrize("size", [1, 32, 33, 40])
def test_log_smaller_than_memory(hostile, connect, memory_disk, size):
    """CVE-2019-14835: pages beyond its end are not marked, nor is anything behind it. Guest
    memory begins at the bit of byte 32."""
    driver, log, _ = logging_driver(connect, memory_disk)
    small = DirtyLog(driver.mem, size=size)
    small.give(driver.conn)
    for i in range(20):
        driver.read(i, 3 * PAGE)
    driver.stop_queue()
    if size <= 32:
        assert small.pages() == set()
    log.close()
    small.close()


@FORMATS
def test_high_memory(connect, memory_disk):
    """Several regions, one beyond 4 GiB: bits are by guest physical address."""
    memory = GuestMemory([Region(0x100000, 1 << 20), Region(5 << 32, 1 << 20)])
    driver = connect(memory_disk, memory=memory, features=LOGGING, protocol_features=PROTOCOL)
    log = DirtyLog(memory)
    log.give(driver.conn)
    pending = driver.submit(Type.IN, in_len=3 * PAGE, region=1)
    driver.finish(pending)
    driver.stop_queue()
    assert pages(pending.writable[0].addr, 3 * PAGE) <= log.pages()
    log.close()


# -- whether it suffices -------------------------------------------------------------------------


class Load:
    """Reads into pages that the device alone writes, as fast as it goes, until the block ends."""

    def __init__(self, driver, rng, slots=12):
        self.driver = driver
        self.rng = rng
        mem = driver.mem
        self.slots = [(mem.alloc(16), mem.alloc(2 * PAGE), mem.alloc(1)) for _ in range(slots)]
        self.count = 0
        self.error = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def written(self):
        """(address, length) of all that the device writes for it, the split used ring too."""
        for _, data, status in self.slots:
            yield data, 2 * PAGE
            yield status, 1
        queue = self.driver.queues[0]
        if not queue.packed:
            yield queue.used_gpa + 4, 8 * queue.size

    def _round(self):
        queue = self.driver.queues[0]
        heads = []
        for header, data, status in self.rng.sample(self.slots, self.rng.randrange(1, 13)):
            sector = self.rng.randrange(512)
            self.driver.mem.write(header, HEADER.pack(Type.IN, 0, sector))
            heads.append(queue.add([Segment(header, 16), Segment(data, 2 * PAGE, True),
                                    Segment(status, 1, True)]))
        queue.publish(*heads)
        queue.notify()
        for head in heads:
            assert queue.wait(head) == 2 * PAGE + 1
        self.count += 1

    def _run(self):
        try:
            while not self._stop.is_set():
                self._round()
        except BaseException as error:
            self.error = error

    def wait_for(self, rounds):
        target = self.count + rounds
        wait_until(lambda: self.count >= target or self.error, "I/O to go on")
        assert not self.error, self.error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        assert not self.error, self.error


@FORMATS
@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_precopy(connect, file_disk, rng, event_idx):
    """A migration: all memory is copied once, then again and again what became dirty, while I/O
    runs; the ring stops, the rest is copied, and the copy is the original. Python cannot clear
    a bit atomically, so each round gives a new log: of the old one nobody writes any more."""
    driver, log, _ = logging_driver(connect, file_disk, event_idx=event_idx)
    for sector in range(0, 1024, 128):
        driver.write(sector, rng.randbytes(65536))
    region = driver.mem.regions[0]
    load = Load(driver, rng)
    with load:
        copy = bytearray(region.view)

        def copy_pages(dirty):
            for page in dirty:
                at = page * PAGE - region.gpa
                copy[at:at + PAGE] = region.view[at:at + PAGE]
        for _ in range(25):
            load.wait_for(2)
            fresh = DirtyLog(driver.mem)
            fresh.give(driver.conn)
            copy_pages(log.pages())
            log.close()
            log = fresh
    driver.stop_queue()
    copy_pages(log.pages())
    log.close()
    for gpa, length in load.written():
        at = gpa - region.gpa
        assert copy[at:at + length] == region.view[at:at + length], f"{gpa:#x} was not marked"


# -- messages ------------------------------------------------------------------------------------


BAD_LOGS = {
    "no_fd": (4096, 0, 0), "two_fds": (4096, 0, 2), "empty": (0, 0, 1),
    "larger_than_the_file": (8193, 0, 1), "offset_at_the_end": (1, 8192, 1),
    "offset_beyond": (4096, 1 << 40, 1), "sum_wraps": (8192, (1 << 64) - 4096, 1),
    "size_wraps": ((1 << 64) - 1, 1, 1), "size_negative": (1 << 63, 0, 1),
    "offset_wraps": (4096, (1 << 64) - 1, 1),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_bad_set_log_base(hostile, dial, memory_disk, case):
    """CVE-2020-10722: an offset and a size whose sum wraps."""
    size, offset, fds = BAD_LOGS[case]
    fd = os.memfd_create("log")
    os.ftruncate(fd, 8192)
    dial(memory_disk).expect_closed(Request.SET_LOG_BASE, LOG.pack(size, offset), [fd] * fds)
    os.close(fd)


@pytest.mark.parametrize("open_", [lambda: os.eventfd(0), lambda: os.open("/", os.O_RDONLY),
                                   lambda: os.open("/proc/self/exe", os.O_RDONLY)],
                         ids=["eventfd", "directory", "read_only"])
def test_log_fd_of_another_kind(hostile, dial, memory_disk, open_):
    fd = open_()
    dial(memory_disk).expect_closed(Request.SET_LOG_BASE, LOG.pack(4096, 0), [fd])
    os.close(fd)


@FORMATS
def test_truncated_log(hostile, memory_disk, ring):
    """The file shrinks under the mapping: the session ends, and no other."""
    with Driver(memory_disk.socket, memory=paged_memory(), features=LOGGING,
                protocol_features=PROTOCOL, **ring).start_up() as driver:
        log = DirtyLog(driver.mem)
        log.give(driver.conn)
        driver.read(0, 512)
        os.ftruncate(log.fd, 0)
        try:
            for i in range(20):
                driver.read(i, 512)
        except (SessionClosed, AssertionError):
            pass
        driver.conn.wait_closed()
        os.close(log.fd)


def test_log_given_again_and_again(server, connect, memory_disk):
    """Each replaces the one before, whose mapping goes (the fixture counts fds)."""
    driver, log, _ = logging_driver(connect, memory_disk)
    before = server.map_count("memfd:log")
    for _ in range(100):
        log.give(driver.conn)
        driver.read(0, 512)
    assert server.map_count("memfd:log") == before
    log.close()


def test_set_log_fd(dial, memory_disk):
    """The eventfd that would tell of new dirty pages is taken off the wire and closed."""
    connection = dial(memory_disk)
    fd = os.eventfd(0)
    connection.command(Request.SET_LOG_FD, fds=[fd])
    os.close(fd)
    connection.get_features()
