# SPDX-License-Identifier: Apache-2.0
"""libblkio's vhost-user driver, driven through ctypes: a front-end that Sluice did not write."""
import ctypes as c
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
DO_IO_TIMEOUT_S = 30
NO_UNMAP = 2  # BLKIO_REQ_NO_UNMAP


class BlkioError(OSError):
    """libblkio refused something; says why in its own words."""


class MemRegion(c.Structure):
    """struct blkio_mem_region"""
    _fields_ = [("addr", c.c_void_p), ("len", c.c_size_t), ("iova", c.c_uint64),
                ("fd_offset", c.c_int64), ("fd", c.c_int), ("flags", c.c_uint32)]


class Completion(c.Structure):
    """struct blkio_completion"""
    _fields_ = [("user_data", c.c_void_p), ("error_msg", c.c_char_p), ("ret", c.c_int),
                ("reserved", c.c_uint8 * 12)]


class Timespec(c.Structure):
    """struct timespec"""
    _fields_ = [("sec", c.c_long), ("nsec", c.c_long)]


assert c.sizeof(MemRegion) == 40 and c.sizeof(Completion) == 32

PROTOTYPES = {  # name: (result, arguments)
    "blkio_get_error_msg": (c.c_char_p, []),
    "blkio_create": (c.c_int, [c.c_char_p, c.POINTER(c.c_void_p)]),
    "blkio_destroy": (None, [c.POINTER(c.c_void_p)]),
    "blkio_connect": (c.c_int, [c.c_void_p]),
    "blkio_start": (c.c_int, [c.c_void_p]),
    "blkio_set_str": (c.c_int, [c.c_void_p, c.c_char_p, c.c_char_p]),
    "blkio_set_int": (c.c_int, [c.c_void_p, c.c_char_p, c.c_int]),
    "blkio_set_bool": (c.c_int, [c.c_void_p, c.c_char_p, c.c_bool]),
    "blkio_get_int": (c.c_int, [c.c_void_p, c.c_char_p, c.POINTER(c.c_int)]),
    "blkio_get_uint64": (c.c_int, [c.c_void_p, c.c_char_p, c.POINTER(c.c_uint64)]),
    "blkio_alloc_mem_region": (c.c_int, [c.c_void_p, c.POINTER(MemRegion), c.c_size_t]),
    "blkio_free_mem_region": (None, [c.c_void_p, c.POINTER(MemRegion)]),
    "blkio_map_mem_region": (c.c_int, [c.c_void_p, c.POINTER(MemRegion)]),
    "blkio_unmap_mem_region": (None, [c.c_void_p, c.POINTER(MemRegion)]),
    "blkio_get_queue": (c.c_void_p, [c.c_void_p, c.c_int]),
    "blkioq_read": (None, [c.c_void_p, c.c_uint64, c.c_void_p, c.c_size_t, c.c_void_p,
                           c.c_uint32]),
    "blkioq_write": (None, [c.c_void_p, c.c_uint64, c.c_void_p, c.c_size_t, c.c_void_p,
                            c.c_uint32]),
    "blkioq_write_zeroes": (None, [c.c_void_p, c.c_uint64, c.c_uint64, c.c_void_p, c.c_uint32]),
    "blkioq_discard": (None, [c.c_void_p, c.c_uint64, c.c_uint64, c.c_void_p, c.c_uint32]),
    "blkioq_flush": (None, [c.c_void_p, c.c_void_p, c.c_uint32]),
    "blkioq_do_io": (c.c_int, [c.c_void_p, c.POINTER(Completion), c.c_int, c.c_int,
                               c.POINTER(Timespec)]),
}


def load():
    """The library with its functions declared; fetched if the machine has none."""
    path = subprocess.run([HERE / "fetch-libblkio"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()
    library = c.CDLL(path)
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Blkio:
    """A connected disk with `num_queues` queues and memory regions shared with the back-end."""

    def __init__(self, library, socket, num_queues=1, queue_size=64):
        self.lib = library
        self.handle = c.c_void_p()
        self.regions = []
        self._check(library.blkio_create(b"virtio-blk-vhost-user", c.byref(self.handle)))
        try:
            self._check(library.blkio_set_str(self.handle, b"path", os.fsencode(socket)))
            self._check(library.blkio_connect(self.handle))
            self._check(library.blkio_set_int(self.handle, b"num-queues", num_queues))
            self._check(library.blkio_set_int(self.handle, b"queue-size", queue_size))
            self._check(library.blkio_start(self.handle))
        except BaseException:
            self.close()
            raise
        self.queues = [Queue(self, library.blkio_get_queue(self.handle, i))
                       for i in range(num_queues)]

    def _check(self, rc):
        if rc < 0:
            raise BlkioError(-rc, self.lib.blkio_get_error_msg().decode())

    def get_int(self, name):
        """An int property."""
        value = c.c_int()
        self._check(self.lib.blkio_get_int(self.handle, name.encode(), c.byref(value)))
        return value.value

    def get_uint64(self, name):
        """A uint64 property."""
        value = c.c_uint64()
        self._check(self.lib.blkio_get_uint64(self.handle, name.encode(), c.byref(value)))
        return value.value

    def map(self, length):
        """Allocates a memory region and shows it to the back-end (ADD_MEM_REG)."""
        region = MemRegion()
        self._check(self.lib.blkio_alloc_mem_region(self.handle, c.byref(region), length))
        self._check(self.lib.blkio_map_mem_region(self.handle, c.byref(region)))
        self.regions.append(region)
        return region

    def unmap(self, region):
        """Takes a region from the back-end (REM_MEM_REG) and frees it."""
        self.regions.remove(region)
        self.lib.blkio_unmap_mem_region(self.handle, c.byref(region))
        self.lib.blkio_free_mem_region(self.handle, c.byref(region))

    def close(self):
        """Disconnects."""
        if self.handle:
            self.lib.blkio_destroy(c.byref(self.handle))
        self.handle = c.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Queue:
    """One queue: requests are queued, then sent and waited for by `wait`."""

    def __init__(self, disk, handle):
        self.disk = disk
        self.lib = disk.lib
        self.handle = handle
        self.pending = 0

    def read(self, start, address, length, tag):
        """Reads into mapped memory."""
        self.lib.blkioq_read(self.handle, start, address, length, tag, 0)
        self.pending += 1

    def write(self, start, address, length, tag):
        """Writes from mapped memory."""
        self.lib.blkioq_write(self.handle, start, address, length, tag, 0)
        self.pending += 1

    def write_zeroes(self, start, length, tag, unmap=False):
        """Makes a range read as zeroes."""
        self.lib.blkioq_write_zeroes(self.handle, start, length, tag, 0 if unmap else NO_UNMAP)
        self.pending += 1

    def discard(self, start, length, tag):
        """Gives a range up."""
        self.lib.blkioq_discard(self.handle, start, length, tag, 0)
        self.pending += 1

    def flush(self, tag):
        """Makes what was acknowledged durable."""
        self.lib.blkioq_flush(self.handle, tag, 0)
        self.pending += 1

    def wait(self):
        """Waits for all pending requests; returns {tag: result}, 0 or -errno each."""
        done = (Completion * max(self.pending, 1))()
        timeout = Timespec(DO_IO_TIMEOUT_S, 0)
        count = self.lib.blkioq_do_io(self.handle, done, self.pending, self.pending,
                                      c.byref(timeout))
        if count < 0:
            raise BlkioError(-count, self.lib.blkio_get_error_msg().decode())
        assert count == self.pending
        self.pending = 0
        return {done[i].user_data or 0: done[i].ret for i in range(count)}
