# SPDX-License-Identifier: Apache-2.0
"""Files whose open() or close() hangs, as on a dead network mount: everything else goes on."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from control_daemon import Daemon, RpcError

EBUSY, ENODEV, ECANCELED, ESHUTDOWN, ENOENT = -16, -19, -125, -108, -2


@pytest.fixture(scope="module")
def stall_library(tmp_path_factory):
    library = tmp_path_factory.mktemp("stall") / "stall.so"
    source = pathlib.Path(__file__).with_name("stall.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


class Gate:
    """While it is closed, files called *.slow hang."""

    def __init__(self, path):
        self.path = path

    def close(self):
        self.path.touch()

    def open(self):
        self.path.unlink(missing_ok=True)


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def slow(tmp_path):
    path = tmp_path / "disk.slow"
    path.write_bytes(bytes(1 << 20))
    return path


def environment(stall_library, gate):
    asan = os.environ.get("ASAN_OPTIONS", "")
    return dict(os.environ, LD_PRELOAD=str(stall_library), STALL_WHILE=str(gate.path),
                ASAN_OPTIONS=f"{asan}:verify_asan_link_order=0")


@pytest.fixture
def daemon(tmp_path, stall_library, gate):
    with Daemon(tmp_path, env=environment(stall_library, gate)) as running:
        yield running
        gate.open()


def begin(client, method, **params):
    """Sends a request and does not wait for its answer."""
    client.send_raw(json.dumps(client.request(method, params)))


def names(daemon):
    return [b["name"] for b in daemon.rpc("bdev_get_bdevs")]


def wait_until(condition, what, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.01)


def is_opening(daemon, name):
    """True once a second creation of that name is refused."""
    try:
        daemon.rpc("bdev_uring_create", name=name, filename="/nowhere")
    except RpcError as error:
        return error.code == EBUSY and "being created" in error.message
    return False


def test_others_are_served_meanwhile(daemon, gate, slow):
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow))
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
        # Reading, changing, saving, and other files.
        assert names(daemon) == []
        assert daemon.rpc("bdev_null_create", name="n0", num_blocks=8) == "n0"
        quick = slow.with_name("quick.img")
        quick.write_bytes(bytes(1 << 20))
        assert daemon.rpc("bdev_uring_create", name="q0", filename=str(quick)) == "q0"
        assert daemon.rpc("vhost_create_blk_controller", ctrlr="v0", dev_name="q0") is True
        assert daemon.rpc("vhost_delete_controller", ctrlr="v0") is True
        with pytest.raises(RpcError) as caught:
            daemon.rpc("vhost_create_blk_controller", ctrlr="v1", dev_name="slow0")
        assert caught.value.code == ENODEV
        assert names(daemon) == ["n0", "q0"]
        gate.open()
        assert client.receive()["result"] == "slow0"
    assert names(daemon) == ["n0", "q0", "slow0"]
    assert [e["params"]["name"] for e in daemon.config()["subsystems"][0]["config"]] == [
        "n0", "q0", "slow0"]


def test_many_at_a_time(daemon, gate, tmp_path):
    """More than there are workers at first."""
    gate.close()
    clients = [daemon.client() for _ in range(20)]
    for i, client in enumerate(clients):
        path = tmp_path / f"{i}.slow"
        path.write_bytes(bytes(1 << 20))
        begin(client, "bdev_aio_create", name=f"s{i}", filename=str(path))
    for i in range(20):
        wait_until(lambda i=i: is_opening(daemon, f"s{i}"), "opening")
    assert daemon.rpc("bdev_null_create", name="n0", num_blocks=8) == "n0"
    gate.open()
    assert sorted(c.receive()["result"] for c in clients) == sorted(f"s{i}" for i in range(20))
    for client in clients:
        client.close()
    assert len(names(daemon)) == 21


def test_failure_comes_late(daemon, gate, slow):
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow))
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
        slow.unlink()
        gate.open()
        assert client.receive()["error"]["code"] == ENOENT
    # The name is free again.
    assert daemon.rpc("bdev_null_create", name="slow0", num_blocks=8) == "slow0"


def test_the_uuid_is_taken_meanwhile(daemon, gate, slow):
    uuid = "f3a9f7a4-4b5b-4d1c-8a8c-3d5e1a2b3c4d"
    fds = daemon.fd_count_at_rest()
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow), uuid=uuid)
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
        daemon.rpc("bdev_null_create", name="n0", num_blocks=8, uuid=uuid)
        gate.open()
        assert client.receive()["error"]["code"] == -17
    assert names(daemon) == ["n0"]
    assert daemon.fd_count_settles_at(fds) == fds
    assert daemon.rpc("bdev_uring_create", name="slow0", filename=str(slow)) == "slow0"


def test_client_goes_away(daemon, gate, slow):
    """What it asked for is done all the same."""
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow))
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
    gate.open()
    wait_until(lambda: names(daemon) == ["slow0"], "the disk")


def test_delete_gives_up(daemon, gate, slow):
    fds = daemon.fd_count_at_rest()
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow))
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
        assert daemon.rpc("bdev_uring_delete", name="slow0") is True
        assert client.receive()["error"]["code"] == ECANCELED
    with pytest.raises(RpcError) as caught:
        daemon.rpc("bdev_uring_delete", name="slow0")
    assert caught.value.code == ENODEV
    gate.open()
    assert daemon.fd_count_settles_at(fds) == fds
    assert names(daemon) == []

    def works():
        try:
            return daemon.rpc("bdev_uring_create", name="slow0", filename=str(slow)) == "slow0"
        except RpcError as error:
            return error.code != EBUSY  # locked until the one given up is closed
    wait_until(works, "the file")
    assert names(daemon) == ["slow0"]


def test_slow_close(daemon, gate, slow):
    daemon.rpc("bdev_uring_create", name="slow0", filename=str(slow))
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_delete", name="slow0")
        wait_until(lambda: names(daemon) == [], "unregistered")
        assert daemon.rpc("bdev_null_create", name="slow0", num_blocks=8) == "slow0"
        gate.open()
        assert client.receive()["result"] is True
    assert daemon.rpc("bdev_uring_create", name="slow1", filename=str(slow)) == "slow1"


@pytest.mark.parametrize("opens_in_time", [True, False])
def test_stop_meanwhile(tmp_path, stall_library, gate, slow, opens_in_time):
    daemon = Daemon(tmp_path, env=environment(stall_library, gate)).start()
    gate.close()
    with daemon.client() as client:
        begin(client, "bdev_uring_create", name="slow0", filename=str(slow))
        wait_until(lambda: is_opening(daemon, "slow0"), "opening")
        daemon.process.send_signal(signal.SIGTERM)
        assert client.receive()["error"]["code"] == ESHUTDOWN
        if opens_in_time:
            gate.open()
        assert daemon.process.wait(20) == 0
    assert ("ending without it" in daemon.log()) is not opens_in_time


def test_slow_file_at_start(tmp_path, stall_library, gate, slow):
    """The others are served; it follows, with its controller, when it can."""
    daemon = Daemon(tmp_path, env=environment(stall_library, gate))
    with daemon:
        daemon.rpc("bdev_uring_create", name="slow0", filename=str(slow))
        daemon.rpc("bdev_null_create", name="n0", num_blocks=8)
        for name, bdev in (("v0", "slow0"), ("v1", "n0")):
            daemon.rpc("vhost_create_blk_controller", ctrlr=name, dev_name=bdev)
        config = daemon.config()
        daemon.stop()
        gate.close()
        daemon.start()
        assert names(daemon) == ["n0"]
        assert [c["ctrlr"] for c in daemon.rpc("vhost_get_controllers")] == ["v1"]
        failed = {f["name"]: f["error"] for f in daemon.rpc("sluice_get_status")["failed_entries"]}
        assert failed.keys() == {"slow0", "v0"} and "being opened" in failed["slow0"]
        # Nothing is lost by saving now.
        daemon.rpc("bdev_null_create", name="n1", num_blocks=8)
        daemon.rpc("bdev_null_delete", name="n1")

        def entries(text):
            return sorted(json.dumps(e, sort_keys=True)
                          for s in text["subsystems"] for e in s["config"])
        assert entries(daemon.config()) == entries(config)
        gate.open()
        wait_until(lambda: len(daemon.rpc("vhost_get_controllers")) == 2, "both controllers")
        assert daemon.rpc("sluice_get_status")["failed_entries"] == []
        wait_until(lambda: entries(daemon.config()) == entries(config), "saved")


def test_slow_file_at_start_is_deleted(tmp_path, stall_library, gate, slow):
    daemon = Daemon(tmp_path, env=environment(stall_library, gate))
    with daemon:
        daemon.rpc("bdev_uring_create", name="slow0", filename=str(slow))
        daemon.stop()
        gate.close()
        daemon.start()
        assert daemon.rpc("bdev_uring_delete", name="slow0") is True
        assert daemon.rpc("sluice_get_status")["failed_entries"] == []
        assert daemon.config()["subsystems"][0]["config"] == []
        gate.open()
        time.sleep(0.2)
        assert names(daemon) == []


def test_slow_file_in_load_config(daemon, gate, slow):
    config = {"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_uring_create", "params": {"name": "slow0", "filename": str(slow)}},
        {"method": "bdev_null_create", "params": {"name": "n0", "num_blocks": 8}}]}]}
    gate.close()
    with daemon.client(timeout=60) as client:
        with pytest.raises(RpcError) as caught:
            client.call("load_config", config)
        assert caught.value.code == ECANCELED and "slow0" in caught.value.message
    assert names(daemon) == ["n0"]


def test_slow_image(tmp_path, stall_library, gate, slow):
    gate.close()
    daemon = Daemon(tmp_path, images=[slow], env=environment(stall_library, gate))
    daemon.spawn()
    time.sleep(0.3)
    gate.open()
    wait_until(lambda: pathlib.Path(f"{slow}.sock").is_socket(), "the socket")
    assert daemon.stop() == 0
