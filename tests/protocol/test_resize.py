# SPDX-License-Identifier: Apache-2.0
"""Disks that change their size under a running front-end: what it is told, what its I/O meets,
what stays after a restart."""

import os
import select
import socket
import threading

import pytest

from blk import CONFIG, DEFAULT_PROTOCOL_FEATURES, S_IOERR, S_OK, SECTOR, Config, Type
from control_daemon import Daemon
from daemon import MIB, RpcError, wait_until
from vhost_user import (
    HEADER, REPLY, TIMEOUT_S, U64, VERSION, NEED_REPLY, BackendRequest, ProtocolFeature, bits)

SERVER_OPTIONS = {"cores": "0,1"}  # a size has to reach the queues of both reactors
BLOCK = 4096
KINDS = ["null", "malloc", "uring"]


def resize(server, disk, size):
    """By the method that SPDK's users know, where there is one."""
    if disk.kind == "null":
        assert server.rpc("bdev_null_resize", name=disk.bdev, new_size=size // MIB) is True
    elif disk.kind == "uring":
        os.truncate(disk.file, size)
        assert server.rpc("bdev_uring_rescan", name=disk.bdev) is True
    else:
        assert server.rpc("sluice_bdev_resize", name=disk.bdev, size=size) is True
    disk.num_blocks = size // disk.block_size


def capacity(driver):
    return Config.unpack(driver.conn.get_config(CONFIG.size)).capacity * SECTOR


def status_at(driver, offset, type_=Type.IN, queue=0):
    if type_ == Type.IN:
        return driver.request(type_, offset // SECTOR, in_len=BLOCK, queue=queue).status
    return driver.request(type_, offset // SECTOR, bytes(BLOCK), queue=queue).status


class Load:
    """Random I/O over a range in a thread; a status other than the allowed ones is an error.
    Blocks below keep hold data that is verified."""

    def __init__(self, driver, size, rng, allowed=(S_OK,), keep=0):
        self.driver = driver
        self.size = size
        self.rng = rng
        self.allowed = allowed
        self.keep = keep
        self.content = {}
        self.error = None
        self.done = 0
        self.statuses = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _batch(self):
        pending = []
        for i in range(8):
            block = self.rng.randrange(self.size // BLOCK)
            type_ = self.rng.choice((Type.IN, Type.OUT))
            if block < self.keep:
                type_ = Type.IN
            queue = i % len(self.driver.queues)
            request = self.driver.submit(type_, block * 8, bytes(BLOCK) if type_ else b"",
                                         0 if type_ else BLOCK, queue=queue)
            pending.append((block, type_, request))
        for block, type_, request in pending:
            result = self.driver.finish(request)
            assert result.status in self.allowed, f"block {block}: status {result.status}"
            if result.status == S_OK and type_ == Type.IN and block in self.content:
                assert result.data == self.content[block], f"block {block} has other data"
            self.statuses.add(result.status)
            self.done += 1

    def _run(self):
        try:
            for block in range(self.keep):
                self.content[block] = os.urandom(BLOCK)
                self.driver.write(block * 8, self.content[block])
            while not self._stop.is_set():
                self._batch()
        except BaseException as error:  # reported by stop()
            self.error = error

    def wait(self, count):
        target = self.done + count
        wait_until(lambda: self.error or self.done >= target, "load goes on")
        if self.error:
            raise AssertionError("the load failed") from self.error

    def stop(self):
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)
        if self.error:
            raise AssertionError("the load failed") from self.error


@pytest.mark.parametrize("kind", KINDS)
def test_grow_and_shrink(server, make_disk, connect, kind):
    """Capacity, the last block, and the first beyond, on both reactors."""
    disk = make_disk(kind, size=8 * MIB, num_queues=2)
    driver = connect(disk, queues=2)
    for size in (16 * MIB, 4 * MIB, 32 * MIB, MIB):
        resize(server, disk, size)
        assert capacity(driver) == size
        for queue in range(2):
            for type_ in (Type.IN, Type.OUT):
                assert status_at(driver, size - BLOCK, type_, queue) == S_OK
                assert status_at(driver, size, type_, queue) == S_IOERR
    (shown,) = server.rpc("bdev_get_bdevs", name=disk.bdev)
    assert shown["num_blocks"] * shown["block_size"] == MIB


@pytest.mark.parametrize("kind", KINDS)
def test_grow_under_load(server, neighbour, make_disk, connect, rng, kind):
    """No request notices that its disk grows, and what was there stays."""
    disk = make_disk(kind, size=2 * MIB, num_queues=2)
    driver = connect(disk, queues=2)
    load = Load(driver, 2 * MIB, rng, keep=0 if kind == "null" else 64)
    for size in (4, 8, 16, 32, 64):
        load.wait(100)
        resize(server, disk, size * MIB)
    load.wait(100)
    load.stop()
    assert status_at(driver, 64 * MIB - BLOCK) == S_OK
    neighbour.check()


@pytest.mark.parametrize("kind", KINDS)
def test_shrink_under_load(server, neighbour, make_disk, connect, rng, kind):
    """I/O all over a disk that shrinks and grows: it ends, well or with an error; what lies below
    the smallest size is never harmed."""
    disk = make_disk(kind, size=16 * MIB, num_queues=2)
    driver = connect(disk, queues=2)
    load = Load(driver, 16 * MIB, rng, (S_OK, S_IOERR), keep=0 if kind == "null" else 64)
    for size in (8, 2, 16, 1, 16, 4, 16):
        load.wait(60)
        resize(server, disk, size * MIB)
    load.wait(60)
    load.stop()
    assert load.statuses == {S_OK, S_IOERR}
    neighbour.check()


@pytest.mark.parametrize("kind", ["malloc", "uring"])
def test_what_was_cut_off_is_gone(server, make_disk, connect, kind):
    disk = make_disk(kind, size=4 * MIB)
    driver = connect(disk)
    data = os.urandom(BLOCK)
    for offset in (0, MIB - BLOCK, MIB, 4 * MIB - BLOCK):
        driver.write(offset // SECTOR, data)
    for size in (MIB, 4 * MIB):
        assert server.rpc("sluice_bdev_resize", name=disk.bdev, size=size)
        if disk.file:
            assert disk.file.stat().st_size == size
    for offset in (0, MIB - BLOCK):
        assert driver.read(offset // SECTOR, BLOCK) == data
    for offset in (MIB, 4 * MIB - BLOCK):
        assert driver.read(offset // SECTOR, BLOCK) == bytes(BLOCK)


def test_aio_rescan(server, make_disk, connect, tmp_path):
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MIB))
    server.rpc("bdev_aio_create", name="aio0", filename=str(image), block_size=512)
    server.create_controller("aio-ctrlr", "aio0")
    try:
        os.truncate(image, 2 * MIB)
        assert server.rpc("bdev_aio_rescan", name="aio0") is True
        assert server.rpc("bdev_aio_rescan", name="aio0") is True  # nothing new
        (shown,) = server.rpc("bdev_get_bdevs", name="aio0")
        assert shown["num_blocks"] == 2 * MIB // 512
        for size in (0, 100, MIB + 100):
            os.truncate(image, size)
            with pytest.raises(RpcError, match="whole number of blocks"):
                server.rpc("bdev_aio_rescan", name="aio0")
    finally:
        server.delete_controller("aio-ctrlr")
        server.delete_bdev("aio0", "aio")


# -- the backend channel -------------------------------------------------------------------------


def without(*features):
    return DEFAULT_PROTOCOL_FEATURES & ~bits(*features)


def answer(channel, value=0):
    channel.send(BackendRequest.CONFIG_CHANGE_MSG, U64.pack(value), flags=VERSION | REPLY)


def expect_change(channel, flags):
    message = channel.recv()
    assert message.request == BackendRequest.CONFIG_CHANGE_MSG
    assert message.flags == flags and message.payload == b"" and message.fds == []


def expect_silence(channel, driver):
    """Whatever was to come has come by the time another message is answered."""
    driver.conn.get_features()
    assert not select.select([channel.sock], [], [], 0)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_change_is_told(server, make_disk, connect, kind):
    """With REPLY_ACK: one request at a time, and one more for whatever came meanwhile."""
    disk = make_disk(kind, size=4 * MIB)
    driver = connect(disk)
    channel = driver.conn.open_backend_channel()
    resize(server, disk, 8 * MIB)
    expect_change(channel, VERSION | NEED_REPLY)
    assert capacity(driver) == 8 * MIB
    resize(server, disk, 16 * MIB)
    resize(server, disk, 2 * MIB)
    expect_silence(channel, driver)
    answer(channel)
    expect_change(channel, VERSION | NEED_REPLY)
    assert capacity(driver) == 2 * MIB
    answer(channel, 1)  # it could not make use of it: its own affair
    resize(server, disk, 4 * MIB)
    expect_change(channel, VERSION | NEED_REPLY)
    answer(channel)
    resize(server, disk, 4 * MIB)  # no change, nothing to tell
    expect_silence(channel, driver)
    assert status_at(driver, 4 * MIB - BLOCK) == S_OK
    channel.close()


def test_change_is_told_without_acks(server, make_disk, connect):
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk, protocol_features=without(ProtocolFeature.REPLY_ACK))
    channel = driver.conn.open_backend_channel()
    for size in range(1, 21):
        resize(server, disk, (size + 4) * MIB)
        expect_change(channel, VERSION)
        assert capacity(driver) == (size + 4) * MIB
    expect_silence(channel, driver)
    channel.close()


@pytest.mark.parametrize("feature", [ProtocolFeature.BACKEND_REQ, ProtocolFeature.CONFIG])
def test_not_told_without(server, make_disk, connect, feature):
    """A front-end that did not ask for it gets no request of ours."""
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk, protocol_features=without(feature))
    channel = driver.conn.open_backend_channel()
    resize(server, disk, 8 * MIB)
    expect_silence(channel, driver)
    assert status_at(driver, 8 * MIB - BLOCK) == S_OK
    channel.close()


def test_answer_in_pieces(server, make_disk, connect):
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk)
    channel = driver.conn.open_backend_channel()
    for size in (8, 16):
        resize(server, disk, size * MIB)
        expect_change(channel, VERSION | NEED_REPLY)
        reply = HEADER.pack(BackendRequest.CONFIG_CHANGE_MSG, VERSION | REPLY, 8) + U64.pack(0)
        for i in range(len(reply)):
            channel.send_raw(reply[i:i + 1])
            driver.conn.get_features()
    resize(server, disk, 32 * MIB)
    expect_change(channel, VERSION | NEED_REPLY)
    channel.close()


@pytest.mark.parametrize("acks", [True, False])
def test_front_end_that_never_reads(server, neighbour, make_disk, connect, acks):
    """Its socket fills up, and that is all: resizes go on, nothing grows without bound, and once
    it reads it learns that there was a change."""
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk, protocol_features=without(
        *([] if acks else [ProtocolFeature.REPLY_ACK])))
    channel = driver.conn.open_backend_channel()
    channel.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    memory = server.rss_anon()
    for i in range(1500):
        resize(server, disk, (4 + i % 2) * MIB)
    resize(server, disk, 64 * MIB)
    assert server.is_sanitized() or server.rss_anon() - memory < 4 * MIB
    driver.read(64 * MIB // SECTOR - 8, BLOCK)
    neighbour.check()
    count = 0
    channel.sock.settimeout(1)
    try:
        while True:
            expect_change(channel, VERSION | (NEED_REPLY if acks else 0))
            count += 1
            if acks:
                answer(channel)
    except AssertionError as error:  # Timeout: no more
        assert "no message" in str(error)
    assert count == 2 if acks else 1 < count <= 1501
    assert capacity(driver) == 64 * MIB
    resize(server, disk, 4 * MIB)
    channel.sock.settimeout(TIMEOUT_S)
    expect_change(channel, VERSION | (NEED_REPLY if acks else 0))
    channel.close()


@pytest.mark.parametrize("nonsense", [
    HEADER.pack(BackendRequest.CONFIG_CHANGE_MSG, VERSION | REPLY, 8) + U64.pack(0),  # unasked
    b"x", bytes(4096), os.urandom(4096)], ids=["unasked", "byte", "zeroes", "noise"])
def test_nonsense_closes_the_channel_alone(server, make_disk, connect, nonsense):
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk)
    channel = driver.conn.open_backend_channel()
    channel.send_raw(nonsense)
    channel.wait_closed()
    resize(server, disk, 8 * MIB)
    assert status_at(driver, 8 * MIB - BLOCK) == S_OK
    channel = driver.conn.open_backend_channel()
    resize(server, disk, 4 * MIB)
    expect_change(channel, VERSION | NEED_REPLY)
    channel.close()


@pytest.mark.parametrize("header", [
    (BackendRequest.CONFIG_CHANGE_MSG, VERSION, 8), (BackendRequest.VRING_CALL, VERSION | REPLY, 8),
    (BackendRequest.CONFIG_CHANGE_MSG, REPLY, 8),
    (BackendRequest.CONFIG_CHANGE_MSG, VERSION | REPLY, 0xffffffff)])
def test_wrong_answer_closes_the_channel_alone(server, make_disk, connect, header):
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk)
    channel = driver.conn.open_backend_channel()
    resize(server, disk, 8 * MIB)
    expect_change(channel, VERSION | NEED_REPLY)
    channel.send_raw(HEADER.pack(*header) + bytes(8))
    channel.wait_closed()
    assert status_at(driver, 8 * MIB - BLOCK) == S_OK
    channel.close()


def test_front_end_clears_nonblock(server, neighbour, make_disk, connect):
    """The open file of our end is shared with the front-end, which makes it blocking and full."""
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk, protocol_features=without(ProtocolFeature.REPLY_ACK))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    driver.conn.send(21, fds=[theirs.fileno()])  # SET_BACKEND_REQ_FD
    driver.conn.get_features()
    theirs.setblocking(False)
    try:
        while True:
            theirs.send(bytes(65536))
    except BlockingIOError:
        pass
    theirs.setblocking(True)
    for size in (8, 16, 32):
        resize(server, disk, size * MIB)
    assert status_at(driver, 32 * MIB - BLOCK) == S_OK
    neighbour.check()
    ours.close()
    theirs.close()


def test_channel_closed_by_the_front_end(server, make_disk, connect):
    disk = make_disk("null", size=4 * MIB)
    driver = connect(disk)
    for size in (8, 16):
        driver.conn.open_backend_channel().close()
        resize(server, disk, size * MIB)
        assert status_at(driver, size * MIB - BLOCK) == S_OK


def test_disconnect_while_resizing(server, make_disk, connect, rng):
    """Sessions come and go, with their channels and queues, while the size changes."""
    disk = make_disk("malloc", size=4 * MIB, num_queues=2)
    for i in range(20):
        driver = connect(disk, queues=2)
        channel = driver.conn.open_backend_channel()
        for n in range(8):
            driver.submit(Type.OUT, rng.randrange(512) * 8, bytes(BLOCK), queue=n % 2)
        if i % 2:
            driver.close()
            channel.close()
        resize(server, disk, (4 + i % 3 * 4) * MIB)
        if not i % 2:
            driver.close()
            channel.close()


# -- methods and configuration ---------------------------------------------------------------------


def test_refused(server, make_disk):
    null, memory = make_disk("null"), make_disk("malloc")
    for method, params, words in (
            ("bdev_null_resize", {"name": "nobody", "new_size": 1}, "nobody"),
            ("bdev_null_resize", {"name": memory.bdev, "new_size": 1}, "another kind"),
            ("bdev_null_resize", {"name": null.bdev, "new_size": 0}, "new_size"),
            ("bdev_null_resize", {"name": null.bdev}, "new_size"),
            ("bdev_uring_rescan", {"name": null.bdev}, "another kind"),
            ("bdev_aio_rescan", {"name": null.bdev}, "another kind"),
            ("sluice_bdev_resize", {"name": null.bdev}, "required"),
            ("sluice_bdev_resize", {"name": null.bdev, "size": 1000}, "multiple"),
            ("sluice_bdev_resize", {"name": null.bdev, "rescan": True}, "no file"),
            ("sluice_bdev_resize", {"name": null.bdev, "rescan": True, "size": 512}, "together"),
            ("sluice_bdev_resize", {"name": memory.bdev, "size": 2**63 - 512}, "cannot have")):
        with pytest.raises(RpcError) as caught:
            server.rpc(method, **params)
        assert words in caught.value.message
    for disk in (null, memory):
        (shown,) = server.rpc("bdev_get_bdevs", name=disk.bdev)
        assert shown["num_blocks"] == disk.num_blocks


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_size_after_restart(tmp_path, end):
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MIB))
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_null_create", name="n", num_blocks=8)
        daemon.rpc("bdev_malloc_create", name="m", num_blocks=8)
        daemon.rpc("bdev_uring_create", name="f", filename=str(image))
        daemon.rpc("bdev_null_resize", name="n", new_size=3)
        assert daemon.cli("bdev", "resize", "m", "5M").returncode == 0
        assert daemon.cli("bdev", "resize", "f", "7M").returncode == 0
        os.truncate(image, 9 * MIB)
        assert daemon.cli("bdev", "resize", "f", "--rescan").returncode == 0
        assert daemon.cli("bdev", "resize", "f").returncode != 0
        getattr(daemon, end)()
        daemon.start()
        sizes = {b["name"]: b["num_blocks"] * b["block_size"] for b in daemon.rpc("bdev_get_bdevs")}
        assert sizes == {"n": 3 * MIB, "m": 5 * MIB, "f": 9 * MIB}


def test_save_that_fails_changes_nothing(tmp_path):
    image = tmp_path / "a.img"
    image.write_bytes(bytes(MIB))
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_malloc_create", name="m", num_blocks=8)
        daemon.rpc("bdev_uring_create", name="f", filename=str(image))
        before, config = daemon.rpc("bdev_get_bdevs"), daemon.rpc("save_config")
        blocker = daemon.config_path.with_name(daemon.config_path.name + ".new")
        blocker.mkdir()
        for name in ("m", "f"):
            for size in (MIB // 2, 64 * MIB):
                with pytest.raises(Exception, match="could not be saved"):
                    daemon.rpc("sluice_bdev_resize", name=name, size=size)
        assert daemon.rpc("bdev_get_bdevs") == before
        assert daemon.rpc("save_config") == config
        assert image.stat().st_size == MIB
        blocker.rmdir()
        assert daemon.rpc("sluice_bdev_resize", name="m", size=64 * MIB) is True
