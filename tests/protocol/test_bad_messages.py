# SPDX-License-Identifier: Apache-2.0
"""Messages no front-end sends. Each is refused, by its acknowledgement or by the end of the
session with one log line; fds do not leak; neighbours notice nothing."""

import os
import struct

import pytest

from blk import CONFIG, CONFIG_WCE_OFFSET
from daemon import wait_until
from guest_memory import GuestMemory, Region
from vhost_user import (
    CONFIG_HEADER, HEADER, NEED_REPLY, REPLY, U64, VERSION, VRING_ADDR, VRING_NOFD, VRING_STATE,
    Connection, ProtocolFeature, Request, SessionClosed, bits, pack_mem_table, pack_region)

pytestmark = pytest.mark.usefixtures("hostile")

PAYLOAD_BYTES = {
    Request.GET_FEATURES: 0, Request.SET_FEATURES: 8, Request.SET_OWNER: 0,
    Request.RESET_OWNER: 0, Request.SET_MEM_TABLE: 8 + 32, Request.SET_VRING_NUM: 8,
    Request.SET_VRING_ADDR: 40, Request.SET_VRING_BASE: 8, Request.GET_VRING_BASE: 8,
    Request.SET_VRING_KICK: 8, Request.SET_VRING_CALL: 8, Request.SET_VRING_ERR: 8,
    Request.GET_PROTOCOL_FEATURES: 0, Request.SET_PROTOCOL_FEATURES: 8,
    Request.GET_QUEUE_NUM: 0, Request.SET_VRING_ENABLE: 8, Request.SET_BACKEND_REQ_FD: 0,
    Request.GET_CONFIG: 12 + 60, Request.SET_CONFIG: 12 + 1, Request.RESET_DEVICE: 0,
    Request.GET_MAX_MEM_SLOTS: 0, Request.ADD_MEM_REG: 40, Request.REM_MEM_REG: 40,
    Request.SET_STATUS: 8, Request.GET_STATUS: 0,
}
REQUESTS = pytest.mark.parametrize("request_", PAYLOAD_BYTES, ids=lambda r: r.name)
VRING_FD_REQUESTS = pytest.mark.parametrize(
    "request_", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR],
    ids=lambda r: r.name)


# -- header and size -----------------------------------------------------------------------------


# Messages whose length is theirs to choose, within bounds.
VARIABLE = (Request.SET_MEM_TABLE, Request.GET_CONFIG, Request.SET_CONFIG)


@REQUESTS
@pytest.mark.parametrize("size", ["short", "long", "page", "4GiB", "2GiB"])
def test_wrong_size(dial, memory_disk, request_, size):
    """A size that is not the message's ends the session, for sizes that no message has at once.

    Of messages that have no payload, or one of variable length, a byte more may be ignored.
    """
    connection = dial(memory_disk)
    right = PAYLOAD_BYTES[request_]
    length = {"short": right - 1, "long": right + 1, "page": 4096, "4GiB": 0xFFFFFFFF,
              "2GiB": 0x80000000}[size]
    if length < 0:
        length = 1
    payload = good_payload(request_).ljust(min(length, 4096), b"\0")[:length]
    tolerable = ((right == 0 and length <= 8)
                 or (request_ in VARIABLE and size == "long"))
    if not tolerable:
        connection.expect_closed(request_, payload, size=length)
        return
    try:
        connection.send(request_, payload)
        connection.get_features()
    except (SessionClosed, AssertionError):
        pass  # an answer to request_ itself comes before the one to GET_FEATURES


def good_payload(request_):
    """Contents whose own lengths claim the whole right size."""
    if request_ == Request.SET_MEM_TABLE:
        return pack_mem_table([], count=1) + bytes(32)
    if request_ in (Request.GET_CONFIG, Request.SET_CONFIG):
        size = PAYLOAD_BYTES[request_] - CONFIG_HEADER.size
        return CONFIG_HEADER.pack(0, size, 0) + bytes(size)
    return bytes(PAYLOAD_BYTES[request_])


@REQUESTS
def test_zero_size(dial, memory_disk, request_):
    connection = dial(memory_disk)
    if PAYLOAD_BYTES[request_]:
        connection.expect_closed(request_, b"")


@pytest.mark.parametrize("number", [0, 41, 42, 100, 255, 256, 0x7FFFFFFF, 0x80000001,
                                    0xFFFFFFFF])
def test_unknown_request(dial, memory_disk, number):
    """An unknown request is refused; its number must not index anything."""
    connection = dial(memory_disk)
    try:
        connection.send(number, U64.pack(0), flags=VERSION | NEED_REPLY)
        assert connection.recv().u64 != 0
    except SessionClosed:
        pass


@pytest.mark.parametrize("request_", [
    Request.SEND_RARP, Request.NET_SET_MTU, Request.IOTLB_MSG, Request.SET_VRING_ENDIAN,
    Request.CREATE_CRYPTO_SESSION, Request.CLOSE_CRYPTO_SESSION, Request.POSTCOPY_ADVISE,
    Request.POSTCOPY_LISTEN, Request.POSTCOPY_END, Request.GPU_SET_SOCKET, Request.VRING_KICK,
    Request.SET_LOG_FD], ids=lambda r: r.name)
def test_request_that_was_not_offered(dial, memory_disk, request_):
    """Known numbers of features that are not offered, with fds that must be closed."""
    connection = dial(memory_disk)
    fd = os.memfd_create("stray")
    try:
        connection.send(request_, U64.pack(0), [fd], flags=VERSION | NEED_REPLY)
        reply = connection.recv()
        assert reply.request == request_
    except SessionClosed:
        pass
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [0, 2, 3, VERSION | REPLY, VERSION | REPLY | NEED_REPLY,
                                   0xFFFFFFFF, 0x10 | VERSION | REPLY])
def test_wrong_version_or_flags(dial, memory_disk, flags):
    """Another version, or a request that says it is a reply."""
    dial(memory_disk).expect_closed(Request.GET_FEATURES, flags=flags)


@pytest.mark.parametrize("data", [
    b"\0" * 12, b"\xff" * 12, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 65536,
    b'{"jsonrpc":"2.0","id":1,"method":"rpc_get_methods"}'], ids=[
        "zeroes", "ones", "http", "many_zeroes", "json"])
def test_another_protocol(dial, memory_disk, data):
    connection = dial(memory_disk, negotiate=False)
    try:
        connection.send_raw(data)
    except SessionClosed:
        return
    connection.wait_closed()


def test_random_bytes(dial, memory_disk, rng):
    for _ in range(100):
        connection = dial(memory_disk, negotiate=rng.random() < 0.5)
        try:
            connection.send_raw(rng.randbytes(rng.randrange(1, 600)))
        except SessionClosed:
            pass
        connection.close()


def test_random_messages(dial, memory_disk, rng):
    """Right headers, random payloads, random fds: whatever the answer, all is well after."""
    fds = [os.memfd_create("random"), os.eventfd(0), os.open("/dev/null", os.O_RDWR)]
    os.ftruncate(fds[0], 1 << 20)
    try:
        for _ in range(150):
            connection = dial(memory_disk)
            try:
                for _ in range(rng.randrange(1, 8)):
                    request = rng.choice(list(PAYLOAD_BYTES))
                    payload = bytes(rng.choice((0, 0, 0, 1, 2, 16, 128, 255))
                                    for _ in range(PAYLOAD_BYTES[request]))
                    connection.send(request, payload,
                                    rng.sample(fds, rng.randrange(len(fds) + 1)),
                                    need_reply=rng.random() < 0.5)
            except SessionClosed:
                pass
            connection.close()
    finally:
        for fd in fds:
            os.close(fd)


# -- fds -----------------------------------------------------------------------------------------


@REQUESTS
def test_surplus_fds(dial, memory_disk, request_):
    """More fds than a message has, up to what one SCM_RIGHTS holds: closed, all of them
    (CVE-2019-14818, CVE-2022-0669). The fixture counts."""
    fd = os.memfd_create("surplus")
    try:
        for count in (1, 2, 9, 64, 253):
            connection = dial(memory_disk)
            try:
                connection.send(request_, bytes(PAYLOAD_BYTES[request_]), [fd] * count)
                connection.get_features()
            except (SessionClosed, AssertionError):
                pass
            connection.close()
    finally:
        os.close(fd)


@pytest.mark.parametrize("request_, payload", [
    (Request.SET_MEM_TABLE, pack_mem_table([]) + bytes(0)),
    (Request.SET_MEM_TABLE, struct.pack("=II", 1, 0) + struct.pack("=QQQQ", 0, 4096, 0, 0)),
    (Request.ADD_MEM_REG, U64.pack(0) + struct.pack("=QQQQ", 0, 4096, 0, 0)),
    (Request.SET_BACKEND_REQ_FD, b""),
    (Request.SET_VRING_KICK, U64.pack(0)),
    (Request.SET_VRING_CALL, U64.pack(0)),
    (Request.SET_VRING_ERR, U64.pack(0)),
], ids=["mem_table_empty", "mem_table", "add_mem_reg", "backend_req", "kick", "call", "err"])
def test_missing_fds(dial, memory_disk, request_, payload):
    connection = dial(memory_disk)
    if request_ == Request.SET_MEM_TABLE and len(payload) == 8:
        # No region, no fd: legal or not, it ends.
        connection.send(request_, payload, need_reply=True)
        try:
            connection.recv_reply(request_)
        except SessionClosed:
            pass
        return
    connection.expect_refused(request_, payload)


@VRING_FD_REQUESTS
def test_nofd_with_an_fd(dial, memory_disk, request_):
    """NOFD set, and an fd all the same: closed."""
    connection = dial(memory_disk)
    fd = os.eventfd(0)
    try:
        connection.send(request_, U64.pack(VRING_NOFD), [fd], need_reply=True)
        connection.recv_reply(request_)
    except SessionClosed:
        pass
    finally:
        os.close(fd)


@VRING_FD_REQUESTS
@pytest.mark.parametrize("kind", ["directory", "file", "null", "memfd", "pipe"])
def test_fds_of_the_wrong_kind(connect, memory_disk, request_, kind):
    """A kick, call or error fd that is no eventfd: refused, or useless to its owner alone."""
    driver = connect(memory_disk)
    if kind == "pipe":
        fd, other = os.pipe()
    else:
        other = None
        fd = {"directory": lambda: os.open("/", os.O_RDONLY),
              "file": lambda: os.open(__file__, os.O_RDONLY),
              "null": lambda: os.open("/dev/null", os.O_RDWR),
              "memfd": lambda: os.memfd_create("kind")}[kind]()
    try:
        driver.conn.send(request_, U64.pack(0), [fd], need_reply=True)
        driver.conn.recv_reply(request_)
        driver.submit(0, 0, in_len=512).queue.kick()
        driver.conn.get_features()
    except SessionClosed:
        pass
    finally:
        os.close(fd)
        if other is not None:
            os.close(other)


def test_repeated_messages_do_not_leak(server, connect, memory_disk):
    """CVE-2020-10726: each fd replaces the one before, which is closed."""
    driver = connect(memory_disk)
    driver.read(0, 512)
    driver.conn.set_mem_table(driver.mem.regions)
    channel = driver.conn.open_backend_channel()
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
    try:
        driver.conn.set_vring_err(0, fds[2])
        before = server.fd_count()
        for _ in range(100):
            driver.conn.set_mem_table(driver.mem.regions)
            driver.conn.set_vring_err(0, fds[2])
            driver.conn.set_vring_call(0, driver.queues[0].call_fd)
            driver.conn.set_vring_kick(0, driver.queues[0].kick_fd)
            channel.close()
            channel = driver.conn.open_backend_channel()
        wait_until(lambda: server.fd_count() <= before, "replaced fds closed")
        driver.read(0, 512)
    finally:
        channel.close()
        for fd in fds:
            os.close(fd)


def test_rings_of_all_256_indexes(dial, memory_disk):
    """Fds for rings that the controller does not have are refused, and closed."""
    fd = os.eventfd(0)
    try:
        for index in range(memory_disk.num_queues, 256, 17):
            for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL,
                            Request.SET_VRING_ERR):
                dial(memory_disk).expect_refused(request, U64.pack(index), [fd])
    finally:
        os.close(fd)


# -- rings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [0, 3, 1000, 1025, 2048, 32768, 65535, 65536, 1 << 31,
                                 0xFFFFFFFF])
def test_vring_num(dial, memory_disk, num):
    """No power of two, or above 1024 (CVE-2020-10723: size above what was allocated)."""
    dial(memory_disk).expect_refused(Request.SET_VRING_NUM, VRING_STATE.pack(0, num))


BAD_INDEXES = [4, 255, 256, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@pytest.mark.parametrize("index", BAD_INDEXES)
@pytest.mark.parametrize("request_", [
    Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.SET_VRING_ENABLE,
    Request.SET_VRING_ADDR], ids=lambda r: r.name)
def test_vring_index(dial, memory_disk, request_, index):
    """CVE-2020-10723: an index cut to fewer bits, or used unchecked."""
    payload = (VRING_ADDR.pack(index, 0, 0, 0, 0, 0) if request_ == Request.SET_VRING_ADDR
               else VRING_STATE.pack(index, 1))
    dial(memory_disk).expect_refused(request_, payload)


@pytest.mark.parametrize("index", BAD_INDEXES)
def test_get_vring_base_index(dial, memory_disk, index):
    connection = dial(memory_disk)
    connection.expect_closed(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0))


@pytest.mark.parametrize("base", [0x10000, 0xFFFFFFFF, 0x80000000])
def test_vring_base_beyond_16_bits(dial, memory_disk, base):
    """A split ring's index has 16 bits; more is refused, or cut."""
    connection = dial(memory_disk)
    connection.send(Request.SET_VRING_BASE, VRING_STATE.pack(0, base), need_reply=True)
    try:
        if connection.recv_reply(Request.SET_VRING_BASE).u64 == 0:
            assert connection.get_vring_base(0) == base & 0xFFFF
    except SessionClosed:
        pass


@pytest.mark.parametrize("enable", [2, 0x80000000, 0xFFFFFFFF])
def test_vring_enable_other_than_0_and_1(dial, memory_disk, enable):
    connection = dial(memory_disk)
    try:
        connection.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, enable), need_reply=True)
        connection.recv_reply(Request.SET_VRING_ENABLE)
    except SessionClosed:
        pass


def bad_addresses(region):
    """Ring parts where no ring can be, by name: (desc, avail, used)."""
    base, end = region.uva, region.uva + region.size
    good = base + 4096, base + 16384, base + 32768

    def part(number, value):
        return (*good[:number], value, *good[number + 1:])
    cases = {}
    for number, (name, size, align) in enumerate((("desc", 16 * 128, 16), ("avail", 6 + 256, 2),
                                                  ("used", 6 + 1024, 4))):
        cases |= {
            f"{name}_null": part(number, 0),
            f"{name}_unmapped": part(number, end + (1 << 30)),
            f"{name}_guest_address": part(number, region.gpa + 4096),
            f"{name}_before_the_region": part(number, base - align),
            f"{name}_last_byte_outside": part(number, (end - size + align) & ~(align - 1)),
            f"{name}_at_the_end": part(number, end),
            f"{name}_wraps": part(number, (1 << 64) - align),
            f"{name}_misaligned": part(number, base + 4096 + 1),
        }
    return cases


BAD_ADDRESSES = sorted(bad_addresses(Region(0x100000, 1 << 20)))


@pytest.mark.parametrize("case", BAD_ADDRESSES)
def test_vring_addr(connect, memory_disk, case):
    """Refused when set, or when the ring should start; never served, never touched."""
    driver = connect(memory_disk, start_up=False)
    for _ in driver.negotiate():
        pass
    for _ in driver.share_memory():
        pass
    desc, avail, used = bad_addresses(driver.mem.regions[0])[case]
    queue = driver.queues[0]
    before = driver.mem.read(driver.mem.regions[0].gpa, 1 << 20)
    try:
        driver.conn.set_vring_num(0, 128)
        driver.conn.set_vring_base(0, 0)
        driver.conn.send(Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, desc, used, avail, 0),
                         need_reply=True)
        if driver.conn.recv_reply(Request.SET_VRING_ADDR).u64:
            return
        driver.conn.set_vring_call(0, queue.call_fd)
        driver.conn.send(Request.SET_VRING_KICK, U64.pack(0), [queue.kick_fd])
        driver.conn.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
        queue.kick()
        driver.conn.get_features()
        driver.conn.get_vring_base(0)
    except SessionClosed:
        pass
    assert driver.mem.read(driver.mem.regions[0].gpa, 1 << 20) == before


def test_vring_addr_for_more_entries_later(connect, memory_disk):
    """A ring that fits with 16 entries and not with 1024: the number set after the address
    (CVE-2020-10723)."""
    driver = connect(memory_disk, start_up=False)
    for _ in driver.negotiate():
        pass
    for _ in driver.share_memory():
        pass
    region = driver.mem.regions[0]
    end = region.uva + region.size
    queue = driver.queues[0]
    try:
        driver.conn.set_vring_num(0, 16)
        driver.conn.set_vring_addr(0, end - 256, region.uva + 8192, region.uva + 4096)
        driver.conn.send(Request.SET_VRING_NUM, VRING_STATE.pack(0, 1024))
        driver.conn.set_vring_call(0, queue.call_fd)
        driver.conn.send(Request.SET_VRING_KICK, U64.pack(0), [queue.kick_fd])
        driver.conn.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
        driver.mem.write(region.gpa + 4096, struct.pack("<HHH", 0, 1, 1000))
        queue.kick()
        driver.conn.get_features()
        driver.conn.get_vring_base(0)
    except SessionClosed:
        pass


def test_ring_changed_while_it_runs(connect, memory_disk):
    """Size, base and address of a started ring: refused or taken over, never half."""
    for change in ((Request.SET_VRING_NUM, VRING_STATE.pack(0, 1024)),
                   (Request.SET_VRING_BASE, VRING_STATE.pack(0, 40000)),
                   (Request.SET_VRING_ADDR, VRING_ADDR.pack(0, 0, 0, 0, 0, 0)),
                   (Request.SET_FEATURES, U64.pack(0)),
                   (Request.SET_PROTOCOL_FEATURES, U64.pack(0))):
        driver = connect(memory_disk)
        driver.read(0, 512)
        try:
            driver.conn.send(*change)
            pending = driver.submit(0, 0, in_len=512)
            pending.queue.kick()
            pending.queue.try_wait(pending.head, 0.05)
            driver.conn.get_features()
        except (SessionClosed, AssertionError):
            pass
        driver.close()


def test_start_without_memory(connect, memory_disk):
    """A whole set-up in which SET_MEM_TABLE is missing."""
    driver = connect(memory_disk, start_up=False)
    try:
        for _ in driver.negotiate():
            pass
        queue = driver.queues[0]
        driver.conn.send(Request.SET_VRING_NUM, VRING_STATE.pack(0, 128))
        driver.conn.send(Request.SET_VRING_ADDR, VRING_ADDR.pack(
            0, 0, queue.desc_uva, queue.used_uva, queue.avail_uva, 0))
        driver.conn.send(Request.SET_VRING_KICK, U64.pack(0), [queue.kick_fd])
        driver.conn.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
        queue.kick()
        driver.conn.get_features()
    except SessionClosed:
        pass


def test_kick_alone(dial, memory_disk):
    """A kick fd and nothing else: no size, no address, no memory."""
    connection = dial(memory_disk)
    fd = os.eventfd(1)
    try:
        connection.send(Request.SET_VRING_KICK, U64.pack(0), [fd])
        connection.send(Request.SET_VRING_ENABLE, VRING_STATE.pack(0, 1))
        connection.get_features()
    except SessionClosed:
        pass
    finally:
        os.close(fd)


# -- features and configuration ------------------------------------------------------------------


@pytest.mark.parametrize("word", [1 << 63, 0xFFFFFFFFFFFFFFFF, 1 << 50])
def test_features_that_were_not_offered(dial, memory_disk, word):
    """Virtio 1.2, 2.2.1: the driver must not accept what was not offered."""
    dial(memory_disk).expect_refused(Request.SET_FEATURES, U64.pack(word))


@pytest.mark.parametrize("word", [1 << 63, 0xFFFFFFFFFFFFFFFF,
                                  1 << ProtocolFeature.CRYPTO_SESSION])
def test_protocol_features_that_were_not_offered(dial, memory_disk, word):
    connection = dial(memory_disk)
    word |= bits(ProtocolFeature.REPLY_ACK)
    connection.expect_refused(Request.SET_PROTOCOL_FEATURES, U64.pack(word))


@pytest.mark.parametrize("offset, size, payload", [
    (0, 60, 59), (0, 60, 61), (0, 257, 257), (0, 0xFFFFFFFF, 60), (0xFFFFFFFF, 1, 1),
    (0xFFFFFFFF, 60, 60), (200, 57, 57), (256, 1, 1), (0, 0x80000000, 256)])
def test_get_config_lies(dial, memory_disk, offset, size, payload):
    """Offset and size outside the 256 bytes, sums that wrap, a payload unlike the size
    (CVE-2024-11614). Vhost-user: an error is a reply without payload, or the end."""
    connection = dial(memory_disk)
    try:
        connection.send(Request.GET_CONFIG, CONFIG_HEADER.pack(offset, size, 0) + bytes(payload))
        reply = connection.recv_reply(Request.GET_CONFIG)
        assert len(reply.payload) <= 12 + payload
        assert not any(reply.payload[12 + CONFIG.size:]), "bytes beyond the configuration"
        if len(reply.payload) > 12:
            # A server may cut instead of refusing; then it must not hand out other memory.
            assert offset < 256 or not any(reply.payload[12:])
    except SessionClosed:
        pass


@pytest.mark.parametrize("offset, size, payload", [
    (256, 1, 1), (0xFFFFFFFF, 1, 1), (0xFFFFFFFF, 2, 2), (CONFIG_WCE_OFFSET, 257, 257),
    (CONFIG_WCE_OFFSET, 0xFFFFFFFF, 1), (CONFIG_WCE_OFFSET, 2, 1), (250, 16, 16)])
def test_set_config_out_of_bounds(dial, memory_disk, offset, size, payload):
    connection = dial(memory_disk)
    connection.expect_refused(Request.SET_CONFIG,
                              CONFIG_HEADER.pack(offset, size, 0) + bytes([1] * payload))


@pytest.mark.parametrize("offset, data", [(0, bytes(8)), (20, b"\0\2\0\0"), (34, b"\xff\xff")],
                         ids=["capacity", "blk_size", "num_queues"])
def test_set_config_of_what_is_not_writable(dial, memory_disk, offset, data):
    """Only the cache mode is the driver's to write; the rest stays."""
    connection = dial(memory_disk)
    before = connection.get_config(CONFIG.size)
    try:
        connection.send(Request.SET_CONFIG, CONFIG_HEADER.pack(offset, len(data), 0) + data,
                        need_reply=True)
        connection.recv_reply(Request.SET_CONFIG)
    except SessionClosed:
        pass
    assert dial(memory_disk).get_config(CONFIG.size) == before


@pytest.mark.parametrize("value", [2, 0xFF])
def test_set_config_wce_other_than_0_and_1(dial, memory_disk, value):
    connection = dial(memory_disk)
    try:
        connection.send(Request.SET_CONFIG,
                        CONFIG_HEADER.pack(CONFIG_WCE_OFFSET, 1, 0) + bytes([value]),
                        need_reply=True)
        connection.recv_reply(Request.SET_CONFIG)
    except SessionClosed:
        pass
    assert dial(memory_disk).get_config(1, offset=CONFIG_WCE_OFFSET)[0] in (0, 1)


@pytest.mark.parametrize("status", [0x100, 0xFFFFFFFFFFFFFFFF, 0x80, 0x40])
def test_odd_status(dial, memory_disk, status):
    """Status is a byte; reserved and high bits hurt nobody."""
    connection = dial(memory_disk)
    try:
        connection.send(Request.SET_STATUS, U64.pack(status), need_reply=True)
        connection.recv_reply(Request.SET_STATUS)
        assert connection.get_status() <= 0xFF
    except SessionClosed:
        pass


# -- the backend channel -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["eventfd", "null", "memfd"])
def test_backend_channel_that_is_no_socket(dial, memory_disk, kind):
    connection = dial(memory_disk)
    fd = {"eventfd": lambda: os.eventfd(0), "memfd": lambda: os.memfd_create("channel"),
          "null": lambda: os.open("/dev/null", os.O_RDWR)}[kind]()
    try:
        connection.send(Request.SET_BACKEND_REQ_FD, fds=[fd], need_reply=True)
        connection.recv_reply(Request.SET_BACKEND_REQ_FD)
        connection.get_features()
    except SessionClosed:
        pass
    finally:
        os.close(fd)


def test_backend_channel_full_of_nonsense(connect, memory_disk):
    """Answers nobody asked for, by the megabyte, and a sudden end: the disk goes on."""
    driver = connect(memory_disk)
    channel = driver.conn.open_backend_channel()
    channel.sock.setblocking(False)
    for _ in range(200):
        try:
            channel.sock.send(os.urandom(8192))
        except OSError:
            break
    try:
        driver.read(0, 512)
    except SessionClosed:
        pass
    channel.close()


@pytest.mark.parametrize("request_", [
    Request.SET_BACKEND_REQ_FD, Request.SET_VRING_KICK, Request.SET_VRING_CALL,
    Request.SET_VRING_ERR], ids=lambda r: r.name)
@pytest.mark.parametrize("whose", ["own", "of_another"])
def test_a_connection_as_an_fd(dial, memory_disk, request_, whose):
    """A front-end may hand over its own end of a connection. A server that keeps it never sees
    that connection close: its sessions, of which there is a limited number, are lost."""
    first, second = dial(memory_disk), dial(memory_disk)
    for connection, other in ((first, second), (second, first)):
        fd = (connection if whose == "own" else other).sock.fileno()
        try:
            connection.send(request_, bytes(PAYLOAD_BYTES[request_]), fds=[fd], need_reply=True)
            connection.recv_reply(request_)
            connection.get_features()
        except SessionClosed:
            pass


# -- log, inflight: offered only from the next milestone on; refused or bounded either way --------


@pytest.mark.parametrize("size, offset", [(0, 0), (1 << 63, 0), (4096, (1 << 64) - 4096),
                                          (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)])
def test_set_log_base(dial, memory_disk, size, offset):
    """CVE-2020-10722: size and offset whose sum wraps."""
    connection = dial(memory_disk)
    fd = os.memfd_create("log")
    try:
        connection.send(Request.SET_LOG_BASE, struct.pack("=QQ", size, offset), [fd],
                        need_reply=True)
        connection.recv()
    except SessionClosed:
        pass
    finally:
        os.close(fd)


@pytest.mark.parametrize("request_", [Request.GET_INFLIGHT_FD, Request.SET_INFLIGHT_FD],
                         ids=lambda r: r.name)
def test_inflight_of_65535_queues(dial, memory_disk, request_):
    """CVE-2021-3839: num_queues of the inflight messages unchecked."""
    connection = dial(memory_disk)
    fd = os.memfd_create("inflight")
    try:
        connection.send(request_, struct.pack("=QQHHI", 1 << 40, 0, 65535, 65535, 0), [fd],
                        need_reply=True)
        reply = connection.recv()
        for received in reply.fds:
            os.close(received)
    except SessionClosed:
        pass
    finally:
        os.close(fd)


# -- floods --------------------------------------------------------------------------------------


def test_endless_messages(hostile, dial, memory_disk):
    """A front-end that sends messages as fast as it can does not starve its neighbour, and
    cannot write the log full."""
    connection = dial(memory_disk)
    deadline_count = 3000
    for i in range(deadline_count):
        connection.set_vring_num(i % 4, 128)
    hostile.neighbour.check(20)


def test_one_line_for_a_closed_session(server, make_disk, dial):
    """A violation closes the session with a line that names disk and message, not with silence
    or a page. A disk of its own, since lines are limited for each."""
    disk = make_disk()
    before = server.log_lines()
    dial(disk).expect_closed(Request.SET_VRING_ADDR, b"\0", size=1)
    lines = wait_until(lambda: [line for line in server.log().splitlines()[before:]
                                if disk.name in line and "SET_VRING_ADDR" in line], "a log line")
    assert len(lines) == 1
    assert server.log_lines() - before <= 5


def test_log_lines_of_one_disk_are_limited(server, make_disk, dial):
    """A front-end that offends again and again does not write the log full (STYLE 7)."""
    disk = make_disk()
    before = server.log_lines()
    for _ in range(200):
        dial(disk).expect_closed(Request.SET_VRING_ADDR, b"\0", size=1)
    assert server.log_lines() - before <= 30


def test_headers_alone(memory_disk):
    """Every request number with every flag combination, header only, then gone."""
    for request in range(0, 48):
        for flags in (VERSION, VERSION | NEED_REPLY):
            connection = Connection(memory_disk.socket)
            connection.send_raw(HEADER.pack(request, flags, 64))
            connection.close()


def test_memory_table_then_gone(memory_disk):
    """The answer of a slow mapping finds nobody (mapping is done by helper threads)."""
    for _ in range(50):
        memory = GuestMemory([Region(0x100000, 64 << 20)])
        connection = Connection(memory_disk.socket)
        connection.get_features()
        connection.send(Request.SET_MEM_TABLE, pack_mem_table(memory.regions),
                        [memory.regions[0].fd])
        connection.close()
        memory.close()


def test_add_then_remove_without_reading_answers(dial, memory_disk):
    """Messages pile up behind a slow one; order is kept."""
    connection = dial(memory_disk)
    region = Region(0x100000, 1 << 20)
    single = U64.pack(0) + pack_region(region)
    for _ in range(50):
        connection.send(Request.ADD_MEM_REG, single, [region.fd], need_reply=True)
        connection.send(Request.REM_MEM_REG, single, need_reply=True)
    for _ in range(50):
        for request in (Request.ADD_MEM_REG, Request.REM_MEM_REG):
            assert connection.recv_reply(request).u64 == 0
    region.close()
