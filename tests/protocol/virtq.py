# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a virtqueue, with full freedom to build chains no driver would.

What every ring layout shares (eventfds, waiting, segments) is in Queue; SplitQueue lays the ring
out as virtio 1.2, section 2.7 has it. A packed ring would be a second subclass of Queue.
"""

import collections
import dataclasses
import os
import select
import struct
import threading
import time

from vhost_user import TIMEOUT_S, Timeout

DESC = struct.Struct("<QIHH")
USED_ELEM = struct.Struct("=II")
F_NEXT = 1
F_WRITE = 2
F_INDIRECT = 4
AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

_fence_lock = threading.Lock()


def full_fence():
    """A lock's atomic operations order the stores before it with the loads after it, which
    the ring's notification suppression needs (virtio 1.2, 2.7.13.4.1)."""
    with _fence_lock:
        pass


@dataclasses.dataclass
class Segment:
    """One buffer of a chain, as a descriptor will show it."""
    addr: int
    length: int
    writable: bool = False


class Queue:
    """What split and packed rings have in common."""

    def __init__(self, memory, index, size):
        self.memory = memory
        self.index = index
        self.size = size
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_expected = True  # False: no call fd given, or calls suppressed
        self.completed = {}  # head -> bytes written, not yet collected
        self.kicks_sent = 0
        self.kicks_saved = 0
        self.closed = None  # a function that says that the session has ended

    def close(self):
        for fd in (self.kick_fd, self.call_fd):
            os.close(fd)

    def kick(self):
        """Notify the device whether it wants that or not."""
        self.kicks_sent += 1
        os.eventfd_write(self.kick_fd, 1)

    def notify(self):
        """Notify the device if, and only if, it asked to be."""
        full_fence()
        if self.wants_kick():
            self.kick()
        else:
            self.kicks_saved += 1

    def take_calls(self):
        """How many calls have come since the last time; does not wait."""
        try:
            return os.eventfd_read(self.call_fd)
        except BlockingIOError:
            return 0

    def wait(self, head, timeout_s=TIMEOUT_S):
        """Bytes written into the chain of head, once the device has used it.

        Sleeps on the call eventfd alone: a completion without the call that was asked for is a
        lost interrupt, and fails.
        """
        length = self.try_wait(head, timeout_s)
        if length is None:
            raise Timeout(f"queue {self.index}: head {head} was not used in {timeout_s} s")
        return length

    def try_wait(self, head, timeout_s):
        """Like wait(), but None after the timeout or when the session has ended."""
        deadline = time.monotonic() + timeout_s
        poller = select.poll()
        poller.register(self.call_fd, select.POLLIN)
        while True:
            self.collect()
            while head not in self.completed:
                self.arm_calls()
                full_fence()
                if not self.collect():
                    break
            if head in self.completed:
                return self.completed.pop(head)
            left_s = deadline - time.monotonic()
            if left_s <= 0 or (self.closed and self.closed()):
                return None
            # Slices, so that the end of the session is seen too.
            slice_s = min(left_s, 0.05 if self.call_expected else 0.0005)
            called = poller.poll(slice_s * 1000)
            if called:
                self.take_calls()
            elif self.call_expected and self.collect() and head in self.completed:
                # The call may have come between poll() and collect().
                if not poller.poll(min(1000, 1000 * TIMEOUT_S)):
                    raise AssertionError(f"queue {self.index}: used without a call")


class SplitQueue(Queue):
    """A split ring. The three parts may lie anywhere; see alloc and the *_gpa members."""

    def __init__(self, memory, index=0, size=128, event_idx=False, region=0, start=0):
        super().__init__(memory, index, size)
        self.event_idx = event_idx
        self.desc_gpa = memory.alloc(16 * size, 16, region)
        self.avail_gpa = memory.alloc(6 + 2 * size, 2, region)
        self.used_gpa = memory.alloc(6 + 8 * size, 4, region)
        self._avail = memory.words(self.avail_gpa, 3 + size)
        self._used = memory.words(self.used_gpa, 3 + 4 * size)
        for gpa, length in ((self.desc_gpa, 16 * size), (self.avail_gpa, 6 + 2 * size),
                            (self.used_gpa, 6 + 8 * size)):
            memory.write(gpa, bytes(length))
        self.reset(start)

    def reset(self, start=0):
        """Forget everything, as a driver does after a device reset; indexes begin at start."""
        self.avail_idx = start
        self.used_seen = start
        self._asked_at = start
        self._avail[0] = 0
        self._avail[1] = start & 0xFFFF
        self._avail[2 + self.size] = start & 0xFFFF
        self._used[0] = 0
        self._used[1] = start & 0xFFFF
        self._used[2 + 4 * self.size] = start & 0xFFFF
        self.free_descs = collections.deque(range(self.size))
        self.chains = {}
        self.tables = {}
        self.completed.clear()

    def close(self):
        self._avail.release()
        self._used.release()
        super().close()

    # -- addresses ------------------------------------------------------------------------------

    @property
    def desc_uva(self):
        return self.memory.uva(self.desc_gpa)

    @property
    def avail_uva(self):
        return self.memory.uva(self.avail_gpa)

    @property
    def used_uva(self):
        return self.memory.uva(self.used_gpa)

    # -- raw writes ------------------------------------------------------------------------------

    def write_desc(self, index, addr, length, flags=0, next_index=0, table=None):
        """Any bits whatever into descriptor index of the ring, or of an indirect table."""
        base = self.desc_gpa if table is None else table
        self.memory.write(base + 16 * index, DESC.pack(addr, length, flags, next_index))

    def set_avail_idx(self, value):
        """Only the index; ring entries stay."""
        self.avail_idx = value & 0xFFFF
        self._avail[1] = self.avail_idx

    def set_no_interrupt(self, on):
        self._avail[0] = AVAIL_F_NO_INTERRUPT if on else 0
        self.call_expected = not on

    # -- legal operation -------------------------------------------------------------------------

    def write_chain(self, segments, indexes, table=None, last_flags=0, last_next=0):
        """Link segments through the descriptors of indexes."""
        for i, segment in enumerate(segments):
            more = i + 1 < len(segments)
            flags = (F_NEXT if more else last_flags) | (F_WRITE if segment.writable else 0)
            self.write_desc(indexes[i], segment.addr, segment.length, flags,
                            indexes[i + 1] if more else last_next, table)

    def add(self, segments, indirect=False, direct_first=0):
        """Write a chain, not yet available; returns its head.

        With indirect, all segments but the direct_first ones go through an indirect table.
        """
        direct = segments[:direct_first] if indirect else segments
        rest = segments[direct_first:] if indirect else []
        indexes = [self.free_descs.popleft() for _ in range(len(direct) + bool(rest))]
        head = indexes[0]
        if rest:
            table = self.memory.alloc(16 * len(rest), 16)
            self.write_chain(rest, range(len(rest)), table)
            self.tables[head] = table
            self.write_chain(direct, indexes)
            if direct:
                last = direct[-1]
                self.write_desc(indexes[-2], last.addr, last.length,
                                F_NEXT | (F_WRITE if last.writable else 0), indexes[-1])
            self.write_desc(indexes[-1], table, 16 * len(rest), F_INDIRECT)
        else:
            self.write_chain(segments, indexes)
        self.chains[head] = indexes
        return head

    def publish(self, *heads):
        """Make heads available, in order, with one store of the index; no notification."""
        for head in heads:
            self._avail[2 + self.avail_idx % self.size] = head
            self.avail_idx = (self.avail_idx + 1) & 0xFFFF
        self._avail[1] = self.avail_idx  # x86 keeps stores in order; so does the eventfd write

    def wants_kick(self):
        """Virtio 1.2, 2.7.10: by used.avail_event with EVENT_IDX, else by used.flags."""
        if self.event_idx:
            event = self._used[2 + 4 * self.size]
            return (self.avail_idx - event - 1) & 0xFFFF < self._published()
        return not self._used[0] & USED_F_NO_NOTIFY

    def _published(self):
        """How many entries became available since the last such question."""
        count = (self.avail_idx - self._asked_at) & 0xFFFF
        self._asked_at = self.avail_idx
        return count

    def arm_calls(self):
        """With EVENT_IDX: call me at the next used element."""
        if self.event_idx:
            self._avail[2 + self.size] = self.used_seen

    @property
    def used_idx(self):
        return self._used[1]

    def collect(self):
        """Move new used elements to completed; returns how many there were.

        Ids that were not available, and used elements beyond what was offered, fail here.
        """
        count = 0
        while self.used_seen != self.used_idx:
            at = self.used_gpa + 4 + 8 * (self.used_seen % self.size)
            head, length = USED_ELEM.unpack(self.memory.read(at, 8))
            self.used_seen = (self.used_seen + 1) & 0xFFFF
            assert head not in self.completed, f"head {head} used twice"
            indexes = self.chains.pop(head, None)
            assert indexes is not None, f"used element for {head}, which was not available"
            self.free_descs.extend(indexes)
            table = self.tables.pop(head, None)
            if table is not None:
                self.memory.free(table)
            self.completed[head] = length
            count += 1
        return count

    def publish_raw(self, head):
        """Make a hand-made chain available; its descriptors are the test's own business."""
        self.chains.setdefault(head, [])
        self.publish(head)
