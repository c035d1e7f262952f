# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping rings, and notifications both ways, in the three poll modes."""

import os
import time

import pytest

from blk import S_OK, Layout, Type
from daemon import MIB, wait_until
from rings import FORMATS
from vhost_user import VIRTIO_F_RING_EVENT_IDX

POLL_MODES = pytest.mark.parametrize("server", [
    {"poll": "adaptive"}, {"poll": "always"}, {"poll": "never"}, {"cores": "0,1"}],
    ids=["adaptive", "always", "never", "two_cores"], indirect=True, scope="module")

pytestmark = [POLL_MODES, FORMATS]

NOT_SERVED_S = 0.1  # how long a ring that must stay still is watched


# -- starting and stopping -----------------------------------------------------------------------


def test_disabled_ring_is_not_served_until_enabled(connect, memory_disk):
    """Vhost-user, "Ring states": with protocol features a ring starts disabled."""
    driver = connect(memory_disk, start_up=False)
    driver.start_up(enable=False)
    pending = driver.submit(Type.IN, in_len=512)
    pending.queue.kick()
    assert pending.queue.try_wait(pending.head, NOT_SERVED_S) is None
    driver.conn.set_vring_enable(0, True)
    assert driver.finish(pending).status == S_OK


def test_ring_disabled_and_enabled_again(connect, memory_disk):
    driver = connect(memory_disk)
    for _ in range(5):
        driver.read(0, 512)
        driver.conn.set_vring_enable(0, False)
        pending = driver.submit(Type.IN, in_len=512)
        pending.queue.kick()
        assert pending.queue.try_wait(pending.head, 0.03) is None
        driver.conn.set_vring_enable(0, True)
        assert driver.finish(pending).status == S_OK


def test_disabling_one_ring_leaves_the_others(connect, memory_disk):
    driver = connect(memory_disk, queues=3)
    driver.conn.set_vring_enable(1, False)
    for queue in (0, 2):
        driver.read(0, 512, queue=queue)
    driver.conn.set_vring_enable(1, True)
    driver.read(0, 512, queue=1)


def test_kick_before_enable(connect, memory_disk):
    """A kick that came early is not lost: requests and kick precede SET_VRING_KICK itself."""
    driver = connect(memory_disk, start_up=False)
    pending = driver.prepare(Type.IN, in_len=512)
    pending.queue.publish(pending.head)
    pending.queue.kick()
    driver.start_up()
    assert driver.finish(pending).status == S_OK


def test_requests_before_start_and_no_kick_at_all(connect, memory_disk):
    """After a reconnect the front-end need not kick again for what is in the ring."""
    driver = connect(memory_disk, start_up=False)
    pending = driver.prepare(Type.IN, in_len=512)
    pending.queue.publish(pending.head)
    driver.start_up()
    assert driver.finish(pending).status == S_OK


def test_get_vring_base_stops_and_restart_continues(connect, memory_disk):
    """The index in the answer is where the ring goes on; nothing is served in between."""
    driver = connect(memory_disk, queue_size=16)
    for i in range(40):
        data = os.urandom(512)
        driver.write(i, data)
        if i % 8 == 7:
            base = driver.stop_queue()
            assert base == driver.queues[0].drained_base()
            pending = driver.submit(Type.IN, i, in_len=512)
            pending.queue.kick()
            assert pending.queue.try_wait(pending.head, 0.03) is None
            driver.restart_queue(0, base)
            assert driver.finish(pending).data == data


def test_get_vring_base_waits_for_what_is_in_flight(connect, file_disk):
    """When the answer is there, every request taken from the ring has been used."""
    driver = connect(file_disk, queue_size=256)
    for _ in range(5):
        pending = [driver.submit(Type.OUT, i * 8, os.urandom(4096), notify=False)
                   for i in range(60)]
        pending[0].queue.kick()
        base = driver.stop_queue()
        assert base == driver.queues[0].drained_base()
        used = len(driver.queues[0].completed)
        assert used + len(driver.queues[0].chains) == 60
        driver.restart_queue(0, base)
        driver.queues[0].kick()
        for request in pending:
            assert driver.finish(request).status == S_OK


def test_status_reset(connect, memory_disk):
    """Status 0 is the driver's reset: rings stand still until they are set up again."""
    driver = connect(memory_disk, queues=2)
    for _ in range(3):
        driver.read(0, 512, queue=1)
        driver.conn.set_status(0)
        assert driver.conn.get_status() == 0
        pending = driver.submit(Type.IN, in_len=512)
        pending.queue.kick()
        assert pending.queue.try_wait(pending.head, 0.03) is None
        for queue in driver.queues:
            driver.stop_queue(queue.index)
            queue.reset()
            driver.restart_queue(queue.index, queue.start_base)
        for _ in driver.driver_ok():
            pass


def test_get_vring_base_of_a_ring_never_started(connect, memory_disk):
    """QEMU asks for it when a guest reboots before its driver came up (spdk#378)."""
    driver = connect(memory_disk, queues=2, start_up=False)
    for _ in driver.negotiate():
        pass
    assert driver.conn.get_vring_base(1) == 0
    driver.conn.set_vring_num(1, 128)
    driver.conn.set_vring_base(1, 7)
    assert driver.conn.get_vring_base(1) == 7


def test_only_some_of_the_queues(connect, memory_disk):
    """Firmware sets up queue 0 alone; kernels sometimes fewer than offered (spdk#2228)."""
    driver = connect(memory_disk, queues=4, start_up=False)
    for _ in driver.negotiate():
        pass
    for _ in driver.share_memory():
        pass
    for _ in driver.set_up_queue(driver.queues[2]):
        pass
    for _ in driver.driver_ok():
        pass
    driver.read(0, 512, queue=2)


def test_enable_before_addresses_and_memory(connect, memory_disk):
    """SPDK's virtio initiator enables first, and sets memory several times."""
    driver = connect(memory_disk, start_up=False)
    for _ in driver.negotiate():
        pass
    driver.conn.set_vring_enable(0, True)
    for _ in driver.share_memory():
        pass
    for _ in driver.set_up_queue(driver.queues[0], enable=False):
        pass
    for _ in driver.share_memory():
        pass
    for _ in driver.driver_ok():
        pass
    driver.read(0, 512)


def test_kick_and_call_replaced_while_running(connect, memory_disk):
    """Repeated SET_VRING_KICK and _CALL take effect; the replaced fds are closed."""
    driver = connect(memory_disk)
    queue = driver.queues[0]
    for _ in range(20):
        for name, send in (("kick_fd", driver.conn.set_vring_kick),
                           ("call_fd", driver.conn.set_vring_call)):
            old = getattr(queue, name)
            setattr(queue, name, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
            send(0, getattr(queue, name))
            os.close(old)
        driver.read(0, 512)


def test_reboots(connect, memory_disk):
    """Stop, forget, set up anew with other sizes and places: a guest that reboots."""
    driver = connect(memory_disk, queues=2, queue_size=64)
    for round_ in range(10):
        for queue in driver.queues:
            driver.stop_queue(queue.index)
            driver.conn.set_vring_enable(queue.index, False)
            queue.reset()
        driver.conn.set_features(driver.features)
        driver.conn.set_mem_table(driver.mem.regions)
        for queue in driver.queues[:1 + round_ % 2]:
            driver.restart_queue(queue.index, queue.start_base)
            driver.write(8, os.urandom(512), queue=queue.index)


# -- notifications -------------------------------------------------------------------------------


def test_no_interrupt_is_honoured(connect, memory_disk):
    """VIRTQ_AVAIL_F_NO_INTERRUPT: completions without a call (virtio 1.2, 2.7.7)."""
    driver = connect(memory_disk)
    queue = driver.queues[0]
    driver.read(0, 512)
    driver.stop_queue()
    queue.take_calls()
    queue.set_no_interrupt(True)
    driver.restart_queue(0, queue.drained_base())
    queue.call_expected = False
    queue.take_calls()
    for i in range(50):
        driver.read(i, 512)
    driver.stop_queue()
    assert queue.take_calls() == 0
    queue.set_no_interrupt(False)
    driver.restart_queue(0, queue.drained_base())
    driver.read(0, 512)


def test_no_call_fd(connect, memory_disk):
    """VRING_CALL with NOFD: the driver polls the used ring."""
    driver = connect(memory_disk, start_up=False).start_up(call=False)
    for i in range(20):
        driver.read(i, 512)


def test_no_kick_fd(connect, memory_disk):
    """VRING_KICK with NOFD: "the back-end should use polling"."""
    driver = connect(memory_disk, start_up=False).start_up(kick=False)
    for i in range(10):
        driver.read(i, 512)
        if i % 5 == 4:
            time.sleep(0.03)  # the quiet in which an adaptive server falls asleep


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_no_kick_is_lost(connect, memory_disk, rng, event_idx):
    """The race of falling asleep: a kick is sent only if the device asked for it, after pauses
    of every length around its thresholds. Each request must complete (spdk#2940)."""
    driver = connect(memory_disk, event_idx=event_idx)
    queue = driver.queues[0]
    assert driver.negotiated(VIRTIO_F_RING_EVENT_IDX) == event_idx
    deadline = time.monotonic() + 0.7
    count = 0
    while time.monotonic() < deadline:
        for _ in range(rng.randrange(1, 8)):
            driver.read(rng.randrange(64), 512)
            count += 1
        pause_s = rng.choice((0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)) * rng.random()
        end = time.perf_counter() + pause_s
        if pause_s > 1e-3:
            time.sleep(pause_s)
        while time.perf_counter() < end:
            pass
    assert count > 20
    assert queue.kicks_sent + queue.kicks_saved >= count


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_no_kick_is_lost_with_batches(connect, memory_disk, rng, event_idx):
    """The same with batches on several queues, collected in any order."""
    driver = connect(memory_disk, queues=4, queue_size=64, event_idx=event_idx)
    layout = Layout("indirect", indirect=True)
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        pending = [driver.submit(Type.IN, rng.randrange(64), in_len=512, layout=layout,
                                 queue=rng.randrange(4)) for _ in range(rng.randrange(1, 32))]
        rng.shuffle(pending)
        for request in pending:
            assert driver.finish(request).status == S_OK
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.005)


def test_spurious_kicks(connect, memory_disk):
    """Kicks without a request, and kicks by the thousand, are harmless."""
    driver = connect(memory_disk)
    for _ in range(1000):
        driver.queues[0].kick()
    os.eventfd_write(driver.queues[0].kick_fd, 1 << 60)
    driver.read(0, 512)


def test_call_fd_that_is_full(connect, memory_disk):
    """A call eventfd at its limit would block a writer; the reactor must not stand still."""
    driver = connect(memory_disk)
    queue = driver.queues[0]
    blocking = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(blocking, 0xFFFFFFFFFFFFFFFE)
    driver.conn.set_vring_call(0, blocking)
    queue.call_expected = False
    try:
        for i in range(5):
            driver.read(i, 512)
    finally:
        os.close(blocking)


def test_idle_ring_costs_nothing(server, connect, memory_disk, request):
    """Adaptive and never: no CPU to speak of while nothing happens (the headline against SPDK:
    spdk#285, longhorn#9834). Always: a core, which is its purpose."""
    driver = connect(memory_disk, queues=4)
    for queue in range(4):
        driver.read(0, 512, queue=queue)
    if server.name == "sluice" and "always" in request.node.name:
        before = server.cpu_ticks()
        wait_until(lambda: server.cpu_ticks() > before + 5, "a polling reactor's CPU time")
        return

    def quiet():
        before = server.cpu_ticks()
        time.sleep(0.5)
        return server.cpu_ticks() - before <= 2  # 20 ms of 500
    wait_until(quiet, "a sleeping server")
    driver.read(0, 512)


def test_much_io_with_restarts(make_disk, connect, rng):
    """Data stays right over many stops and starts of random queues under load."""
    driver = connect(make_disk("malloc", size=4 * MIB, num_queues=4), queues=4, queue_size=64)
    model = {}
    for _ in range(60):
        pending = []
        for sector in rng.sample(range(0, 8192, 8), 10):
            data = rng.randbytes(4096)
            model[sector] = data
            pending.append(driver.submit(Type.OUT, sector, data, queue=rng.randrange(4)))
        victim = rng.randrange(4)
        base = driver.stop_queue(victim)
        driver.restart_queue(victim, base)
        for request in pending:
            assert driver.finish(request).status == S_OK
    for sector, data in model.items():
        assert driver.read(sector, 4096, queue=sector // 8 % 4) == data
