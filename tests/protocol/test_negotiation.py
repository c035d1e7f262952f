# SPDX-License-Identifier: Apache-2.0
"""What a front-end is offered, and what it reads in the configuration space."""

import os

import pytest

from blk import (
    CONFIG, CONFIG_WCE_OFFSET, DEFAULT_FEATURES, S_IOERR, S_UNSUPP, Config, Feature, Type, ranges)
from daemon import MIB
from vhost_user import (
    CONFIG_MAX_BYTES, STATUS_ACKNOWLEDGE, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FEATURES_OK,
    VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_RING_INDIRECT_DESC, VIRTIO_F_VERSION_1,
    ProtocolFeature, bits)


def names(word, enumeration):
    return {feature.name for feature in enumeration if word & bits(feature)}


def test_features_offered(connect, memory_disk):
    """Virtio 1.2, 5.2.3, and the transport's bits. No offer of what does not work."""
    driver = connect(memory_disk, start_up=False)
    word = driver.conn.get_features()
    for feature in (VIRTIO_F_VERSION_1, VIRTIO_F_RING_INDIRECT_DESC,
                    VHOST_USER_F_PROTOCOL_FEATURES):
        assert word & bits(feature), f"feature {feature} is not offered"
    assert names(word, Feature) >= {
        "SEG_MAX", "BLK_SIZE", "TOPOLOGY", "MQ", "FLUSH", "CONFIG_WCE", "DISCARD",
        "WRITE_ZEROES"}
    assert not word & bits(Feature.RO)
    assert driver.conn.get_features() == word


def test_protocol_features_offered(connect, memory_disk):
    driver = connect(memory_disk, start_up=False)
    word = driver.conn.get_protocol_features()
    assert names(word, ProtocolFeature) >= {
        "MQ", "REPLY_ACK", "CONFIG", "CONFIGURE_MEM_SLOTS", "BACKEND_REQ", "BACKEND_SEND_FD",
        "STATUS", "RESET_DEVICE"}
    assert not names(word, ProtocolFeature) & {
        "RARP", "MTU", "CROSS_ENDIAN", "CRYPTO_SESSION", "PAGEFAULT"}
    driver.conn.set_protocol_features(word)
    assert driver.conn.get_max_mem_slots() >= 32
    assert driver.conn.get_queue_num() >= memory_disk.num_queues


@pytest.mark.parametrize("num_queues", [1, 2, 16, 256])
@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("kind", ["null", "malloc", "uring"])
def test_config_and_io_of_every_queue(make_disk, connect, kind, block_size, num_queues):
    """All back-ends, block sizes and queue counts: the configuration, and one verified I/O on
    every queue."""
    disk = make_disk(kind, block_size, 4 * MIB, num_queues)
    driver = connect(disk, queues=num_queues, queue_size=16)
    config = driver.config
    assert config.capacity == 4 * MIB // 512
    assert config.blk_size == block_size
    assert config.num_queues == num_queues
    assert config.seg_max >= 126
    assert driver.conn.get_queue_num() == num_queues
    if driver.negotiated(Feature.SIZE_MAX):
        assert config.size_max >= 4096
    # cloud-hypervisor#7849: zero limits beside F_DISCARD crash the driver of Windows.
    if driver.negotiated(Feature.DISCARD):
        assert config.max_discard_sectors > 0 and config.max_discard_seg > 0
        assert config.discard_sector_alignment > 0
    if driver.negotiated(Feature.WRITE_ZEROES):
        assert config.max_write_zeroes_sectors > 0 and config.max_write_zeroes_seg > 0
    sectors = block_size // 512
    for queue in range(num_queues):
        data = os.urandom(block_size)
        driver.write(queue * sectors, data, queue=queue)
        read = driver.read(queue * sectors, block_size, queue=queue)
        assert kind == "null" or read == data
    if kind == "uring":
        driver.flush(queue=num_queues - 1)
        with open(disk.file, "rb") as file:
            file.seek((num_queues - 1) * block_size)
            assert file.read(block_size) == data


def test_config_of_any_part(connect, memory_disk):
    """GET_CONFIG answers the asked size at the asked offset; the tail of the area is zero."""
    driver = connect(memory_disk)
    whole = driver.conn.get_config(CONFIG.size)
    assert Config.unpack(whole) == driver.config
    assert driver.conn.get_config(8) == whole[:8]
    assert driver.conn.get_config(1, offset=CONFIG_WCE_OFFSET) == whole[32:33]
    assert driver.conn.get_config(CONFIG_MAX_BYTES)[:CONFIG.size] == whole


def test_wce_round_trip(connect, memory_disk):
    """CONFIG_WCE (virtio 1.2, 5.2.5.2): the driver switches the cache mode and reads it back."""
    driver = connect(memory_disk)
    first = driver.config.wce
    for wce in (1 - first, first):
        driver.conn.set_config(CONFIG_WCE_OFFSET, bytes([wce]))
        assert driver.conn.get_config(1, offset=CONFIG_WCE_OFFSET)[0] == wce
    driver.write(0, bytes(512))
    driver.flush()


def test_writethrough_write_is_still_served(connect, file_disk):
    """With wce 0 a completed write is on stable storage: served, and verified."""
    driver = connect(file_disk)
    driver.conn.set_config(CONFIG_WCE_OFFSET, b"\0")
    data = os.urandom(4096)
    driver.write(64, data)
    assert driver.read(64, 4096) == data
    driver.conn.set_config(CONFIG_WCE_OFFSET, b"\1")


@pytest.mark.parametrize("serial", [None, "SLUICE-0123456789", "exactly-20-bytes-abc", "x"])
def test_get_id(make_disk, connect, serial):
    """GET_ID (virtio 1.2, 5.2.6): 20 bytes, padded with NUL."""
    driver = connect(make_disk("malloc", size=MIB, serial=serial))
    identity = driver.get_id()
    assert len(identity) == 20
    if serial is None:
        assert identity.rstrip(b"\0"), "a disk without a serial has one of its bdev's"
    else:
        assert identity == serial.encode().ljust(20, b"\0")


def test_get_id_into_a_longer_buffer(connect, memory_disk):
    """A buffer longer than 20 bytes gets the 20 bytes, and no stale memory (CVE-2024-8612)."""
    driver = connect(memory_disk)
    identity = driver.get_id()
    pending = driver.submit(Type.GET_ID, in_len=64)
    used_len = pending.queue.wait(pending.head)
    data = driver.mem.read(pending.writable[0].addr, 64)
    if driver.status_of(pending) == 0:
        assert data[:20] == identity
        assert used_len <= 65
        assert set(data[20:]) <= {0, 0xEE}
    else:
        assert driver.status_of(pending) in (S_IOERR, S_UNSUPP)


@pytest.mark.parametrize("kind", ["null", "malloc", "uring"])
def test_read_only(make_disk, connect, kind):
    """F_RO is offered; writes of every kind fail, also DISCARD, which some servers let through
    on a read-only disk; reads work and the data stays."""
    disk = make_disk(kind, size=MIB, readonly=True, content=b"untouched" + bytes(503))
    driver = connect(disk)
    assert driver.negotiated(Feature.RO)
    before = driver.read(0, 4096)
    result = driver.request(Type.OUT, 0, out=os.urandom(4096))
    assert result.status == S_IOERR
    for type_ in (Type.DISCARD, Type.WRITE_ZEROES):
        result = driver.request(type_, out=ranges((0, 8)))
        assert result.status in (S_IOERR, S_UNSUPP)
    assert driver.read(0, 4096) == before
    if kind == "uring":
        assert before.startswith(b"untouched")
        with open(disk.file, "rb") as file:
            assert file.read(4096) == before


def test_read_only_is_enforced_without_f_ro(make_disk, connect):
    """A driver that does not acknowledge F_RO cannot write either."""
    disk = make_disk("malloc", size=MIB, readonly=True)
    driver = connect(disk, features=bits(VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES))
    assert driver.request(Type.OUT, 0, out=bytes(512)).status == S_IOERR


def test_minimal_driver(connect, memory_disk):
    """No protocol features, no virtio features but VERSION_1: SeaBIOS is hardly more. Rings are
    then enabled from the start (vhost-user, "Ring states")."""
    driver = connect(memory_disk, features=bits(VIRTIO_F_VERSION_1), protocol_features=0)
    data = os.urandom(1024)
    driver.write(4, data)
    assert driver.read(4, 1024) == data


def test_no_reply_without_need_reply(connect, memory_disk):
    """A message is acknowledged only if it asked: the next reply is the next query's."""
    driver = connect(memory_disk)
    acks, driver.conn.protocol_features = driver.conn.protocol_features, 0
    driver.conn.set_vring_call(0, driver.queues[0].call_fd)
    driver.conn.set_owner()
    assert driver.conn.get_features()
    driver.conn.protocol_features = acks
    assert driver.conn.get_features()


def test_status_round_trip(connect, memory_disk):
    """SET_STATUS and GET_STATUS; DRIVER_OK was reached by the handshake."""
    driver = connect(memory_disk)
    ok = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK
    assert driver.conn.get_status() == ok


def test_status_zero_resets(connect, memory_disk):
    """Status 0 is a device reset (virtio 1.2, 2.1); the driver then starts anew."""
    driver = connect(memory_disk)
    driver.write(0, bytes(512))
    driver.conn.set_status(0)
    assert driver.conn.get_status() == 0
    driver.queues[0].reset()
    for _ in driver.set_up_queue(driver.queues[0]):
        pass
    for _ in driver.driver_ok():
        pass
    driver.read(0, 512)


def test_reset_device(connect, memory_disk):
    """RESET_DEVICE stops and disables the rings; memory and features may be set up again."""
    driver = connect(memory_disk)
    data = os.urandom(512)
    driver.write(16, data)
    driver.conn.reset_device()
    driver.queues[0].reset()
    driver.conn.set_features(driver.features)
    driver.conn.set_mem_table(driver.mem.regions)
    for _ in driver.set_up_queue(driver.queues[0]):
        pass
    for _ in driver.driver_ok():
        pass
    assert driver.read(16, 512) == data


def test_reset_owner(connect, memory_disk):
    """RESET_OWNER, deprecated, must not hurt (the specification leaves its meaning open)."""
    driver = connect(memory_disk)
    driver.conn.reset_owner()
    assert driver.conn.get_features()


def test_features_can_be_set_again(connect, memory_disk):
    """A guest that reboots negotiates anew over the same connection (firmware, then kernel)."""
    driver = connect(memory_disk, features=bits(VIRTIO_F_VERSION_1,
                                                VHOST_USER_F_PROTOCOL_FEATURES))
    data = os.urandom(512)
    driver.write(24, data)
    base = driver.stop_queue()
    assert base == driver.queues[0].avail_idx
    driver.queues[0].reset()
    driver.conn.set_vring_enable(0, False)
    driver.features = driver.conn.get_features() & DEFAULT_FEATURES
    driver.conn.set_features(driver.features)
    driver.conn.set_mem_table(driver.mem.regions)
    driver.restart_queue(0, 0)
    assert driver.read(24, 512) == data


def test_backend_channel(connect, memory_disk):
    """SET_BACKEND_REQ_FD is taken, and can be replaced; replaced ones are closed."""
    driver = connect(memory_disk)
    for _ in range(3):
        with_channel = driver.conn.open_backend_channel()
        with_channel.close()
    channel = driver.conn.open_backend_channel()
    assert driver.read(0, 512) is not None
    assert not channel.is_closed()
    channel.close()


def test_flush_without_negotiated_flush(connect, memory_disk):
    """FLUSH when F_FLUSH was not acknowledged ends, one way or the other."""
    driver = connect(memory_disk, features=bits(VIRTIO_F_VERSION_1,
                                                VHOST_USER_F_PROTOCOL_FEATURES))
    assert driver.request(Type.FLUSH).status in (0, S_UNSUPP)
    driver.read(0, 512)


@pytest.mark.parametrize("type_", [Type.DISCARD, Type.WRITE_ZEROES])
def test_gated_on_negotiated_features(connect, memory_disk, type_):
    """Gate on what was negotiated, not on what was offered: the data survives."""
    driver = connect(memory_disk, features=bits(VIRTIO_F_VERSION_1,
                                                VHOST_USER_F_PROTOCOL_FEATURES))
    data = os.urandom(4096)
    driver.write(0, data)
    assert driver.request(type_, out=ranges((0, 8))).status == S_UNSUPP
    assert driver.read(0, 4096) == data
