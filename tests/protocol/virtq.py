# SPDX-License-Identifier: Apache-2.0
"""The driver's side of a virtqueue, with full freedom to build chains no driver would.

What both ring layouts share (eventfds, waiting, segments, indirect tables) is in Queue; SplitQueue
lays the ring out as virtio 1.2, section 2.7 has it, PackedQueue as section 2.8 has it. A head is
what a request is given back by: the index of its first descriptor, or its buffer id.
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
F_AVAIL = 1 << 7
F_USED = 1 << 15
EVENT_ENABLE = 0
EVENT_DISABLE = 1
EVENT_DESC = 2
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

    packed = False

    def __init__(self, memory, index, size, event_idx):
        self.memory = memory
        self.index = index
        self.size = size
        self.event_idx = event_idx
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_expected = True  # False: no call fd given, or calls suppressed
        self.completed = {}  # head -> bytes written, not yet collected
        self.kicks_sent = 0
        self.kicks_saved = 0
        self.closed = None  # a function that says that the session has ended

    @property
    def desc_uva(self):
        return self.memory.uva(self.desc_gpa)

    @property
    def avail_uva(self):
        """A packed ring's driver area goes by the same name on the wire."""
        return self.memory.uva(self.avail_gpa)

    @property
    def used_uva(self):
        return self.memory.uva(self.used_gpa)

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

    def try_wait_all(self, heads, timeout_s=TIMEOUT_S):
        """True once all of heads are used; they stay in completed, in the order of being used."""
        deadline = time.monotonic() + timeout_s
        self.arm_calls()
        while not self.completed.keys() >= set(heads):
            if time.monotonic() > deadline or (self.closed and self.closed()):
                return False
            if not self.collect():
                time.sleep(0.0005)
        return True


class SplitQueue(Queue):
    """A split ring. The three parts may lie anywhere; see alloc and the *_gpa members."""

    def __init__(self, memory, index=0, size=128, event_idx=False, region=0, start=0):
        super().__init__(memory, index, size, event_idx)
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
        self._start = start & 0xFFFF
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

    @property
    def start_base(self):
        """What SET_VRING_BASE says of a ring that begins."""
        return self._start

    def drained_base(self):
        """What GET_VRING_BASE must say if all that the device took was used."""
        return self.used_idx

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


class PackedQueue(Queue):
    """A packed ring. Chains are kept until publish(), which gives them their place in the ring."""

    packed = True

    def __init__(self, memory, index=0, size=128, event_idx=False, region=0, start=0):
        super().__init__(memory, index, size, event_idx)
        self.desc_gpa = memory.alloc(16 * size, 16, region)
        self.avail_gpa = memory.alloc(4, 4, region)
        self.used_gpa = memory.alloc(4, 4, region)
        self._ring = memory.words(self.desc_gpa, 8 * size)
        self._driver_event = memory.words(self.avail_gpa, 2)
        self._device_event = memory.words(self.used_gpa, 2)
        self.reset(start)

    def reset(self, start=0):
        """As SplitQueue's; start is a slot of the first lap, or one of the second by the size
        added."""
        lap, slot = divmod(start % (2 * self.size), self.size)
        self.avail_slot = self.used_slot = slot
        self.avail_wrap = self.used_wrap = 1 - lap
        self.start_base = self._position(slot, 1 - lap) * 0x10001
        # What is not yet written in this lap looks used in the lap before.
        for i in range(self.size):
            wrap = self.avail_wrap ^ (i >= slot)
            self.write_desc(i, 0, 0, (F_AVAIL | F_USED) * wrap)
        self._driver_event[0] = self._device_event[0] = 0
        self._driver_event[1] = self._device_event[1] = EVENT_ENABLE
        self._added = 0
        self.free_slots = self.size
        self.free_ids = collections.deque(range(self.size))
        self.prepared = {}  # id -> descriptors not yet in the ring
        self.chains = {}  # id -> slots in the ring
        self.tables = {}
        self.completed.clear()

    def close(self):
        for view in (self._ring, self._driver_event, self._device_event):
            view.release()
        super().close()

    @staticmethod
    def _position(slot, wrap):
        return slot | wrap << 15

    def _advance(self, slot, wrap, count):
        slot += count
        return (slot - self.size, wrap ^ 1) if slot >= self.size else (slot, wrap)

    # -- raw writes ------------------------------------------------------------------------------

    def write_desc(self, slot, addr, length, flags=0, id_=0, table=None):
        """Any bits whatever; the flags, which make it available, last."""
        base = self.desc_gpa if table is None else table
        self.memory.write(base + 16 * slot, DESC.pack(addr, length, id_, 0)[:14])
        if table is None:
            self._ring[8 * slot + 7] = flags
        else:
            self.memory.write(base + 16 * slot + 14, struct.pack("<H", flags))

    def flags_at(self, slot):
        return self._ring[8 * slot + 7]

    def offer(self, *descs):
        """Writes (addr, length, flags, id) descriptors as one chain at the present place, the
        first one's flags last, and goes on behind it; the test answers for what they say."""
        slot, wrap = self.avail_slot, self.avail_wrap
        places = []
        for _ in descs:
            places.append((slot, F_AVAIL if wrap else F_USED))
            slot, wrap = self._advance(slot, wrap, 1)
        for (place, bits_), (addr, length, flags, id_) in reversed(list(zip(places, descs))):
            self.write_desc(place, addr, length, flags ^ bits_, id_)
        self.avail_slot, self.avail_wrap = slot, wrap
        self._added += len(descs)

    def set_no_interrupt(self, on):
        self._driver_event[1] = EVENT_DISABLE if on else EVENT_ENABLE
        self.call_expected = not on

    # -- legal operation -------------------------------------------------------------------------

    def add(self, segments, indirect=False, direct_first=0):
        """Prepare a chain; returns its buffer id. In a packed ring a chain is direct or one
        indirect descriptor, never both (2.8.8)."""
        assert not direct_first
        head = self.free_ids.popleft()
        descs = [(s.addr, s.length, F_WRITE if s.writable else 0) for s in segments]
        if indirect:
            table = self.memory.alloc(16 * len(descs), 16)
            for i, (addr, length, flags) in enumerate(descs):
                self.write_desc(i, addr, length, flags, table=table)
            self.tables[head] = table
            descs = [(table, 16 * len(descs), F_INDIRECT)]
        assert len(descs) <= self.free_slots, "the ring is full"
        self.free_slots -= len(descs)
        self.prepared[head] = descs
        return head

    def publish(self, *heads):
        """Make heads available, in order; a batch becomes visible by its first."""
        for head in heads:
            descs = self.prepared.pop(head)
            self.chains[head] = len(descs)
            last = len(descs) - 1
            self.offer(*((addr, length, flags | (F_NEXT if i < last else 0), head)
                         for i, (addr, length, flags) in enumerate(descs)))

    def wants_kick(self):
        """2.8.21.3.1: by the device event suppression structure."""
        added, self._added = self._added, 0
        flags = self._device_event[1]
        if flags != EVENT_DESC:
            return flags != EVENT_DISABLE
        position = self._device_event[0]
        event = position & 0x7FFF
        if position >> 15 != self.avail_wrap:
            event -= self.size
        return (self.avail_slot - event - 1) & 0xFFFF < added

    def arm_calls(self):
        if self.event_idx:
            self._driver_event[0] = self._position(self.used_slot, self.used_wrap)
            self._driver_event[1] = EVENT_DESC

    def drained_base(self):
        self.collect()
        return self._position(self.used_slot, self.used_wrap) * 0x10001

    def collect(self):
        count = 0
        while True:
            flags = self.flags_at(self.used_slot)
            wanted = (F_AVAIL | F_USED) * self.used_wrap
            if flags & (F_AVAIL | F_USED) != wanted:
                return count
            at = self.desc_gpa + 16 * self.used_slot
            _, length, head, _ = DESC.unpack(self.memory.read(at, 16))
            slots = self.chains.pop(head, None)
            assert slots is not None, f"used descriptor for {head}, which was not available"
            assert head not in self.completed, f"head {head} used twice"
            self.used_slot, self.used_wrap = self._advance(self.used_slot, self.used_wrap, slots)
            self.free_slots += slots
            self.free_ids.append(head)
            table = self.tables.pop(head, None)
            if table is not None:
                self.memory.free(table)
            self.completed[head] = length
            count += 1
