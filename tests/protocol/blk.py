# SPDX-License-Identifier: Apache-2.0
"""A virtio-blk driver on top of Connection, GuestMemory and the queues.

A request is two streams of bytes (virtio 1.2, 5.2.6): what the device reads (header, then data)
and what it writes (data, then the status byte). A layout only says where each stream is cut into
descriptors, so every legal framing (2.7.4) can be had.
"""

import dataclasses
import enum
import struct

from guest_memory import GuestMemory
from vhost_user import (
    STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FEATURES_OK, TIMEOUT_S,
    VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_RING_EVENT_IDX, VIRTIO_F_RING_INDIRECT_DESC,
    VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1, Connection, ProtocolFeature, SessionClosed, bits)
from virtq import PackedQueue, Queue, Segment, SplitQueue

SECTOR = 512
HEADER = struct.Struct("<IIQ")
RANGE = struct.Struct("<QII")
WZ_UNMAP = 1

S_OK = 0
S_IOERR = 1
S_UNSUPP = 2
STATUS_POISON = 0xEE  # what the status byte holds before the device writes it


class Type(enum.IntEnum):
    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14


class Feature(enum.IntEnum):
    SIZE_MAX = 1
    SEG_MAX = 2
    GEOMETRY = 4
    RO = 5
    BLK_SIZE = 6
    FLUSH = 9
    TOPOLOGY = 10
    CONFIG_WCE = 11
    MQ = 12
    DISCARD = 13
    WRITE_ZEROES = 14


CONFIG = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")
CONFIG_WCE_OFFSET = 32


@dataclasses.dataclass
class Config:
    """struct virtio_blk_config (virtio 1.2, 5.2.4), the part up to write zeroes."""
    capacity: int
    size_max: int
    seg_max: int
    cylinders: int
    heads: int
    sectors: int
    blk_size: int
    physical_block_exp: int
    alignment_offset: int
    min_io_size: int
    opt_io_size: int
    wce: int
    unused: int
    num_queues: int
    max_discard_sectors: int
    max_discard_seg: int
    discard_sector_alignment: int
    max_write_zeroes_sectors: int
    max_write_zeroes_seg: int
    write_zeroes_may_unmap: int

    @classmethod
    def unpack(cls, data):
        return cls(*CONFIG.unpack(data[:CONFIG.size]))


@dataclasses.dataclass
class Pending:
    queue: Queue
    head: int
    readable: list
    writable: list
    buffers: list


@dataclasses.dataclass
class Result:
    status: int
    data: bytes
    used_len: int


class Layout:
    """Where the two streams are cut; None leaves the natural place (after header and data)."""

    def __init__(self, name, readable=None, writable=None, indirect=False, direct_first=0):
        self.name = name
        self.readable = readable or (lambda length: [16, length - 16])
        self.writable = writable or (lambda length: [length - 1, 1])
        self.indirect = indirect
        self.direct_first = direct_first

    def __repr__(self):
        return self.name


PLAIN = Layout("plain")


def ranges(*items, flags=0):
    """The payload of DISCARD and WRITE_ZEROES from (sector, count) or (sector, count, flags)."""
    return b"".join(RANGE.pack(item[0], item[1], item[2] if len(item) > 2 else flags)
                    for item in items)


DEFAULT_PROTOCOL_FEATURES = bits(
    ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.CONFIG,
    ProtocolFeature.CONFIGURE_MEM_SLOTS, ProtocolFeature.BACKEND_REQ,
    ProtocolFeature.BACKEND_SEND_FD, ProtocolFeature.STATUS, ProtocolFeature.RESET_DEVICE)
DEFAULT_FEATURES = bits(
    VIRTIO_F_VERSION_1, VIRTIO_F_RING_INDIRECT_DESC, VHOST_USER_F_PROTOCOL_FEATURES, *Feature)


class Driver:
    """One front-end: a connection, its memory and its queues."""

    def __init__(self, path, queues=1, queue_size=128, memory=None, features=DEFAULT_FEATURES,
                 protocol_features=DEFAULT_PROTOCOL_FEATURES, event_idx=False,
                 packed=False, mem_slots=False, ring_region=0, start=0):
        self.conn = Connection(path)
        self.mem = memory or GuestMemory()
        self.wanted_features = features
        if event_idx:
            self.wanted_features |= bits(VIRTIO_F_RING_EVENT_IDX)
        if packed:
            self.wanted_features |= bits(VIRTIO_F_RING_PACKED)
        self.wanted_protocol_features = protocol_features
        self.mem_slots = mem_slots
        self.features = 0
        self.config = None
        layout = PackedQueue if packed else SplitQueue
        self.queues = [layout(self.mem, i, queue_size, event_idx, ring_region, start)
                       for i in range(queues)]
        for queue in self.queues:
            queue.closed = self.conn.is_closed

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """The way a killed front-end goes: the socket just closes."""
        self.conn.close()
        for queue in self.queues:
            queue.close()
        self.queues = []
        self.mem.close()

    def reconnect(self, path):
        """A new connection for the same memory and rings; to be brought up again."""
        self.conn.close()
        self.conn = Connection(path)
        for queue in self.queues:
            queue.closed = self.conn.is_closed

    # -- bringing the device up -------------------------------------------------------------------

    def negotiated(self, feature):
        return bool(self.features & bits(feature))

    def has_protocol(self, feature):
        return bool(self.conn.protocol_features & bits(feature))

    def negotiate(self):
        """Yields after each message of the handshake up to, and without, the rings."""
        conn = self.conn
        offered = conn.get_features()
        yield "GET_FEATURES"
        if offered & bits(VHOST_USER_F_PROTOCOL_FEATURES):
            offered_protocol = conn.get_protocol_features()
            yield "GET_PROTOCOL_FEATURES"
            conn.set_protocol_features(offered_protocol & self.wanted_protocol_features)
            yield "SET_PROTOCOL_FEATURES"
        if self.has_protocol(ProtocolFeature.MQ):
            assert conn.get_queue_num() >= len(self.queues)
            yield "GET_QUEUE_NUM"
        conn.set_owner()
        yield "SET_OWNER"
        if self.has_protocol(ProtocolFeature.CONFIG):
            self.config = Config.unpack(conn.get_config(CONFIG.size))
            yield "GET_CONFIG"
        self.features = offered & self.wanted_features
        conn.set_features(self.features)
        yield "SET_FEATURES"
        if self.has_protocol(ProtocolFeature.STATUS):
            conn.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK)
            yield "SET_STATUS"

    def share_memory(self):
        if self.mem_slots:
            for region in self.mem.regions:
                self.conn.add_mem_reg(region)
                yield "ADD_MEM_REG"
        else:
            self.conn.set_mem_table(self.mem.regions)
            yield "SET_MEM_TABLE"

    def set_up_queue(self, queue, base=None, kick=True, call=True, enable=True):
        """Yields after each message that a ring needs."""
        conn = self.conn
        conn.set_vring_num(queue.index, queue.size)
        yield "SET_VRING_NUM"
        conn.set_vring_base(queue.index, queue.start_base if base is None else base)
        yield "SET_VRING_BASE"
        conn.set_vring_addr(queue.index, queue.desc_uva, queue.used_uva, queue.avail_uva)
        yield "SET_VRING_ADDR"
        conn.set_vring_call(queue.index, queue.call_fd if call else None)
        queue.call_expected = call
        queue.take_calls()  # a call at set-up is allowed
        yield "SET_VRING_CALL"
        conn.set_vring_kick(queue.index, queue.kick_fd if kick else None)
        yield "SET_VRING_KICK"
        if enable and self.features & bits(VHOST_USER_F_PROTOCOL_FEATURES):
            conn.set_vring_enable(queue.index, True)
            yield "SET_VRING_ENABLE"

    def driver_ok(self):
        if self.has_protocol(ProtocolFeature.STATUS):
            self.conn.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK
                                 | STATUS_DRIVER_OK)
            yield "SET_STATUS"

    def steps(self, **queue_options):
        """The whole handshake, one message a step."""
        yield from self.negotiate()
        yield from self.share_memory()
        for queue in self.queues:
            yield from self.set_up_queue(queue, **queue_options)
        yield from self.driver_ok()

    def start_up(self, **queue_options):
        for _ in self.steps(**queue_options):
            pass
        return self

    def stop_queue(self, index=0):
        return self.conn.get_vring_base(index)

    def restart_queue(self, index, base):
        for _ in self.set_up_queue(self.queues[index], base=base):
            pass

    # -- requests ---------------------------------------------------------------------------------

    def _place(self, stream, lengths, writable, region):
        assert sum(lengths) == len(stream), "the layout does not cover the stream"
        segments = []
        done = 0
        for length in lengths:
            if not length:
                continue
            gpa = self.mem.alloc(length, 1 if length < 16 else 16, region)
            self.mem.write(gpa, stream[done:done + length])
            segments.append(Segment(gpa, length, writable))
            done += length
        return segments

    def prepare(self, type_, sector=0, out=b"", in_len=0, queue=0, layout=PLAIN, region=0,
                header=None):
        """Write a request into memory and descriptors; not yet available."""
        queue = self.queues[queue]
        readable_stream = (HEADER.pack(type_, 0, sector) if header is None else header) + out
        writable_stream = bytes([STATUS_POISON]) * (in_len + 1)
        readable = self._place(readable_stream, layout.readable(len(readable_stream)), False,
                               region)
        writable = self._place(writable_stream, layout.writable(len(writable_stream)), True,
                               region)
        head = queue.add(readable + writable, layout.indirect, layout.direct_first)
        buffers = [segment.addr for segment in readable + writable]
        return Pending(queue, head, readable, writable, buffers)

    def submit(self, type_, sector=0, out=b"", in_len=0, queue=0, layout=PLAIN, region=0,
               header=None, notify=True):
        pending = self.prepare(type_, sector, out, in_len, queue, layout, region, header)
        pending.queue.publish(pending.head)
        if notify:
            pending.queue.notify()
        return pending

    def status_of(self, pending):
        last = pending.writable[-1]
        return self.mem.read(last.addr + last.length - 1, 1)[0]

    def finish(self, pending, timeout_s=TIMEOUT_S):
        """Wait for a request; its result. SessionClosed if the session ended first."""
        used_len = pending.queue.try_wait(pending.head, timeout_s)
        if used_len is None:
            if self.conn.is_closed():
                raise SessionClosed
            raise AssertionError(f"request {pending.head} of queue {pending.queue.index} did "
                                 f"not end in {timeout_s} s")
        return self._result(pending, used_len)

    def _result(self, pending, used_len):
        data = b"".join(self.mem.read(s.addr, s.length) for s in pending.writable)
        for gpa in pending.buffers:
            self.mem.free(gpa)
        status = data[-1]
        # CVE-2024-8612: a used length beyond what was written shows the guest stale memory.
        assert used_len <= len(data), f"used length {used_len} of {len(data)} writable bytes"
        if status == S_OK:
            assert used_len == len(data), f"used length {used_len}, written {len(data)}"
        return Result(status, data[:-1], used_len)

    def request(self, type_, sector=0, out=b"", in_len=0, **options):
        return self.finish(self.submit(type_, sector, out, in_len, **options))

    def read(self, sector, length, **options):
        result = self.request(Type.IN, sector, in_len=length, **options)
        assert result.status == S_OK, f"read of sector {sector}: status {result.status}"
        return result.data

    def write(self, sector, data, **options):
        result = self.request(Type.OUT, sector, out=data, **options)
        assert result.status == S_OK, f"write of sector {sector}: status {result.status}"

    def flush(self, **options):
        result = self.request(Type.FLUSH, **options)
        assert result.status == S_OK, f"flush: status {result.status}"

    def get_id(self, **options):
        result = self.request(Type.GET_ID, in_len=20, **options)
        assert result.status == S_OK
        return result.data

    def discard(self, *items, **options):
        return self.request(Type.DISCARD, out=ranges(*items), **options).status

    def write_zeroes(self, *items, flags=0, **options):
        return self.request(Type.WRITE_ZEROES, out=ranges(*items, flags=flags),
                            **options).status

    # -- bad requests -----------------------------------------------------------------------------

    def expect_stopped_or_failed(self, pending, quiet_s=0.25):
        """A request that must not succeed.

        Returns "failed" (IOERR or UNSUPP, or used with length 0 and an untouched status byte),
        "stopped" (never used, and GET_VRING_BASE still answers) or "closed". GET_VRING_BASE
        waits for what is in flight, so a late success cannot be missed.
        """
        queue = pending.queue
        used_len = queue.try_wait(pending.head, quiet_s)
        if used_len is None and not self.conn.is_closed():
            try:
                self.conn.get_vring_base(queue.index)
            except SessionClosed:
                pass
            queue.collect()
            used_len = queue.completed.pop(pending.head, None)
        if used_len is None:
            return "closed" if self.conn.is_closed() else "stopped"
        written = sum(segment.length for segment in pending.writable)
        assert used_len <= written, f"used length {used_len} of {written} writable bytes"
        if not pending.writable:
            assert used_len == 0
            return "failed"
        status = self.status_of(pending)
        if used_len == 0:
            assert status != S_OK, "a bad request ended with status OK"
        else:
            assert status in (S_IOERR, S_UNSUPP), f"a bad request ended with status {status}"
        return "failed"
