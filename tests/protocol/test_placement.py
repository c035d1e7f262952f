# SPDX-License-Identifier: Apache-2.0
"""Which reactor serves which queue: spreading, moving by hand and by the balancer, cpumask."""

import json
import os
import subprocess
import threading
import time

import pytest

from blk import S_OK, Driver, Type
from daemon import BINARY, MIB, RpcError, wait_until
from guest_memory import GuestMemory, Region

SERVER_OPTIONS = {"cores": "0,1"}
SCALE = float(os.environ.get("SLUICE_TEST_TIMEOUT_SCALE", "1"))


def controller_of(server, disk):
    return server.rpc("vhost_get_controllers", name=disk.name)[0]


def queues_of(server, disk):
    """Of the disk's only session, by index."""
    (session,) = controller_of(server, disk)["sessions"]
    return {queue["index"]: queue for queue in session["queues"]}


def cpus_of(server, disk):
    return [queue["cpu"] for queue in queues_of(server, disk).values()]


def move(server, disk, queue, cpu, **options):
    return server.rpc("sluice_vhost_move_queue", ctrlr=disk.name, queue=queue, cpu=cpu, **options)


class Traffic:
    """Verified I/O of random kinds on all queues of a driver, each on sectors of its own."""

    DEPTH = 6
    SECTORS = 64

    def __init__(self, driver, rng, pause_s=0.0):
        self.driver = driver
        self.rng = rng
        self.pause_s = pause_s
        self.done = 0
        self.error = None
        self.stopping = False
        self.model = {}
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _begin(self, queue, slot):
        sector = (queue * self.DEPTH + slot) * self.SECTORS + 8 * self.rng.randrange(8)
        if sector in self.model and self.rng.random() < 0.5:
            return self.driver.submit(Type.IN, sector, in_len=4096, queue=queue), sector, None
        data = self.rng.randbytes(4096)
        return self.driver.submit(Type.OUT, sector, out=data, queue=queue), sector, data

    def _finish(self, pending, sector, data):
        result = self.driver.finish(pending)
        assert result.status == S_OK
        if data is not None:
            self.model[sector] = data
        else:
            assert result.data == self.model[sector], f"sector {sector}"
        self.done += 1

    def _run(self):
        slots = [(queue, slot) for queue in range(len(self.driver.queues))
                 for slot in range(self.DEPTH)]
        try:
            pending = {}
            while not self.stopping:
                for key in self.rng.sample(slots, len(slots)):
                    if key in pending:
                        self._finish(*pending.pop(key))
                    pending[key] = self._begin(*key)
                    if self.pause_s and self.rng.random() < 0.05:
                        time.sleep(self.rng.random() * self.pause_s)
            for request in pending.values():
                self._finish(*request)
            for sector, data in self.model.items():
                assert self.driver.read(sector, 4096) == data
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def stop(self):
        self.stopping = True
        self.thread.join()
        if self.error:
            raise self.error
        return self.done


@pytest.mark.parametrize("kind, event_idx, pause_s", [
    ("malloc", False, 0.0), ("malloc", True, 0.002), ("uring", True, 0.0), ("uring", False, 0.002)])
def test_200_moves_under_verified_io(server, make_disk, connect, rng, kind, event_idx, pause_s):
    """No request is lost, answered twice or wrong; the queue is where it was sent."""
    disk = make_disk(kind, size=16 * MIB, num_queues=2)
    traffic = Traffic(connect(disk, queues=2, event_idx=event_idx, queue_size=32), rng, pause_s)
    try:
        place = cpus_of(server, disk)
        assert sorted(place) == [0, 1]
        for i in range(200):
            queue = rng.randrange(2)
            place[queue] = 1 - place[queue]
            assert move(server, disk, queue, place[queue]) is True
            if i % 20 == 0:
                assert cpus_of(server, disk) == place
        queues = queues_of(server, disk)
        assert sum(queue["moves"] for queue in queues.values()) == 200
        # The counters of a queue go with it.
        assert sum(queue["requests"] for queue in queues.values()) >= traffic.done
    finally:
        done = traffic.stop()
    assert done > 200
    assert wait_until(lambda: cpus_of(server, disk) == place, "places")


def test_moves_at_full_speed(server, make_disk, tmp_path):
    """The load generator proves every block that it reads, at some hundred thousand a second."""
    disk = make_disk("malloc", size=32 * MIB, num_queues=2)
    command = [BINARY, "bench", f"vhost-blk:{disk.socket}", "--verify", "--rw", "randrw",
               "--queues", "2", "--iodepth", "64", "--size", "16M", "--runtime", str(3 * SCALE),
               "--json", "--sleep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        wait_until(lambda: controller_of(server, disk)["sessions"]
                   and len(queues_of(server, disk)) == 2, "the bench's queues")
        count = 0
        while bench.poll() is None and count < 200:
            try:
                move(server, disk, count % 2, count // 2 % 2)
            except RpcError:
                break
            count += 1
        output, _ = bench.communicate()
    assert bench.returncode == 0, output
    assert count > 50, count
    result = json.loads(output)
    assert result


def test_bad_moves(server, make_disk, connect):
    disk = make_disk(num_queues=4)
    with pytest.raises(RpcError, match="no queue 0"):
        move(server, disk, 0, 0)
    driver = connect(disk, queues=2)
    with pytest.raises(RpcError, match="no reactor runs on CPU 7"):
        move(server, disk, 0, 7)
    with pytest.raises(RpcError, match="no queue 2"):
        move(server, disk, 2, 0)
    with pytest.raises(RpcError, match="no queue 0"):
        move(server, disk, 0, 0, session=1 << 40)
    with pytest.raises(RpcError, match="queue: must be"):
        move(server, disk, 256, 0)
    with pytest.raises(RpcError, match="no controller"):
        server.rpc("sluice_vhost_move_queue", ctrlr="nobody", queue=0, cpu=0)
    second = connect(disk)
    with pytest.raises(RpcError, match="2 sessions"):
        move(server, disk, 0, 0)
    for session in controller_of(server, disk)["sessions"]:
        for cpu in (0, 1, 1):
            assert move(server, disk, 0, cpu, session=session["id"]) is True
    for each in (driver, second):
        each.read(0, 4096)


def test_cpumask_is_honoured(server, connect):
    """At the start of queues, by moves, and when it changes while they run."""
    server.create_bdev("mask-bdev", "malloc", 2048, 512, None)
    path = server.create_controller("mask", "mask-bdev", num_queues=4, cpumask="0x2")
    try:
        with Driver(path, queues=4).start_up() as driver:
            def cpus():
                (session,) = server.rpc("vhost_get_controllers", name="mask")[0]["sessions"]
                return [queue["cpu"] for queue in session["queues"]]
            assert cpus() == [1] * 4
            with pytest.raises(RpcError, match="does not allow CPU 0"):
                server.rpc("sluice_vhost_move_queue", ctrlr="mask", queue=0, cpu=0)
            with pytest.raises(RpcError, match="no reactor"):
                server.rpc("sluice_vhost_set_cpumask", ctrlr="mask", cpumask="0x4")
            for mask, allowed in (("0x1", {0}), ("0x3", {0, 1}), ("0x2", {1}), ("0x1", {0})):
                assert server.rpc("sluice_vhost_set_cpumask", ctrlr="mask", cpumask=mask) is True
                wait_until(lambda: set(cpus()) <= allowed, f"queues within {mask}")
                for queue in range(4):
                    driver.write(8 * queue, os.urandom(4096), queue=queue)
            saved = server.rpc("save_config")
            entries = [entry["params"] for subsystem in saved["subsystems"]
                       for entry in subsystem["config"] if entry["params"].get("ctrlr") == "mask"]
            assert entries[0]["cpumask"] == "0x1"
            # A stop and start does not lead it astray.
            driver.restart_queue(0, driver.stop_queue(0))
            assert cpus() == [0] * 4
    finally:
        server.delete_controller("mask")
        server.delete_bdev("mask-bdev", "malloc")


def test_move_and_messages_at_once(server, make_disk, connect, rng):
    """Messages of the front-end and moves take turns: rings stopped and started, memory tables
    replaced and call fds exchanged while another thread moves the queues."""
    disk = make_disk("malloc", num_queues=2)
    driver = connect(disk, queues=2, queue_size=16)
    stop = threading.Event()
    refused = []

    def mover():
        client = server.connect(server.rpc_path)
        i = 0
        while not stop.is_set():
            i += 1
            try:
                client.call("sluice_vhost_move_queue", ctrlr=disk.name, queue=i % 2,
                            cpu=i // 2 % 2)
            except RpcError as error:
                refused.append(error.message)
        client.close()

    thread = threading.Thread(target=mover)
    thread.start()
    extra = [Region(1 << 40, MIB)]
    try:
        for i in range(150):
            queue = rng.randrange(2)
            data = rng.randbytes(4096)
            driver.write(8 * i, data, queue=queue)
            what = rng.randrange(4)
            if what == 0:
                base = driver.stop_queue(queue)
                assert base == driver.queues[queue].avail_idx
                driver.restart_queue(queue, base)
            elif what == 1:
                driver.conn.set_mem_table([*driver.mem.regions, *extra])
                driver.conn.set_mem_table(driver.mem.regions)
            elif what == 2:
                driver.conn.set_vring_call(queue, driver.queues[queue].call_fd)
            else:
                driver.conn.set_vring_enable(queue, False)
                driver.conn.set_vring_enable(queue, True)
            assert driver.read(8 * i, 4096, queue=queue) == data
    finally:
        stop.set()
        thread.join()
        extra[0].close()
    assert all("not running" in why or "is running" in why or "was stopped" in why
               for why in refused), set(refused)


def test_disconnect_while_moving(server, make_disk, rng):
    """The request for the move is answered, one way or the other, and nothing stays behind."""
    disk = make_disk("uring", num_queues=4)
    ends = set()
    for _ in range(40):
        driver = Driver(disk.socket, queues=4, queue_size=32,
                        memory=GuestMemory([Region(MIB, MIB)])).start_up()
        for queue in range(4):
            for _ in range(rng.randrange(8)):
                driver.submit(Type.OUT, 8 * rng.randrange(64), out=bytes(4096), queue=queue)
        client = server.connect(server.rpc_path)
        for queue in range(4):
            request = {"jsonrpc": "2.0", "id": queue, "method": "sluice_vhost_move_queue",
                       "params": {"ctrlr": disk.name, "queue": queue,
                                  "cpu": rng.randrange(2)}}
            client.sock.sendall(json.dumps(request).encode())
            if queue == 2:
                time.sleep(rng.random() * 0.001)
        driver.close()
        for _ in range(4):
            reply = client.read_object()
            ends.add(reply.get("error", {}).get("code", 0))
        client.close()
        wait_until(lambda: not controller_of(server, disk)["sessions"], "the session's end")
    assert ends <= {0, -2, -125}, ends


def test_delete_while_moving(server, connect, rng):
    for i in range(20):
        server.create_bdev(f"gone{i}-bdev", "malloc", 2048, 512, None)
        path = server.create_controller(f"gone{i}", f"gone{i}-bdev", num_queues=2)
        with Driver(path, queues=2).start_up() as driver:
            for queue in range(2):
                driver.submit(Type.OUT, 8, out=bytes(4096), queue=queue)
            client = server.connect(server.rpc_path)
            for queue in range(2):
                client.sock.sendall(json.dumps(
                    {"jsonrpc": "2.0", "id": queue, "method": "sluice_vhost_move_queue",
                     "params": {"ctrlr": f"gone{i}", "queue": queue,
                                "cpu": 1 - queue}}).encode())
            time.sleep(rng.random() * 0.001)
            server.delete_controller(f"gone{i}")
            for _ in range(2):
                client.read_object()
            client.close()
        server.delete_bdev(f"gone{i}-bdev", "malloc")


def busy_load(disk):
    """Keeps a reactor busy by copying, and hardly anything else."""
    return subprocess.Popen(
        [BINARY, "bench", f"vhost-blk:{disk.socket}", "--rw", "randread", "--bs", "256k",
         "--iodepth", "32", "--runtime", "60", "--sleep"], stdout=subprocess.DEVNULL)


def test_balancer(server, make_disk, connect):
    """Two busy disks on one reactor, an idle one on the other: one of the two moves, once."""
    disks = [make_disk("malloc", size=64 * MIB, prefix=name) for name in ("busy", "idle", "busy")]
    loads = []
    try:
        loads.append(busy_load(disks[0]))
        wait_until(lambda: controller_of(server, disks[0])["sessions"]
                   and cpus_of(server, disks[0]) == [0], "the first load")
        connect(disks[1])
        assert cpus_of(server, disks[1]) == [1]
        server.rpc("sluice_set_rebalance", enabled=False)
        loads.append(busy_load(disks[2]))
        wait_until(lambda: controller_of(server, disks[2])["sessions"]
                   and cpus_of(server, disks[2]) == [0], "the second load")
        before = server.rpc("framework_get_reactors")["rebalance"]
        assert before["enabled"] is False
        time.sleep(2)
        assert server.rpc("framework_get_reactors")["rebalance"]["moves"] == before["moves"]
        server.rpc("sluice_set_rebalance", enabled=True)
        wait_until(lambda: {*cpus_of(server, disks[0]), *cpus_of(server, disks[2])} == {0, 1},
                   "the balancer", 30 * SCALE)
        time.sleep(3)  # and it stays so
        reactors = server.rpc("framework_get_reactors")
        assert reactors["rebalance"]["moves"] == before["moves"] + 1
        assert reactors["rebalance"]["enabled"] is True
        assert {*cpus_of(server, disks[0]), *cpus_of(server, disks[2])} == {0, 1}
        assert cpus_of(server, disks[1]) == [1]
    finally:
        server.rpc("sluice_set_rebalance", enabled=True)
        for load in loads:
            load.terminate()
            load.wait()


def test_balancer_leaves_pinned_queues(server, make_disk):
    """What was placed by hand stays, however hot its reactor is."""
    disks = [make_disk("malloc", size=64 * MIB, prefix="pinned") for _ in range(2)]
    loads = [busy_load(disk) for disk in disks]
    try:
        for disk in disks:
            wait_until(lambda: controller_of(server, disk)["sessions"]
                       and queues_of(server, disk), "the load")
            assert move(server, disk, 0, 1) is True
        time.sleep(2.5)
        assert [cpus_of(server, disk) for disk in disks] == [[1], [1]]
        assert all(queues_of(server, disk)[0]["pinned"] for disk in disks)
        assert move(server, disks[0], 0, 1, pin=False) is True
        wait_until(lambda: cpus_of(server, disks[0]) == [0], "the balancer", 30 * SCALE)
    finally:
        for load in loads:
            load.terminate()
            load.wait()


def test_idle_daemon_sleeps(server, make_disk, connect):
    """With queues that rest the balancer looks about once a second, without them never."""
    def control_sleeps():
        return server.rpc("framework_get_reactors")["control"]["sleeps"]

    disk = make_disk("malloc", num_queues=2)
    driver = connect(disk, queues=2)
    driver.read(0, 4096)
    time.sleep(1.5)
    before = control_sleeps()
    time.sleep(3)
    assert control_sleeps() - before <= 8
    driver.close()
    time.sleep(1.5)
    before = control_sleeps()
    time.sleep(2)
    assert control_sleeps() - before <= 3
