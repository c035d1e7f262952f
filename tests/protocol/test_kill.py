# SPDX-License-Identifier: Apache-2.0
"""kill -9 at any moment: a new daemon, a reconnect with the same journal and the same memory, and
every request is answered once."""

import signal
import time

import pytest

from blk import S_OK, Layout, Type
from daemon import DiskFactory, start_server
from inflight import Journal
from rings import RINGS
from test_inflight import bring_up, small_driver

LAYOUTS = [Layout("direct"), Layout("indirect", indirect=True)]
QUEUE_SIZE = 64


@pytest.fixture(scope="module")
def mortal():
    """A daemon of our own, with a file disk, that is killed and started again."""
    server = start_server()
    disks = DiskFactory(server)
    server.disk = disks("uring", size=4 << 20, num_queues=2)

    def kill():
        server.process.kill()
        server.process.wait()
        server.client.close()
        server.assert_log_clean()
        server.start()
        disks.create_again()
    server.kill_and_restart = kill
    yield server
    server.stop()


class Guest:
    """Two queues under load: at most one write a sector, so that the outcome is known."""

    def __init__(self, disk, ring, rng):
        self.rng = rng
        self.driver = small_driver(disk, queues=2, queue_size=QUEUE_SIZE, **ring)
        self.journal = Journal(2, QUEUE_SIZE, ring["packed"])
        self.content = {}
        self.pending = []

    def submit(self, count):
        busy = {sector for sector, _, _ in self.pending}
        for queue in self.driver.queues:
            free = queue.free_slots if queue.packed else len(queue.free_descs)
            for sector in self.rng.sample(range(0, 4096, 8), min(count, free // 3)):
                if sector in busy:
                    continue
                busy.add(sector)
                data = self.rng.randbytes(512 * self.rng.randrange(1, 5))
                self.pending.append((sector, data, self.driver.submit(
                    Type.OUT, sector, data, queue=queue.index, layout=self.rng.choice(LAYOUTS))))

    def settle(self):
        """All are answered; a second answer to one fails in the queue."""
        for sector, data, request in self.pending:
            assert self.driver.finish(request).status == S_OK
            self.content[sector] = data
        self.pending = []

    def verify(self):
        for sector, data in self.content.items():
            assert self.driver.read(sector, len(data), queue=sector // 8 % 2) == data

    def close(self):
        self.driver.close()
        self.journal.close()


@RINGS
def test_kill_at_random_moments(mortal, ring, rng):
    guest = Guest(mortal.disk, ring, rng)
    bring_up(guest.driver, guest.journal)
    for round_ in range(8):
        for _ in range(rng.randrange(1, 6)):
            guest.submit(rng.randrange(1, 20))
            if rng.random() < 0.3:
                guest.settle()
        if round_ % 4 == 3:
            # Requests that nobody has looked at, or whose answers nobody has.
            mortal.process.send_signal(signal.SIGSTOP)
            guest.submit(10)
        else:
            time.sleep(rng.random() * 0.002)
        mortal.kill_and_restart()
        guest.driver.reconnect(mortal.disk.socket)
        # The base is a stale one: where the ring stands, the journal knows.
        bring_up(guest.driver, guest.journal)
        if rng.random() < 0.5:
            guest.submit(5)
        guest.settle()
    guest.verify()
    for queue in guest.driver.queues:
        assert guest.driver.stop_queue(queue.index) == queue.drained_base()
        assert guest.journal.inflight(queue.index) == []
    guest.close()


@RINGS
def test_killed_twice_while_it_recovers(mortal, ring, rng):
    """Death again before what was left was done."""
    guest = Guest(mortal.disk, ring, rng)
    bring_up(guest.driver, guest.journal)
    for _ in range(2):
        guest.submit(20)
        for _ in range(3):
            mortal.kill_and_restart()
            guest.driver.reconnect(mortal.disk.socket)
            bring_up(guest.driver, guest.journal)
        guest.settle()
    guest.verify()
    guest.close()
