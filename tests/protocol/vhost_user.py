# SPDX-License-Identifier: Apache-2.0
"""The front-end's side of the vhost-user protocol, over a real socket.

Source: QEMU, docs/interop/vhost-user.rst. Well-formed messages have methods; malformed ones go
out through send() with a header of the test's own making, or through send_raw().
"""

import array
import enum
import os
import select
import socket
import struct
import time

# Bounded, but generous: the suite also runs under sanitizers on busy machines.
TIMEOUT_S = 15.0 * float(os.environ.get("SLUICE_TEST_TIMEOUT_SCALE", "1"))

HEADER = struct.Struct("=III")
VRING_STATE = struct.Struct("=II")
VRING_ADDR = struct.Struct("=IIQQQQ")
MEMORY_HEADER = struct.Struct("=II")
REGION = struct.Struct("=QQQQ")
CONFIG_HEADER = struct.Struct("=III")
U64 = struct.Struct("=Q")
INFLIGHT = struct.Struct("=QQHHI")
LOG = struct.Struct("=QQ")

VERSION = 0x1
REPLY = 0x4
NEED_REPLY = 0x8
VRING_NOFD = 1 << 8
CONFIG_MAX_BYTES = 256


class Request(enum.IntEnum):
    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class BackendRequest(enum.IntEnum):
    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5


class ProtocolFeature(enum.IntEnum):
    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    GET_VRING_BASE_INFLIGHT = 20


def bits(*features):
    """A feature word from bit numbers."""
    word = 0
    for feature in features:
        word |= 1 << feature
    return word


VHOST_F_LOG_ALL = 26
VHOST_USER_F_PROTOCOL_FEATURES = 30
VIRTIO_F_RING_INDIRECT_DESC = 28
VIRTIO_F_RING_EVENT_IDX = 29
VIRTIO_F_VERSION_1 = 32
VIRTIO_F_RING_PACKED = 34

STATUS_ACKNOWLEDGE = 1
STATUS_DRIVER = 2
STATUS_DRIVER_OK = 4
STATUS_FEATURES_OK = 8


class SessionClosed(Exception):
    """The back-end closed the connection."""


class Timeout(AssertionError):
    """The back-end did not answer in time: never acceptable, so never caught."""


class Message:
    """One received message; the caller owns fds."""

    def __init__(self, request, flags, payload, fds):
        self.request = request
        self.flags = flags
        self.payload = payload
        self.fds = fds

    @property
    def u64(self):
        assert len(self.payload) == 8, f"reply of {len(self.payload)} bytes, not a u64"
        return U64.unpack(self.payload)[0]


class Connection:
    """A socket that speaks vhost-user. Used for the main channel and for the backend channel."""

    def __init__(self, path=None, sock=None):
        if sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A blocking connect, bounded: with settimeout() a full backlog would be an error.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                            struct.pack("=qq", int(TIMEOUT_S) + 1, 0))
            sock.connect(os.fspath(path))
        sock.settimeout(TIMEOUT_S)
        self.sock = sock
        # Without a timeout: another thread may take what is_closed() has seen arrive.
        self.peek = sock.dup()
        self.peek.setblocking(False)
        self.protocol_features = 0

    def close(self):
        self.peek.close()
        self.sock.close()

    # -- bytes ------------------------------------------------------------------------------

    def send_raw(self, data, fds=()):
        """Send bytes as they are; fds travel with the first one."""
        ancillary = []
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            sent = self.sock.sendmsg([data], ancillary)
            if sent < len(data):
                self.sock.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise SessionClosed from error
        except TimeoutError as error:
            raise Timeout("the back-end does not read its socket") from error

    def send(self, request, payload=b"", fds=(), flags=VERSION, size=None, need_reply=False):
        """Send a message; size overrides the header's honest one."""
        if need_reply:
            flags |= NEED_REPLY
        length = len(payload) if size is None else size
        self.send_raw(HEADER.pack(request, flags, length) + payload, fds)

    def _recv_exactly(self, count, fds):
        data = b""
        while len(data) < count:
            try:
                part, ancillary, _, _ = self.sock.recvmsg(
                    count - len(data), socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError as error:
                raise SessionClosed from error
            except TimeoutError as error:
                raise Timeout(f"no message within {TIMEOUT_S} s") from error
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(value[:len(value) - len(value) % 4])
                    fds.extend(received)
            if not part:
                raise SessionClosed
            data += part
        return data

    def recv(self):
        """Receive one message of any kind."""
        fds = []
        request, flags, size = HEADER.unpack(self._recv_exactly(HEADER.size, fds))
        assert size <= 4096, f"the back-end sent a payload of {size} bytes"
        payload = self._recv_exactly(size, fds) if size else b""
        return Message(request, flags, payload, fds)

    def recv_reply(self, request):
        """Receive the reply to request; its flags must be exactly version|reply."""
        message = self.recv()
        assert message.request == request, f"reply to {message.request}, asked {request!r}"
        assert message.flags == VERSION | REPLY, f"reply flags {message.flags:#x}"
        return message

    def query(self, request, payload=b"", fds=()):
        """A request that has a reply of its own."""
        self.send(request, payload, fds)
        return self.recv_reply(request)

    def command(self, request, payload=b"", fds=(), expect=0):
        """A request without a reply of its own: acknowledged if REPLY_ACK was negotiated."""
        ack = bool(self.protocol_features & bits(ProtocolFeature.REPLY_ACK))
        self.send(request, payload, fds, need_reply=ack)
        if ack:
            value = self.recv_reply(request).u64
            assert (value == 0) == (expect == 0), f"{request!r} acknowledged with {value}"

    # -- what became of the session -----------------------------------------------------------

    def is_closed(self, timeout_s=0.0):
        """True once the back-end has closed; unread messages are left in place."""
        deadline = time.monotonic() + timeout_s
        poller = select.poll()
        poller.register(self.sock, select.POLLIN | select.POLLHUP)
        while True:
            left_ms = max(0.0, deadline - time.monotonic()) * 1000
            events = poller.poll(left_ms)
            if not events:
                return False
            try:
                return not self.peek.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                return True

    def wait_closed(self, timeout_s=TIMEOUT_S):
        """Read until the back-end closes; fail if it does not."""
        deadline = time.monotonic() + timeout_s
        self.sock.settimeout(timeout_s)
        try:
            while time.monotonic() < deadline:
                data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(32))
                for _, _, value in ancillary:
                    for fd in array.array("i", value):
                        os.close(fd)
                if not data:
                    return
        except ConnectionResetError:
            return
        except TimeoutError:
            pass
        finally:
            self.sock.settimeout(TIMEOUT_S)
        raise Timeout("the back-end kept a session that it must close")

    def expect_refused(self, request, payload=b"", fds=(), flags=VERSION, size=None):
        """Send a bad message: it must be acknowledged with an error, or the session closed.

        Returns "closed" or "refused". No answer at all is a Timeout: a message that got neither
        was swallowed.
        """
        ack = bool(self.protocol_features & bits(ProtocolFeature.REPLY_ACK))
        assert ack, "this check needs REPLY_ACK"
        try:
            self.send(request, payload, fds, flags=flags | NEED_REPLY, size=size)
            reply = self.recv_reply(request)
        except SessionClosed:
            return "closed"
        for fd in reply.fds:
            os.close(fd)
        assert reply.u64 != 0, f"{Request(request)!r} with bad contents was acknowledged"
        return "refused"

    def expect_closed(self, request, payload=b"", fds=(), flags=VERSION, size=None):
        """Send a malformed message: the session must end."""
        try:
            self.send(request, payload, fds, flags=flags, size=size)
        except SessionClosed:
            return
        self.wait_closed()

    # -- well-formed messages -----------------------------------------------------------------

    def get_features(self):
        return self.query(Request.GET_FEATURES).u64

    def set_features(self, features):
        self.command(Request.SET_FEATURES, U64.pack(features))

    def set_owner(self):
        self.command(Request.SET_OWNER)

    def reset_owner(self):
        self.command(Request.RESET_OWNER)

    def get_protocol_features(self):
        return self.query(Request.GET_PROTOCOL_FEATURES).u64

    def set_protocol_features(self, features):
        self.command(Request.SET_PROTOCOL_FEATURES, U64.pack(features))
        self.protocol_features = features

    def get_queue_num(self):
        return self.query(Request.GET_QUEUE_NUM).u64

    def get_max_mem_slots(self):
        return self.query(Request.GET_MAX_MEM_SLOTS).u64

    def set_mem_table(self, regions):
        self.command(Request.SET_MEM_TABLE, pack_mem_table(regions), [r.fd for r in regions])

    def add_mem_reg(self, region):
        self.command(Request.ADD_MEM_REG, U64.pack(0) + pack_region(region), [region.fd])

    def rem_mem_reg(self, region, with_fd=False):
        self.command(Request.REM_MEM_REG, U64.pack(0) + pack_region(region),
                     [region.fd] if with_fd else [])

    def set_vring_num(self, index, num):
        self.command(Request.SET_VRING_NUM, VRING_STATE.pack(index, num))

    def set_vring_base(self, index, base):
        self.command(Request.SET_VRING_BASE, VRING_STATE.pack(index, base))

    def get_vring_base(self, index):
        """Stop the ring; the index from which it would go on."""
        reply = self.query(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0))
        replied_index, base = VRING_STATE.unpack(reply.payload)
        assert replied_index == index
        return base

    def set_vring_addr(self, index, desc, used, avail, flags=0, log=0):
        self.command(Request.SET_VRING_ADDR,
                     VRING_ADDR.pack(index, flags, desc, used, avail, log))

    def _set_vring_fd(self, request, index, fd):
        if fd is None:
            self.command(request, U64.pack(index | VRING_NOFD))
        else:
            self.command(request, U64.pack(index), [fd])

    def set_vring_kick(self, index, fd):
        self._set_vring_fd(Request.SET_VRING_KICK, index, fd)

    def set_vring_call(self, index, fd):
        self._set_vring_fd(Request.SET_VRING_CALL, index, fd)

    def set_vring_err(self, index, fd):
        self._set_vring_fd(Request.SET_VRING_ERR, index, fd)

    def set_vring_enable(self, index, enable):
        self.command(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, int(enable)))

    def get_config(self, size, offset=0, flags=0):
        """The device's configuration space; the reply must be of the full size."""
        payload = CONFIG_HEADER.pack(offset, size, flags) + bytes(size)
        reply = self.query(Request.GET_CONFIG, payload).payload
        assert len(reply) == len(payload), "GET_CONFIG's reply is not of full size"
        replied_offset, replied_size, _ = CONFIG_HEADER.unpack_from(reply)
        assert (replied_offset, replied_size) == (offset, size)
        return reply[CONFIG_HEADER.size:]

    def set_config(self, offset, data, flags=0):
        self.command(Request.SET_CONFIG, CONFIG_HEADER.pack(offset, len(data), flags) + data)

    def set_status(self, status):
        self.command(Request.SET_STATUS, U64.pack(status))

    def get_status(self):
        return self.query(Request.GET_STATUS).u64

    def reset_device(self):
        self.command(Request.RESET_DEVICE)

    def get_inflight_fd(self, queue_count, queue_size):
        """The journal that the back-end makes: (fd, size, offset)."""
        reply = self.query(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, queue_count, queue_size, 0))
        size, offset, count, of_size, _ = INFLIGHT.unpack(reply.payload)
        assert (count, of_size) == (queue_count, queue_size)
        [fd] = reply.fds
        return fd, size, offset

    def set_inflight_fd(self, fd, size, offset, queue_count, queue_size):
        self.command(Request.SET_INFLIGHT_FD,
                     INFLIGHT.pack(size, offset, queue_count, queue_size, 0), [fd])

    def set_log_base(self, fd, size, offset=0):
        """Replied to, even without REPLY_ACK, once the back-end marks pages in it."""
        for extra in self.query(Request.SET_LOG_BASE, LOG.pack(size, offset), [fd]).fds:
            os.close(extra)

    def open_backend_channel(self):
        """Hand the back-end one end of a socket pair; returns the Connection on the other."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self.command(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
        return Connection(sock=ours)


def pack_region(region):
    return REGION.pack(region.gpa, region.size, region.uva, region.mmap_offset)


def pack_mem_table(regions, count=None):
    """SET_MEM_TABLE's payload; count overrides the honest one."""
    header = MEMORY_HEADER.pack(len(regions) if count is None else count, 0)
    return header + b"".join(pack_region(region) for region in regions)
