# SPDX-License-Identifier: Apache-2.0
"""The inflight journal (vhost-user.rst, "Inflight I/O tracking") as a front-end holds it, and a
back-end that dies: it follows the protocol's algorithm store by store, and stops between any two.
"""

import mmap
import os
import struct

from virtq import DESC, F_AVAIL, F_NEXT, F_USED, F_WRITE, USED_ELEM

VERSION = 1
# name -> (offset, format), of the header and of an entry.
SPLIT_HEADER = {"features": (0, "Q"), "version": (8, "H"), "desc_num": (10, "H"),
                "last_batch_head": (12, "H"), "used_idx": (14, "H")}
SPLIT_ENTRY = {"inflight": (0, "B"), "next": (6, "H"), "counter": (8, "Q")}
PACKED_HEADER = {"features": (0, "Q"), "version": (8, "H"), "desc_num": (10, "H"),
                 "free_head": (12, "H"), "old_free_head": (14, "H"), "used_idx": (16, "H"),
                 "old_used_idx": (18, "H"), "used_wrap": (20, "B"), "old_used_wrap": (21, "B")}
PACKED_ENTRY = {"inflight": (0, "B"), "next": (2, "H"), "last": (4, "H"), "num": (6, "H"),
                "counter": (8, "Q"), "id": (16, "H"), "flags": (18, "H"), "len": (20, "I"),
                "addr": (24, "Q")}


class Journal:
    """The journal of all queues of a device, in a memfd."""

    def __init__(self, queue_count, queue_size, packed, fd=None, offset=0):
        self.header, self.entry = (PACKED_HEADER, PACKED_ENTRY) if packed else (
            SPLIT_HEADER, SPLIT_ENTRY)
        self.header_bytes, self.entry_bytes = (32, 32) if packed else (16, 16)
        self.queue_count = queue_count
        self.queue_size = queue_size
        self.offset = offset
        self.queue_bytes = -(-(self.header_bytes + self.entry_bytes * queue_size) // 64) * 64
        self.size = self.queue_bytes * queue_count
        self.fd = fd
        if fd is None:
            self.fd = os.memfd_create("inflight")
            os.ftruncate(self.fd, offset + self.size)
        self.map = mmap.mmap(self.fd, offset + self.size)

    def close(self):
        self.map.close()
        os.close(self.fd)

    def give(self, conn):
        conn.set_inflight_fd(self.fd, self.size, self.offset, self.queue_count, self.queue_size)

    def at(self, field, queue=0, entry=None):
        """(position, format) of a field of the header, or of an entry."""
        offset, format_ = (self.header if entry is None else self.entry)[field]
        if entry is not None:
            offset += self.header_bytes + self.entry_bytes * entry
        return self.offset + queue * self.queue_bytes + offset, "=" + format_

    def get(self, field, queue=0, entry=None):
        at, format_ = self.at(field, queue, entry)
        return struct.unpack_from(format_, self.map, at)[0]

    def set(self, value, field, queue=0, entry=None):
        at, format_ = self.at(field, queue, entry)
        struct.pack_into(format_, self.map, at, value)

    def inflight(self, queue=0):
        """The entries in flight."""
        return [i for i in range(self.queue_size) if self.get("inflight", queue, i)]


class Predecessor:
    """A back-end on one ring. Its methods are generators that yield after each store that a
    successor can see. published is what the driver was told of."""

    def __init__(self, queue, journal):
        self.queue = queue
        self.journal = journal
        self.counter = 0
        self.taken = []  # pending requests, in order
        self.published = []
        journal.set(journal.queue_size, "desc_num")

    def get(self, field, entry=None):
        return self.journal.get(field, 0, entry)

    def set(self, value, field, entry=None):
        self.journal.set(value, field, 0, entry)

    def carry_out(self, pending):
        """As far as a driver can tell: the status byte. Returns how much was written."""
        last = pending.writable[-1]
        self.queue.memory.write(last.addr + last.length - 1, b"\0")
        return sum(segment.length for segment in pending.writable)


class SplitPredecessor(Predecessor):
    def __init__(self, queue, journal):
        super().__init__(queue, journal)
        self.avail = self.used = queue.start_base
        self.set(self.used, "used_idx")
        self.set(VERSION, "version")

    def take(self, pending):
        self.set(self.counter, "counter", pending.head)
        yield
        self.counter += 1
        self.taken.append(pending)
        self.set(1, "inflight", pending.head)
        yield

    def give_back(self, batch):
        queue = self.queue
        for pending in batch:
            at = queue.used_gpa + 4 + 8 * (self.used % queue.size)
            queue.memory.write(at, USED_ELEM.pack(pending.head, self.carry_out(pending)))
            self.used = (self.used + 1) & 0xFFFF
            yield
            self.set(self.get("last_batch_head"), "next", pending.head)
            yield
            self.set(pending.head, "last_batch_head")
            yield
        queue._used[1] = self.used
        self.published += batch
        yield
        for pending in batch:
            self.set(0, "inflight", pending.head)
            yield
        self.set(self.used, "used_idx")
        yield


class PackedPredecessor(Predecessor):
    def __init__(self, queue, journal):
        super().__init__(queue, journal)
        self.avail_slot = self.used_slot = queue.avail_slot
        self.avail_wrap = self.used_wrap = queue.avail_wrap
        self.entries = {}  # buffer id -> entry of the journal, slots
        for i in range(queue.size):
            self.set(i + 1, "next", i)
        for prefix in ("", "old_"):
            self.set(self.used_slot, prefix + "used_idx")
            self.set(self.used_wrap, prefix + "used_wrap")
        self.set(VERSION, "version")

    def take(self, pending):
        queue = self.queue
        head = self.get("old_free_head")
        self.set(0, "num", head)
        self.set(self.counter, "counter", head)
        self.counter += 1
        yield
        self.set(1, "inflight", head)
        yield
        more = True
        slots = 0
        while more:
            at = queue.desc_gpa + 16 * self.avail_slot
            addr, length, id_, flags = DESC.unpack(queue.memory.read(at, 16))
            more = flags & F_NEXT
            free = self.get("free_head")
            if not more:
                self.set(free, "last", head)
            slots += 1
            self.set(slots, "num", head)
            for name, value in (("addr", addr), ("len", length), ("flags", flags), ("id", id_)):
                self.set(value, name, free)
            yield
            self.set(self.get("next", free), "free_head")
            yield
            self.avail_slot, self.avail_wrap = queue._advance(self.avail_slot, self.avail_wrap, 1)
        # The head needs the buffer id, which only the last descriptor must have.
        self.entries[pending.head] = head, slots
        self.taken.append(pending)
        self.set(self.get("free_head"), "old_free_head")
        yield

    def give_back(self, batch):
        queue = self.queue
        stores = []
        for pending in batch:
            entry, slots = self.entries[pending.head]
            self.set(self.get("free_head"), "next", self.get("last", entry))
            yield
            self.set(entry, "free_head")
            yield
            stores.append((self.used_slot, pending.head, self.carry_out(pending),
                           F_WRITE | (F_AVAIL | F_USED) * self.used_wrap))
            self.used_slot, self.used_wrap = queue._advance(self.used_slot, self.used_wrap, slots)
        self.set(self.used_slot, "used_idx")
        yield
        self.set(self.used_wrap, "used_wrap")
        yield
        for slot, id_, length, flags in stores[1:] + stores[:1]:
            queue.memory.write(queue.desc_gpa + 16 * slot + 8, struct.pack("<IH", length, id_))
            yield
            if slot == stores[0][0]:
                self.published += batch
            queue._ring[8 * slot + 7] = flags
            yield
        for pending in batch:
            self.set(0, "inflight", self.entries[pending.head][0])
            yield
        for name in ("free_head", "used_idx", "used_wrap"):
            self.set(self.get(name), "old_" + name)
            yield


def predecessor(queue, journal):
    return (PackedPredecessor if queue.packed else SplitPredecessor)(queue, journal)
