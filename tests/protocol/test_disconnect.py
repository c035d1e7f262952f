# SPDX-License-Identifier: Apache-2.0
"""Disconnect and reconnect at any point are ordinary events. The fixtures count fds after each."""

import os
import socket

from blk import S_OK, Driver, Type
from rings import FORMATS
from vhost_user import HEADER, VERSION, Connection, Request, SessionClosed

SERVER_OPTIONS = {"cores": "0,1"}  # queues of one session on two reactors


def serves(driver):
    data = os.urandom(4096)
    driver.write(8, data)
    assert driver.read(8, 4096) == data


def test_cut_after_each_message(hostile, memory_disk):
    """The whole handshake, cut after its first message, after its second, and so on."""
    length = None
    cut = 0
    while length is None or cut <= length:
        with Driver(memory_disk.socket, queues=2, packed=cut % 2 == 1) as driver:
            done = sum(1 for _, _ in zip(range(cut), driver.steps()))
            if done < cut:
                length = done
        cut += 1
    assert length > 15


def test_cut_within_each_message(hostile, memory_disk):
    """Each message of the handshake cut in the middle of its bytes: header, payload, with and
    without its fds."""
    class Cut(Exception):
        pass

    def cut_at(driver, message, byte):
        whole = driver.conn.send_raw
        count = 0

        def send_raw(data, fds=()):
            nonlocal count
            count += 1
            if count == message:
                whole(data[:min(byte, len(data) - 1)], fds)
                raise Cut
            whole(data, fds)
        driver.conn.send_raw = send_raw

    for byte in (1, 11, 12, 17):
        message = 1
        while True:
            with Driver(memory_disk.socket) as driver:
                cut_at(driver, message, byte)
                try:
                    driver.start_up()
                    break
                except Cut:
                    message += 1
        assert message > 10


def test_cut_200_times_at_random(hostile, connect, memory_disk, file_disk, rng):
    """During the handshake, with requests in flight, after stopping rings; with and without
    reading answers. Every tenth time a whole session proves that the disk is well."""
    for round_ in range(200):
        disk = rng.choice((memory_disk, file_disk))
        with Driver(disk.socket, queues=rng.randrange(1, 5), mem_slots=rng.random() < 0.5,
                    queue_size=64, packed=rng.random() < 0.5,
                    event_idx=rng.random() < 0.5) as driver:
            if rng.random() < 0.4:
                for _, _ in zip(range(rng.randrange(40)), driver.steps()):
                    pass
                continue
            driver.start_up()
            for _ in range(rng.randrange(12)):
                driver.submit(rng.choice((Type.IN, Type.OUT)), 4096 + rng.randrange(64) * 8,
                              out=os.urandom(4096), queue=rng.randrange(len(driver.queues)))
            if rng.random() < 0.3:
                driver.conn.send(Request.GET_VRING_BASE, bytes(8))
            elif rng.random() < 0.3:
                driver.conn.sock.shutdown(socket.SHUT_WR)
            elif round_ % 10 == 0:
                serves(driver)
        if round_ % 10 == 9:
            with Driver(disk.socket).start_up() as driver:
                serves(driver)


@FORMATS
def test_reconnect_and_continue(connect, memory_disk):
    """A front-end that reconnects brings its old memory and rings, and goes on at its index."""
    first = connect(memory_disk)
    serves(first)
    pending = [first.submit(Type.OUT, i * 8, os.urandom(4096)) for i in range(8)]
    for request in pending:
        assert first.finish(request).status == S_OK
    index = first.queues[0].drained_base()
    first.reconnect(memory_disk.socket)
    for _ in first.steps(base=index):
        pass
    serves(first)


def test_close_with_io_in_flight(hostile, connect, file_disk):
    """Memory of the guest goes away only after the last I/O into it: reads are still on their
    way when the session ends, and the guest memory is freed at once."""
    hostile.disks.append(file_disk)
    for i in range(30):
        driver = Driver(file_disk.socket, queue_size=256, packed=i % 2 == 1).start_up()
        for j in range(60):
            driver.submit(Type.IN, j * 128, in_len=65536, notify=False)
        driver.queues[0].kick()
        driver.close()


def test_1000_connects(server, hostile, memory_disk):
    """Connect and go, a thousand times; no memory stays."""
    def once():
        connection = Connection(memory_disk.socket)
        connection.close()
    for _ in range(100):
        once()
    before = server.rss_anon()
    for _ in range(900):
        once()
    assert server.rss_anon() - before < 8 << 20
    hostile.log_lines_max = 2500  # a line for coming and one for going, at most


def test_200_sessions_leave_no_memory(server, hostile, memory_disk):
    """Whole sessions with I/O; private memory does not grow with their number."""
    def once():
        with Driver(memory_disk.socket, queues=4).start_up() as driver:
            for queue in range(4):
                driver.read(0, 4096, queue=queue)
    for _ in range(40):
        once()
    before = server.rss_anon()
    for _ in range(160):
        once()
    assert server.rss_anon() - before < 16 << 20
    hostile.log_lines_max = 2500


def test_100_connections_at_once(hostile, memory_disk):
    """Idle connections, and connections that said half a message: those beyond a limit are
    refused, other disks notice nothing, and the disk serves again as soon as they have gone."""
    connections = [Connection(memory_disk.socket) for _ in range(100)]
    try:
        for i, connection in enumerate(connections):
            try:
                if i % 2:
                    connection.send_raw(HEADER.pack(Request.GET_FEATURES, VERSION, 0)[:1 + i % 11])
            except SessionClosed:
                pass
        hostile.neighbour.check(20)
    finally:
        for connection in connections:
            connection.close()


@FORMATS
def test_8_sessions_at_once(connect, memory_disk):
    """A few front-ends on one disk are no offence; each is served."""
    for driver in [connect(memory_disk) for _ in range(8)]:
        serves(driver)


def test_half_message_then_nothing(hostile, connect, dial, memory_disk):
    """A header without its payload: the session waits, everybody else does not."""
    for request, size in ((Request.SET_FEATURES, 8), (Request.SET_MEM_TABLE, 264),
                          (Request.SET_VRING_ADDR, 40)):
        connection = dial(memory_disk)
        connection.send_raw(HEADER.pack(request, VERSION, size) + b"\0" * 3)
        serves(connect(memory_disk))


def test_message_byte_by_byte(connect, memory_disk):
    """A slow writer is still a legal one."""
    driver = connect(memory_disk, start_up=False)
    whole = driver.conn.send_raw

    def slowly(data, fds=()):
        whole(data[:1], fds)
        for i in range(1, len(data)):
            whole(data[i:i + 1])
    driver.conn.send_raw = slowly
    driver.start_up()
    serves(driver)


def test_many_messages_in_one_write(dial, memory_disk):
    """Messages may arrive glued together; each has its answer, in order."""
    connection = dial(memory_disk)
    message = HEADER.pack(Request.GET_FEATURES, VERSION, 0)
    other = HEADER.pack(Request.GET_QUEUE_NUM, VERSION, 0)
    connection.send_raw((message + other) * 50)
    for _ in range(50):
        connection.recv_reply(Request.GET_FEATURES)
        connection.recv_reply(Request.GET_QUEUE_NUM)


def test_client_that_stops_reading(server, hostile, connect, memory_disk):
    """Queries without end whose answers are never read: the server neither blocks, nor
    collects answers without bound, nor makes anybody else wait."""
    stuck = Connection(memory_disk.socket)
    stuck.sock.setblocking(False)
    before = server.rss_anon()
    message = HEADER.pack(Request.GET_FEATURES, VERSION, 0) * 200
    try:
        for _ in range(2000):
            try:
                stuck.sock.send(message)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                break
        serves(connect(memory_disk))
        hostile.neighbour.check(20)
        assert server.rss_anon() - before < 16 << 20
    finally:
        stuck.close()


def test_shutdown_of_one_direction(hostile, dial, memory_disk):
    """A front-end that shuts down its sending side has left."""
    connection = dial(memory_disk)
    connection.sock.shutdown(socket.SHUT_WR)
    connection.wait_closed()


def test_fds_before_any_byte_is_understood(hostile, dial, memory_disk):
    """Fds with half a header, then the end (CVE-2022-0669, CVE-2019-14818)."""
    for _ in range(50):
        connection = Connection(memory_disk.socket)
        fd = os.memfd_create("stray")
        connection.send_raw(b"\5\0", [fd] * 8)
        os.close(fd)
        connection.close()


@FORMATS
def test_delete_controller_with_sessions(server, make_disk, connect):
    """Deleting a controller under load ends its sessions, with all their I/O, and no others."""
    for _ in range(5):
        disk = make_disk("malloc", num_queues=2)
        drivers = [connect(disk, queues=2, queue_size=64) for _ in range(
            2 if server.many_sessions else 1)]
        for driver in drivers:
            for i in range(10):
                driver.submit(Type.OUT, i * 8, bytes(4096), queue=i % 2)
        make_disk.close()
        for driver in drivers:
            driver.conn.wait_closed()
