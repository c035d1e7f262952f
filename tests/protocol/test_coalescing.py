# SPDX-License-Identifier: Apache-2.0
"""Calls held back: never lost, never for a lone request, settings checked and durable."""

import time

import pytest

from blk import S_OK, Type
from control_daemon import Daemon
from daemon import MIB, RpcError, start_server, wait_until

POLL_MODES = ("adaptive", "always", "never")
SETTINGS = ({"delay_base_us": 0, "iops_threshold": 1, "adaptive": True},
            {"delay_base_us": 0, "iops_threshold": 1},
            {"delay_base_us": 1000, "iops_threshold": 1},
            {"delay_base_us": 100, "iops_threshold": 2000})


@pytest.fixture(scope="module", params=POLL_MODES)
def server(request):
    server = start_server(cores="0,1", poll=request.param)
    try:
        yield server
    except BaseException:
        server.destroy()
        raise
    server.stop()


def queue_of(server, disk):
    (session,) = server.rpc("vhost_get_controllers", name=disk.name)[0]["sessions"]
    return session["queues"][0]


def random_request(driver, rng):
    sector = 8 * rng.randrange(128)
    if rng.random() < 0.5:
        return driver.submit(Type.IN, sector, in_len=4096)
    return driver.submit(Type.OUT, sector, out=bytes(4096))


@pytest.mark.parametrize("kind", ["null", "malloc", "uring"])
@pytest.mark.parametrize("event_idx", [False, True])
def test_no_call_is_lost(server, make_disk, connect, rng, kind, event_idx):
    """A front-end that sleeps on its call fd alone, with random pauses and depths, while settings
    change and the queue moves: a completion without a call fails in Queue.try_wait()."""
    disk = make_disk(kind, size=MIB)
    driver = connect(disk, event_idx=event_idx)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        server.rpc("vhost_controller_set_coalescing", ctrlr=disk.name, **rng.choice(SETTINGS))
        if rng.random() < 0.3:
            server.rpc("sluice_vhost_move_queue", ctrlr=disk.name, queue=0, cpu=rng.randrange(2))
        for _ in range(10):
            pending = []
            for _ in range(rng.choice((1, 1, 2, 8, 24))):
                pending.append(random_request(driver, rng))
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.0005)
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.001)
            for request in pending:
                assert driver.finish(request).status == S_OK


def test_fixed_holds_calls_back(server, make_disk, connect):
    """Requests one by one, without waiting: far fewer calls than requests, and the last ones come
    within the delay."""
    disk = make_disk("null", size=MIB)
    driver = connect(disk)

    def burst(count):
        """Many small batches in a row; calls for each request."""
        before = queue_of(server, disk)
        pending = []
        for _ in range(count):
            pending.append(driver.submit(Type.IN, 0, in_len=512))
            time.sleep(0.00002)
            if len(pending) == 20:
                for request in pending:
                    assert driver.finish(request).status == S_OK
                pending = []
        for request in pending:
            assert driver.finish(request).status == S_OK
        after = queue_of(server, disk)
        return {key: after[key] - before[key]
                for key in ("requests", "calls", "calls_coalesced")}

    server.rpc("vhost_controller_set_coalescing", ctrlr=disk.name, delay_base_us=0,
               iops_threshold=1)
    plain = burst(1000)
    assert plain["calls_coalesced"] == 0
    server.rpc("vhost_controller_set_coalescing", ctrlr=disk.name, delay_base_us=2000,
               iops_threshold=100)
    burst(1000)
    held = burst(1000)
    assert held["requests"] == plain["requests"] == 1000
    if server.poll != "always":
        return  # where the poller rests between requests, nothing is held
    assert held["calls_coalesced"] > 0
    assert held["calls"] < plain["calls"]


def test_depth_1_is_called_at_once(server, make_disk, connect):
    """One request at a time: a call each, none held, by default."""
    disk = make_disk("malloc", size=MIB)
    driver = connect(disk)
    before = queue_of(server, disk)
    for i in range(300):
        driver.read(8 * (i % 64), 4096)
    # The call is counted after it was sent.
    wait_until(lambda: queue_of(server, disk)["calls"] - before["calls"] == 300, "300 calls")
    assert queue_of(server, disk)["calls_coalesced"] == before["calls_coalesced"]


def test_held_call_goes_with_the_queue(server, make_disk, connect):
    """Stopping a ring, or moving it, sends what is held: with a delay of a second nobody waits."""
    disk = make_disk("null", size=MIB)
    driver = connect(disk)
    server.rpc("vhost_controller_set_coalescing", ctrlr=disk.name, delay_base_us=1_000_000,
               iops_threshold=1)
    for i in range(10):
        started = time.monotonic()
        pending = [driver.submit(Type.IN, 0, in_len=512) for _ in range(8)]
        if i % 2:
            driver.restart_queue(0, driver.stop_queue(0))
        else:
            server.rpc("sluice_vhost_move_queue", ctrlr=disk.name, queue=0, cpu=i // 2 % 2)
        for request in pending:
            assert driver.finish(request).status == S_OK
        assert time.monotonic() - started < 0.9


def test_bad_settings(server, make_disk):
    disk = make_disk("null", size=MIB)
    for params, why in (
            ({}, "delay_base_us"), ({"delay_base_us": 1}, "iops_threshold"),
            ({"delay_base_us": -1, "iops_threshold": 100}, "delay_base_us: must be"),
            ({"delay_base_us": 1_000_001, "iops_threshold": 100}, "delay_base_us: must be"),
            ({"delay_base_us": 1, "iops_threshold": -1}, "iops_threshold: must be"),
            ({"delay_base_us": 1, "iops_threshold": 0}, "iops_threshold: must be")):
        with pytest.raises(RpcError, match=why):
            server.rpc("vhost_controller_set_coalescing", ctrlr=disk.name, **params)
    with pytest.raises(RpcError, match="no controller"):
        server.rpc("vhost_controller_set_coalescing", ctrlr="nobody", delay_base_us=1,
                   iops_threshold=100)
    (controller,) = server.rpc("vhost_get_controllers", name=disk.name)
    assert controller["coalescing"] == "adaptive"
    assert controller["delay_base_us"] == controller["iops_threshold"] == 0


def test_durable(tmp_path):
    def shown(daemon):
        return {c["ctrlr"]: (c["coalescing"], c["delay_base_us"], c["iops_threshold"])
                for c in daemon.rpc("vhost_get_controllers")}

    daemon = Daemon(tmp_path).start()
    for name in "abcd":
        daemon.rpc("bdev_null_create", name=f"{name}0", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr=name, dev_name=f"{name}0")
    daemon.rpc("vhost_controller_set_coalescing", ctrlr="a", delay_base_us=50,
               iops_threshold=60000)
    daemon.rpc("vhost_controller_set_coalescing", ctrlr="b", delay_base_us=0, iops_threshold=100)
    daemon.rpc("vhost_controller_set_coalescing", ctrlr="c", delay_base_us=7, iops_threshold=100)
    daemon.rpc("vhost_controller_set_coalescing", ctrlr="c", delay_base_us=0, iops_threshold=1,
               adaptive=True)
    expected = {"a": ("fixed", 50, 60000), "b": ("none", 0, 100), "c": ("adaptive", 0, 0),
                "d": ("adaptive", 0, 0)}
    assert shown(daemon) == expected
    daemon.kill()
    daemon.start()
    assert shown(daemon) == expected
    assert daemon.stop() == 0
