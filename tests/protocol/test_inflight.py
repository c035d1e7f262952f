# SPDX-License-Identifier: Apache-2.0
"""The inflight journal: given by whom and how it may be, found in any state that a back-end can
die in, and found corrupt."""

import os
import random
import struct
import threading
import time

import pytest

from blk import DEFAULT_PROTOCOL_FEATURES, S_OK, Driver, Layout, Type
from conftest import SEED
from daemon import wait_until
from guest_memory import GuestMemory, Region
from inflight import Journal, predecessor
from rings import FORMATS
from vhost_user import INFLIGHT, ProtocolFeature, Request, SessionClosed, bits

FEATURES = DEFAULT_PROTOCOL_FEATURES | bits(ProtocolFeature.INFLIGHT_SHMFD)
INDIRECT = Layout("indirect", indirect=True)
DIRECT = Layout("direct")


def small_driver(disk, **options):
    options.setdefault("protocol_features", FEATURES)
    return Driver(disk.socket, memory=GuestMemory([Region(0x100000, 1 << 20)]), **options)


def bring_up(driver, journal=None, **queue_options):
    """The handshake with a journal given before the rings are."""
    for _ in driver.negotiate():
        pass
    if journal:
        journal.give(driver.conn)
    for _ in driver.share_memory():
        pass
    for queue in driver.queues:
        for _ in driver.set_up_queue(queue, **queue_options):
            pass
    for _ in driver.driver_ok():
        pass
    return driver


# -- messages ------------------------------------------------------------------------------------


@FORMATS
def test_journal_of_the_back_end(connect, memory_disk, ring):
    """GET_INFLIGHT_FD's memory is zeroed and large enough, and in use once the ring runs."""
    driver = connect(memory_disk, queues=3, queue_size=64, start_up=False,
                     protocol_features=FEATURES)
    for _ in driver.negotiate():
        pass
    fd, size, offset = driver.conn.get_inflight_fd(3, 64)
    journal = Journal(3, 64, ring["packed"], fd, offset)
    assert size >= journal.size
    assert not any(journal.map[offset:offset + size])
    journal.give(driver.conn)
    for _ in driver.share_memory():
        pass
    for queue in driver.queues:
        for _ in driver.set_up_queue(queue):
            pass
        driver.write(0, os.urandom(512), queue=queue.index)
        assert journal.get("version", queue.index) == 1
        assert journal.get("desc_num", queue.index) == 64
        assert journal.inflight(queue.index) == []
    journal.close()


@FORMATS
def test_request_stands_in_the_journal(connect, memory_disk, ring):
    """Given back, a request is struck off; the used index follows."""
    journal = Journal(1, 8, ring["packed"], offset=128)
    driver = connect(memory_disk, queue_size=8, start_up=False, protocol_features=FEATURES)
    bring_up(driver, journal)
    for i in range(20):
        driver.write(i, os.urandom(512))
        wait_until(lambda: journal.inflight() == [], "the journal to be empty")
        used = journal.get("used_idx")
        assert used == (driver.queues[0].used_slot if ring["packed"]
                        else driver.queues[0].used_idx)
    journal.close()


BAD_GET = {"no_queue": (0, 128), "a_queue_more": (5, 128), "65535_queues": (65535, 128),
           "no_size": (1, 0), "size_1025": (1, 1025), "size_65535": (1, 65535)}


@pytest.mark.parametrize("case", BAD_GET)
def test_bad_get_inflight_fd(hostile, dial, memory_disk, case):
    """CVE-2021-3839: counts that index beyond the queues, or make sizes wrap."""
    connection = dial(memory_disk)
    connection.expect_closed(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, *BAD_GET[case], 0))


GOOD = {"size": 4096, "offset": 0, "count": 1, "queue_size": 128, "fds": 1}
BAD_SET = {
    "no_fd": {"fds": 0}, "two_fds": {"fds": 2},
    "no_queue": {"count": 0}, "a_queue_more": {"count": 5}, "65535_queues": {"count": 65535},
    "no_size": {"queue_size": 0}, "size_1025": {"queue_size": 1025},
    "size_65535": {"queue_size": 65535},
    "empty": {"size": 0}, "larger_than_the_file": {"size": 4097},
    "offset_at_the_end": {"offset": 4096}, "offset_beyond_the_end": {"offset": 1 << 40},
    "misaligned": {"offset": 8, "size": 2048},
    "sum_wraps": {"offset": (1 << 64) - 4096, "size": 8192}, "size_wraps": {"size": (1 << 64) - 1},
    "offset_wraps": {"offset": (1 << 64) - 64, "size": 64},
}


@pytest.mark.parametrize("case", BAD_SET)
def test_bad_set_inflight_fd(hostile, dial, memory_disk, case):
    given = {**GOOD, **BAD_SET[case]}
    fd = os.memfd_create("inflight")
    os.ftruncate(fd, 4096)
    payload = INFLIGHT.pack(given["size"], given["offset"], given["count"],
                            given["queue_size"], 0)
    dial(memory_disk).expect_refused(Request.SET_INFLIGHT_FD, payload, [fd] * given["fds"])
    os.close(fd)


@pytest.mark.parametrize("kind", ["socket", "eventfd", "directory", "read_only"])
def test_inflight_fd_of_another_kind(hostile, dial, memory_disk, kind):
    make = {"socket": lambda: __import__("socket").socket().detach(),
            "eventfd": lambda: os.eventfd(0), "directory": lambda: os.open("/", os.O_RDONLY),
            "read_only": lambda: os.open("/proc/self/exe", os.O_RDONLY)}[kind]
    fd = make()
    dial(memory_disk).expect_refused(
        Request.SET_INFLIGHT_FD, INFLIGHT.pack(4096, 0, 1, 128, 0), [fd])
    os.close(fd)


@FORMATS
@pytest.mark.parametrize("smaller_by", [1, 64, 2000])
def test_journal_too_small_for_its_queues(hostile, memory_disk, ring, smaller_by):
    """It fits its file, but not what the queues need of it (each format has its own size)."""
    journal = Journal(1, 128, ring["packed"])
    journal.size -= smaller_by
    with small_driver(memory_disk, **ring) as driver, pytest.raises(SessionClosed):
        bring_up(driver, journal)
    journal.close()


@FORMATS
def test_ring_larger_than_its_journal(hostile, memory_disk, ring):
    journal = Journal(1, 64, ring["packed"])
    with small_driver(memory_disk, **ring) as driver, pytest.raises(SessionClosed):
        bring_up(driver, journal)
    journal.close()


@FORMATS
@pytest.mark.parametrize("when", ["before", "after"])
def test_truncated_journal(hostile, memory_disk, ring, when):
    """The file shrinks under the mapping: SIGBUS must end the session and nothing else."""
    journal = Journal(4, 1024, ring["packed"])
    with small_driver(memory_disk, **ring) as driver:
        for _ in driver.negotiate():
            pass
        journal.give(driver.conn)
        for _ in driver.share_memory():
            pass
        try:
            if when == "before":
                os.ftruncate(journal.fd, 0)
            for _ in driver.set_up_queue(driver.queues[0]):
                pass
            if when == "after":
                driver.read(0, 512)
                os.ftruncate(journal.fd, 0)
            for _ in range(100):
                driver.read(0, 512)
        except (SessionClosed, AssertionError):
            pass
        driver.conn.wait_closed()
    os.close(journal.fd)


ORDERS = ["before_features", "before_memory", "before_num", "before_base", "before_addr",
          "before_call", "before_kick", "before_enable"]


@FORMATS
@pytest.mark.parametrize("order", ORDERS)
def test_journal_given_at_any_time(connect, memory_disk, ring, order):
    """cloud-hypervisor#2930: SET_INFLIGHT_FD before or after any other message, as long as the
    ring does not run yet; a request in flight is found."""
    driver = connect(memory_disk, queue_size=8, start_up=False, protocol_features=FEATURES)
    conn, queue = driver.conn, driver.queues[0]
    journal = Journal(1, 8, ring["packed"])
    dead = predecessor(queue, journal)
    pending = [driver.prepare(Type.OUT, i, os.urandom(512), layout=INDIRECT) for i in range(2)]
    for request in pending:
        queue.publish(request.head)
    for request in pending:
        for _ in dead.take(request):
            pass
    steps = {
        "before_features": lambda: conn.set_features(driver.features),
        "before_memory": lambda: conn.set_mem_table(driver.mem.regions),
        "before_num": lambda: conn.set_vring_num(0, 8),
        "before_base": lambda: conn.set_vring_base(0, queue.start_base),
        "before_addr": lambda: conn.set_vring_addr(0, queue.desc_uva, queue.used_uva,
                                                   queue.avail_uva),
        "before_call": lambda: conn.set_vring_call(0, queue.call_fd),
        "before_kick": lambda: conn.set_vring_kick(0, queue.kick_fd),
        "before_enable": lambda: conn.set_vring_enable(0, True),
    }
    for _ in driver.negotiate():
        pass
    for name, step in steps.items():
        if name == order:
            journal.give(conn)
        step()
    for request in pending:
        assert driver.finish(request).status == S_OK
    assert driver.read(1, 512) != bytes(512)
    journal.close()


# -- a fresh journal -----------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("start", [1, 7, 300, 65535])
def test_fresh_journal_beside_a_ring_under_way(connect, memory_disk, ring, start):
    """spdk#3766: the used index of a fresh journal is 0 and the ring's is not; taking the
    difference for a batch to strike off lost descriptor 0."""
    driver = connect(memory_disk, queue_size=8, start=start, start_up=False,
                     protocol_features=FEATURES)
    journal = Journal(1, 8, ring["packed"])
    pending = [driver.prepare(Type.OUT, i, os.urandom(512), layout=INDIRECT) for i in range(3)]
    for request in pending:
        driver.queues[0].publish(request.head)
    assert pending[0].head == 0
    bring_up(driver, journal)
    for request in pending:
        assert driver.finish(request).status == S_OK
    for i in range(20):
        driver.write(i, os.urandom(512))
    journal.close()


@FORMATS
def test_journal_outlives_a_disconnect(connect, memory_disk, ring):
    """A front-end that was not told where its ring stands, since the connection broke, has the
    journal to tell: a packed ring does not say it, and QEMU then sets a stale base."""
    journal = Journal(1, 8, ring["packed"])
    driver = connect(memory_disk, queue_size=8, start_up=False, protocol_features=FEATURES)
    bring_up(driver, journal)
    for round_ in range(6):
        for i in range(5 + round_):
            data = os.urandom(512)
            driver.write(i, data)
            assert driver.read(i, 512) == data
        driver.reconnect(memory_disk.socket)
        bring_up(driver, journal, base=driver.queues[0].start_base)
    driver.read(0, 512)
    journal.close()


@FORMATS
def test_stop_drains_and_empties_the_journal(connect, file_disk, ring):
    """GET_VRING_BASE_INFLIGHT negotiated: the front-end may migrate the journal as it is when the
    ring has stopped; ours holds nothing then, so that no write lands after the next owner's."""
    driver = connect(file_disk, queue_size=64, start_up=False, protocol_features=FEATURES | bits(
        ProtocolFeature.GET_VRING_BASE_INFLIGHT))
    journal = Journal(1, 64, ring["packed"])
    bring_up(driver, journal)
    assert driver.has_protocol(ProtocolFeature.GET_VRING_BASE_INFLIGHT)
    queue = driver.queues[0]
    for _ in range(10):
        pending = [driver.submit(Type.OUT, i * 8, os.urandom(4096), layout=INDIRECT, notify=False)
                   for i in range(40)]
        queue.kick()
        base = driver.stop_queue()
        assert base == queue.drained_base()
        assert journal.inflight() == []
        successor = Journal(1, 64, ring["packed"])
        successor.map[:] = journal.map[:]
        journal.close()
        journal = successor
        journal.give(driver.conn)
        driver.restart_queue(0, base)
        for request in pending:
            assert driver.finish(request).status == S_OK
    journal.close()


# -- a predecessor that died ---------------------------------------------------------------------


class Story:
    """A driver and a back-end at work on a small ring, by a script that a seed decides; stopped
    after so many stores of the back-end."""

    def __init__(self, disk, ring, seed):
        self.rng = random.Random(seed)
        self.size = 7 if ring["packed"] else 8
        self.driver = small_driver(disk, queue_size=self.size, start=self.rng.randrange(14), **ring)
        self.queue = self.driver.queues[0]
        self.journal = Journal(1, self.size, ring["packed"])
        self.back_end = predecessor(self.queue, self.journal)
        self.offered = []  # pending requests, in order of the ring
        self.data = {}
        self.told = 0  # how many requests the driver knows to be done

    def offer(self):
        layout = self.rng.choice((INDIRECT, INDIRECT, DIRECT))
        free = self.queue.free_slots if self.queue.packed else len(self.queue.free_descs)
        if free < (3 if layout is DIRECT else 1):
            return
        data = self.rng.randbytes(512)
        pending = self.driver.prepare(Type.OUT, len(self.offered), data, layout=layout)
        self.queue.publish(pending.head)
        self.offered.append(pending)
        self.data[len(self.data)] = data

    def waiting(self):
        """Taken, and not given back."""
        return [p for p in self.back_end.taken if p not in self.back_end.published]

    def stores(self, ops=14):
        """Yields after each store of the back-end; in between the driver goes on."""
        back_end = self.back_end
        for _ in range(ops):
            act = self.rng.choice(("offer", "offer", "take", "take", "give_back"))
            if act == "offer":
                self.offer()
                continue
            if act == "take":
                if len(back_end.taken) == len(self.offered):
                    continue
                steps = back_end.take(self.offered[len(back_end.taken)])
            else:
                waiting = self.waiting()
                batch = self.rng.sample(waiting, self.rng.randrange(len(waiting) + 1))
                if not batch:
                    continue
                steps = back_end.give_back(batch)
            for _ in steps:
                if self.rng.random() < 0.3:
                    self.be_told()
                    self.offer()
                yield

    def be_told(self):
        """The driver takes note of what was published; its ids are free again."""
        self.told += self.queue.collect()
        self.queue.completed.clear()

    def recover(self):
        """Sluice takes over. Each request is answered once, those of the journal and of the ring
        in the order in which they were offered, and the ring goes on."""
        queue, driver = self.queue, self.driver
        self.be_told()
        assert self.told == len(self.back_end.published)
        bring_up(driver, self.journal, base=queue.start_base)
        left = [p for p in self.offered if p not in self.back_end.published]
        assert queue.try_wait_all([p.head for p in left])
        assert list(queue.completed) == [p.head for p in left]
        queue.completed.clear()
        for pending in left:
            assert driver.status_of(pending) == S_OK
        for sector, data in self.data.items():
            if self.offered[sector] in left:
                assert driver.read(sector, 512) == data
        for i in range(2 * self.size):
            driver.read(i, 512, layout=INDIRECT)
        base = driver.stop_queue()
        assert base == queue.drained_base()
        assert self.journal.inflight() == []

    def close(self):
        self.driver.close()
        self.journal.close()


@FORMATS
@pytest.mark.parametrize("story", range(20))
def test_every_state_of_a_predecessor(server, healthy, memory_disk, ring, story):
    """Killed after each of its stores in turn: between journal and ring, within a batch, before
    and after publishing, while the driver goes on with what it was told."""
    seed = f"{SEED} {ring} {story}"
    last = Story(memory_disk, ring, seed)
    count = sum(1 for _ in last.stores())
    last.close()
    for stop_after in range(count + 1):
        story_ = Story(memory_disk, ring, seed)
        try:
            for _ in zip(range(stop_after), story_.stores()):
                pass
            story_.recover()
        except BaseException as error:
            error.add_note(f"after store {stop_after} of {count}")
            raise
        finally:
            story_.close()


@FORMATS
def test_call_that_a_predecessor_owed(connect, memory_disk, ring):
    """It died between publishing and calling: the driver sleeps, and nothing else will wake it."""
    driver = connect(memory_disk, queue_size=8, start_up=False, protocol_features=FEATURES)
    queue = driver.queues[0]
    journal = Journal(1, 8, ring["packed"])
    dead = predecessor(queue, journal)
    pending = driver.prepare(Type.OUT, 0, bytes(512), layout=INDIRECT)
    queue.publish(pending.head)
    for _ in (*dead.take(pending), *dead.give_back([pending])):
        pass
    bring_up(driver, journal)
    queue.call_expected = True
    assert driver.finish(pending).status == S_OK
    wait_until(queue.take_calls, "a call")
    journal.close()


@FORMATS
def test_stop_before_all_was_resubmitted(connect, file_disk, ring):
    """A ring is stopped as soon as it has started: what was in flight is answered all the same,
    before the stop or after the next start, once."""
    journal = Journal(1, 256, ring["packed"])
    driver = connect(file_disk, queue_size=256, start_up=False, protocol_features=FEATURES)
    queue = driver.queues[0]
    dead = predecessor(queue, journal)
    pending = [driver.prepare(Type.OUT, i, bytes([i]) * 512, layout=INDIRECT) for i in range(200)]
    for request in pending:
        queue.publish(request.head)
    for request in pending:
        for _ in dead.take(request):
            pass
    bring_up(driver, journal)
    for _ in range(3):
        driver.restart_queue(0, driver.stop_queue())
    assert queue.try_wait_all([request.head for request in pending])
    for request in pending:
        assert driver.finish(request).status == S_OK
    for i in range(200):
        assert driver.read(i, 512) == bytes([i]) * 512
    journal.close()


# -- a journal that lies -------------------------------------------------------------------------


def values(format_, size):
    top = (1 << 8 * struct.calcsize(format_)) - 1
    return sorted({0, 1, 2, size - 1, size, size + 1, 255, 0x7FFF, 0x8000, 0xFFFF, top} & set(
        range(0x10001)) | {top, top // 2 + 1})


@FORMATS
def test_corrupt_in_every_field(hostile, server, memory_disk, ring):
    """A journal with requests in flight and a batch half published, one field wrong at a time:
    the session ends, the queue stops, or the ring is served; nobody else notices."""
    hostile.log_lines_max = 3000
    fields = Journal(1, 8, ring["packed"])
    cases = [(name, None) for name in fields.header] + [
        (name, entry) for name in fields.entry for entry in (0, 1, 2)]
    fields.close()
    for field, entry in cases:
        journal = Journal(1, 8, ring["packed"])
        _, format_ = journal.at(field, 0, entry)
        journal.close()
        for value in values(format_, 8):
            if value >= 1 << 8 * struct.calcsize(format_):
                continue
            with small_driver(memory_disk, queue_size=8, **ring) as driver:
                journal = Journal(1, 8, ring["packed"])
                dead = predecessor(driver.queues[0], journal)
                for i in range(3):
                    pending = driver.prepare(Type.IN, i, in_len=512,
                                             layout=INDIRECT if i else DIRECT)
                    driver.queues[0].publish(pending.head)
                    for _ in dead.take(pending):
                        pass
                for _ in zip(range(3 + value % 5), dead.give_back(dead.taken[1:])):
                    pass
                journal.set(value, field, 0, entry)
                try:
                    bring_up(driver, journal)
                    driver.stop_queue()
                except SessionClosed:
                    pass
                journal.close()
        server.assert_healthy()


@FORMATS
def test_journal_scribbled_over_while_in_use(hostile, connect, memory_disk, ring, rng):
    """The journal is memory of the front-end: it may say anything at any time."""
    hostile.log_lines_max = 500
    for _ in range(8):
        journal = Journal(1, 64, ring["packed"])
        driver = connect(memory_disk, queue_size=64, start_up=False, protocol_features=FEATURES)
        bring_up(driver, journal)
        stop = threading.Event()

        def scribble():
            while not stop.is_set():
                at = rng.randrange(16, journal.size)
                journal.map[at] = rng.randrange(256)
        thread = threading.Thread(target=scribble)
        thread.start()
        try:
            end = time.monotonic() + 0.15
            while time.monotonic() < end:
                driver.queues[0].kick()
                driver.request(Type.IN, in_len=512, layout=rng.choice((INDIRECT, DIRECT)))
            driver.stop_queue()
        except (SessionClosed, AssertionError):
            pass
        finally:
            stop.set()
            thread.join()
        driver.reconnect(memory_disk.socket)
        try:
            bring_up(driver, journal)
            driver.stop_queue()
        except SessionClosed:
            pass
        journal.close()


def test_random_journal(hostile, memory_disk, rng):
    """Nothing but noise behind a version and a size that are right."""
    hostile.log_lines_max = 2000
    for i in range(150):
        packed = i % 2 == 1
        journal = Journal(1, 8, packed)
        journal.map[:] = rng.randbytes(len(journal.map))
        small = [name for name in journal.header if name not in ("version", "features")]
        for name in small:
            journal.set(rng.randrange(2 if "wrap" in name else 9), name)
        for entry in range(8):
            for name in set(journal.entry) & {"inflight", "next", "last", "num", "id"}:
                journal.set(rng.choice((rng.randrange(2), rng.randrange(9)))
                            if name != "inflight" else rng.randrange(2), name, 0, entry)
        journal.set(1, "version")
        journal.set(8, "desc_num")
        with small_driver(memory_disk, queue_size=8, packed=packed) as driver:
            driver.mem.write(driver.queues[0].desc_gpa, rng.randbytes(128))
            try:
                bring_up(driver, journal)
                driver.queues[0].kick()
                driver.stop_queue()
            except SessionClosed:
                pass
        journal.close()
