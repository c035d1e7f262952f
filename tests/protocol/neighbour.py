# SPDX-License-Identifier: Apache-2.0
"""A well-behaved front-end on a disk of its own, which must never notice what others do."""

import os
import random
import threading
import time

from blk import Driver
from vhost_user import TIMEOUT_S

BLOCK = 4096


class Neighbour:
    """Writes and verifies blocks in a thread, gently, until stopped."""

    def __init__(self, disk, seed):
        self.disk = disk
        self.blocks = disk.size // BLOCK
        self.random = random.Random(seed)
        self._progress = threading.Condition()
        self._stop = threading.Event()
        self._start()

    def _start(self):
        self.driver = Driver(self.disk.socket).start_up()
        self.error = None
        self.done = 0
        self.longest_s = 0.0
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="neighbour", daemon=True)
        self._thread.start()

    def _run(self):
        content = {}
        try:
            while not self._stop.wait(0.004):
                block = self.random.randrange(self.blocks)
                start = time.monotonic()
                if block in content and self.random.random() < 0.5:
                    assert self.driver.read(block * 8, BLOCK) == content[block], \
                        f"neighbour: block {block} has wrong data"
                else:
                    data = os.urandom(BLOCK)
                    self.driver.write(block * 8, data)
                    content[block] = data
                with self._progress:
                    self.longest_s = max(self.longest_s, time.monotonic() - start)
                    self.done += 1
                    self._progress.notify_all()
        except BaseException as error:  # reported by check()
            with self._progress:
                self.error = error
                self._progress.notify_all()

    def check(self, count=5):
        """Its I/O has gone on without a fault, and goes on still."""
        with self._progress:
            target = self.done + count
            self._progress.wait_for(lambda: self.error or self.done >= target, TIMEOUT_S)
            if self.error:
                raise AssertionError("the neighbour's disk failed") from self.error
            assert self.done >= target, "the neighbour's disk stands still"

    def stop(self):
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)
        self.driver.close()

    def restart(self):
        """On a server that was started anew."""
        self.stop()
        self._start()
