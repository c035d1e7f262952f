# SPDX-License-Identifier: Apache-2.0
"""Guest memory: regions of memfds, mapped here and handed to the back-end.

Guest physical, user and file addresses differ on purpose, so that code which takes one for
another fails.
"""

import mmap
import os

USER_BASE = 0x7E00_0000_0000


class Region:
    """One memfd, or a part of one, at a guest physical address."""

    def __init__(self, gpa, size, uva=None, mmap_offset=0, fd=None):
        self.gpa = gpa
        self.size = size
        self.uva = USER_BASE + gpa if uva is None else uva
        self.mmap_offset = mmap_offset
        self.fd = os.memfd_create("guest") if fd is None else os.dup(fd)
        if fd is None:
            os.ftruncate(self.fd, mmap_offset + size)
        self.map = mmap.mmap(self.fd, mmap_offset + size)
        self.view = memoryview(self.map)[mmap_offset:]
        self._free = [(gpa, size)]
        self._taken = {}

    def close(self):
        if self.fd >= 0:
            self.view.release()
            self.map.close()
            os.close(self.fd)
            self.fd = -1

    def contains(self, gpa):
        return self.gpa <= gpa < self.gpa + self.size

    def alloc(self, size, align=16):
        """First fit; raises MemoryError when full."""
        size = max(size, 1)
        for i, (start, length) in enumerate(self._free):
            base = -(-start // align) * align
            skip = base - start
            if skip + size <= length:
                parts = [(start, skip), (base + size, length - skip - size)]
                self._free[i:i + 1] = [part for part in parts if part[1]]
                self._taken[base] = size
                return base
        raise MemoryError(f"no {size} bytes left in the region at {self.gpa:#x}")

    def free(self, gpa):
        self._free.append((gpa, self._taken.pop(gpa)))
        self._free.sort()
        merged = []
        for start, length in self._free:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged


class GuestMemory:
    """All the regions of one guest, read and written by guest physical address."""

    def __init__(self, regions=None):
        self.regions = regions if regions is not None else [Region(0x100000, 16 << 20)]

    def close(self):
        for region in self.regions:
            region.close()

    def region_at(self, gpa):
        for region in self.regions:
            if region.contains(gpa):
                return region
        raise ValueError(f"guest address {gpa:#x} is in no region")

    def alloc(self, size, align=16, region=0):
        return self.regions[region].alloc(size, align)

    def free(self, gpa):
        self.region_at(gpa).free(gpa)

    def uva(self, gpa):
        region = self.region_at(gpa)
        return gpa - region.gpa + region.uva

    def _pieces(self, gpa, length):
        while length:
            region = self.region_at(gpa)
            offset = gpa - region.gpa
            count = min(length, region.size - offset)
            yield region.view[offset:offset + count]
            gpa += count
            length -= count

    def read(self, gpa, length):
        return b"".join(bytes(piece) for piece in self._pieces(gpa, length))

    def write(self, gpa, data):
        done = 0
        for piece in self._pieces(gpa, len(data)):
            piece[:] = data[done:done + len(piece)]
            done += len(piece)

    def words(self, gpa, count):
        """A view of count 16-bit words: its loads and stores are single instructions, which a
        ring index needs (struct's standard formats go byte by byte and could tear)."""
        region = self.region_at(gpa)
        offset = gpa - region.gpa
        return region.view[offset:offset + 2 * count].cast("H")
