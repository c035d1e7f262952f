# SPDX-License-Identifier: Apache-2.0
"""Bdevs that are deleted under the controllers that serve them, as SPDK's users do: the guest's I/O
fails, nobody else notices, and nothing is left behind."""

import os

import pytest

from blk import CONFIG, S_IOERR, S_OK, Config, Type, ranges
from control_daemon import Daemon, RpcError
from daemon import MIB, wait_until
from test_resize import BLOCK, KINDS, Load

SERVER_OPTIONS = {"cores": "0,1"}


def remove(server, disk):
    assert server.rpc(f"bdev_{disk.kind}_delete", name=disk.bdev) is True
    disk.bdev_gone = True


def block_of(server, disk):
    (shown,) = server.rpc("vhost_get_controllers", name=disk.name)
    return shown["backend_specific"]["block"]


def every_type_fails(driver, queue=0):
    for type_, out, in_len in (
            (Type.IN, b"", BLOCK), (Type.OUT, bytes(BLOCK), 0), (Type.FLUSH, b"", 0),
            (Type.DISCARD, ranges((0, 8)), 0), (Type.WRITE_ZEROES, ranges((0, 8)), 0)):
        assert driver.request(type_, out=out, in_len=in_len, queue=queue).status == S_IOERR
    assert len(driver.get_id(queue=queue)) == 20  # the controller's, not the bdev's


@pytest.mark.parametrize("kind", KINDS)
def test_remove_idle(server, make_disk, connect, kind):
    disk = make_disk(kind, num_queues=2)
    driver = connect(disk, queues=2)
    assert block_of(server, disk)["bdev"] == disk.bdev
    remove(server, disk)
    assert block_of(server, disk)["bdev"] is None
    assert disk.bdev not in [b["name"] for b in server.rpc("bdev_get_bdevs")]
    for queue in range(2):
        every_type_fails(driver, queue)
    assert Config.unpack(driver.conn.get_config(CONFIG.size)).capacity == 0


@pytest.mark.parametrize("kind", KINDS)
def test_remove_under_load(server, neighbour, make_disk, connect, rng, kind):
    """Load on both reactors before, while, and after; a second disk beside it is verified."""
    other = make_disk("malloc", size=4 * MIB, num_queues=2)
    beside = Load(connect(other, queues=2), 4 * MIB, rng, keep=64)
    for _ in range(3):
        disk = make_disk(kind, size=16 * MIB, num_queues=2)
        driver = connect(disk, queues=2)
        load = Load(driver, 16 * MIB, rng, (S_OK, S_IOERR))
        load.wait(100)
        remove(server, disk)
        load.statuses.clear()
        load.wait(100)
        load.stop()
        assert S_IOERR in load.statuses
        every_type_fails(driver)
        neighbour.check()
    beside.wait(50)
    beside.stop()


@pytest.mark.parametrize("kind", ["malloc", "uring"])
def test_long_requests_in_flight(server, make_disk, connect, kind):
    """What is under way when the disk goes ends, well or badly, and then the reply comes."""
    for _ in range(5):
        disk = make_disk(kind, size=32 * MIB)
        driver = connect(disk, queue_size=256)
        pending = [driver.submit(Type.OUT, i * 2048, os.urandom(1 << 18), notify=False)
                   for i in range(30)]
        driver.queues[0].kick()
        remove(server, disk)
        for request in pending:
            assert driver.finish(request).status in (S_OK, S_IOERR)
        every_type_fails(driver)


def test_sessions_after_removal(server, make_disk, connect):
    """A front-end that connects, or starts its rings, when the disk is gone meets a disk without
    blocks; queues stop and start; sessions end."""
    disk = make_disk("malloc", num_queues=2)
    idle = connect(disk, start_up=False)
    running = connect(disk, queues=2)
    remove(server, disk)
    for driver in (idle.start_up(), connect(disk, queues=2)):
        assert driver.config.capacity == 0
        assert driver.config.blk_size == 512
        every_type_fails(driver)
    base = running.stop_queue(1)
    running.restart_queue(1, base)
    every_type_fails(running, 1)
    running.close()
    every_type_fails(connect(disk))


def test_file_is_free_again(server, make_disk, connect):
    """The lock on the file goes with the bdev; another may have it, under the old name."""
    disk = make_disk("uring", size=4 * MIB)
    driver = connect(disk)
    data = os.urandom(BLOCK)
    driver.write(0, data)
    remove(server, disk)
    every_type_fails(driver)
    server.create_bdev(disk.bdev, "uring", 0, 512, disk.file)
    every_type_fails(driver)  # the old controller does not take to it
    path = server.create_controller("again", disk.bdev)
    try:
        disk2 = type(disk)("again", path, "uring", 512, disk.num_blocks, 1)
        second = connect(disk2)
        assert second.read(0, BLOCK) == data
        second.close()
    finally:
        server.delete_controller("again")
        server.delete_bdev(disk.bdev, "uring")


def test_several_readers(server, make_disk, connect):
    """All controllers of a bdev lose it."""
    disk = make_disk("malloc", readonly=True)
    server.create_controller("reader2", disk.bdev, readonly=True)
    try:
        disk2 = type(disk)("reader2", str(server.run_dir / "reader2"), "malloc", 512, 8, 1, True)
        drivers = [connect(disk), connect(disk2)]
        remove(server, disk)
        for driver in drivers:
            assert driver.request(Type.IN, in_len=BLOCK).status == S_IOERR
            driver.close()
        assert block_of(server, disk2)["bdev"] is None
    finally:
        server.delete_controller("reader2")


def test_controller_deleted_at_the_same_time(server, make_disk, connect, rng):
    """Both ways of taking a disk away at once, by two clients, under load."""
    for i in range(10):
        disk = make_disk(rng.choice(("malloc", "uring")), size=16 * MIB, num_queues=2)
        driver = connect(disk, queues=2, queue_size=64)
        for n in range(10):
            driver.submit(Type.OUT, n * 512, bytes(1 << 17), queue=n % 2)
        clients = [server.connect(server.rpc_path) for _ in range(2)]
        calls = [(f"bdev_{disk.kind}_delete", {"name": disk.bdev}),
                 ("vhost_delete_controller", {"ctrlr": disk.name})]
        for client, (method, params) in zip(clients, calls if i % 2 else reversed(calls)):
            client.sock.sendall(('{"jsonrpc":"2.0","id":1,"method":"%s","params":%s}' % (
                method, str(params).replace("'", '"'))).encode())
        for client in clients:
            assert client.read_object()["result"] is True
            client.close()
        make_disk.disks.remove(disk)
        driver.conn.wait_closed()
        driver.close()


def test_nothing_is_left(server, neighbour, make_disk, connect):
    """Fifty disks come and go, each torn away from its front-end: fds and memory."""
    def once():
        disk = make_disk("malloc", size=4 * MIB)
        driver = connect(disk)
        driver.write(0, bytes(BLOCK))
        remove(server, disk)
        every_type_fails(driver)
        driver.close()
        make_disk.close()
    for _ in range(10):
        once()
    fds, memory = server.fd_count(), server.rss_anon()
    for _ in range(40):
        once()
    wait_until(lambda: server.fd_count() == fds, "fds as before")
    assert server.is_sanitized() or server.rss_anon() - memory < 4 * MIB
    assert server.map_count("sluice-disk") <= 2  # the neighbour's
    neighbour.check()


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_configuration(tmp_path, end):
    """Neither the bdev nor its controllers are saved: what is saved can be carried out."""
    with Daemon(tmp_path) as daemon:
        for name in ("a", "b"):
            daemon.rpc("bdev_null_create", name=name, num_blocks=8)
            daemon.rpc("vhost_create_blk_controller", ctrlr=f"v{name}", dev_name=name)
        assert daemon.rpc("bdev_null_delete", name="a") is True
        saved = daemon.config()
        assert daemon.rpc("save_config") == saved
        assert [[e["params"].get("name") or e["params"]["ctrlr"] for e in s["config"]]
                for s in saved["subsystems"]] == [["b"], ["vb"]]
        # Live, the controller is there until it is deleted.
        assert [c["ctrlr"] for c in daemon.rpc("vhost_get_controllers")] == ["va", "vb"]
        daemon.rpc("bdev_null_create", name="c", num_blocks=8)
        assert daemon.rpc("save_config") == daemon.config()
        getattr(daemon, end)()
        daemon.start()
        assert daemon.rpc("sluice_get_status")["failed_entries"] == []
        assert [c["ctrlr"] for c in daemon.rpc("vhost_get_controllers")] == ["vb"]
        # Deleting the controller afterwards is an ordinary deletion.
        daemon.rpc("bdev_null_delete", name="b")
        assert daemon.rpc("vhost_delete_controller", ctrlr="vb") is True
        assert daemon.rpc("vhost_get_controllers") == []


def test_save_that_fails_removes_nothing(tmp_path):
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_null_create", name="a", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="va", dev_name="a")
        config = daemon.rpc("save_config")
        blocker = daemon.config_path.with_name(daemon.config_path.name + ".new")
        blocker.mkdir()
        with pytest.raises(RpcError, match="could not be saved"):
            daemon.rpc("bdev_null_delete", name="a")
        assert daemon.rpc("save_config") == config
        blocker.rmdir()
        assert daemon.rpc("bdev_null_delete", name="a") is True


def test_by_hand_only_by_force(tmp_path):
    """The verb for people refuses what the method for tools does."""
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_null_create", name="a", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="va", dev_name="a")
        refused = daemon.cli("bdev", "delete", "a")
        assert refused.returncode != 0 and "in use by va" in refused.stderr
        assert daemon.cli("bdev", "delete", "a", "--force").returncode == 0
        assert daemon.rpc("bdev_get_bdevs") == []


def test_stop_with_orphans(tmp_path):
    """A daemon whose controllers have lost their bdevs ends cleanly."""
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_malloc_create", name="a", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="va", dev_name="a")
        daemon.rpc("bdev_malloc_delete", name="a")
