# SPDX-License-Identifier: Apache-2.0
"""A dirty log as a migrating front-end holds it, and guest memory in which every allocation has
pages of its own, so that the log says exactly what was written."""

import mmap
import os

from guest_memory import GuestMemory, Region

PAGE = 4096


class PagedMemory(GuestMemory):
    def alloc(self, size, align=16, region=0):
        return super().alloc(-(-size // PAGE) * PAGE, PAGE, region)


def paged_memory(size=2 << 20):
    return PagedMemory([Region(0x100000, size)])


def pages(gpa, length=1):
    return set(range(gpa // PAGE, (gpa + length - 1) // PAGE + 1))


class DirtyLog:
    """One bit a page of guest physical memory from 0 on. guard bytes behind it must not change."""

    GUARD = b"\x5a" * 64

    def __init__(self, memory, offset=0, size=None):
        end = max(region.gpa + region.size for region in memory.regions)
        self.size = -(-end // PAGE // 8) if size is None else size
        self.offset = offset
        self.fd = os.memfd_create("log")
        os.ftruncate(self.fd, offset + self.size + len(self.GUARD))
        self.map = mmap.mmap(self.fd, offset + self.size + len(self.GUARD))
        self.map[offset + self.size:] = self.GUARD

    def give(self, conn):
        conn.set_log_base(self.fd, self.size, self.offset)

    def pages(self):
        bitmap = self.map[self.offset:self.offset + self.size]
        return {8 * i + bit for i, byte in enumerate(bitmap) if byte
                for bit in range(8) if byte >> bit & 1}

    def clear(self):
        self.map[self.offset:self.offset + self.size] = bytes(self.size)

    def close(self):
        guard = self.map[self.offset + self.size:]
        self.map.close()
        os.close(self.fd)
        assert guard == self.GUARD, "a bit beyond the end of the log"
