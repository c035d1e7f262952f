# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one server a module, a health check around every test, drivers that close.

SLUICE_BIN                 the binary; default build/src/sluice
SLUICE_TEST_SEED           replays the random tests; a failure prints the seed it ran with
SLUICE_TEST_TIMEOUT_SCALE  factor on every timeout
SLUICE_PROTOCOL_TARGET     qsd: try the tests themselves against qemu-storage-daemon
"""

import os
import pathlib
import random
import resource
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from blk import Driver  # noqa: E402
from daemon import MIB, DiskFactory, start_server, wait_until  # noqa: E402
from neighbour import Neighbour  # noqa: E402
from vhost_user import Connection  # noqa: E402

SEED = int(os.environ.get("SLUICE_TEST_SEED") or random.SystemRandom().getrandbits(32))


def pytest_report_header(config):
    return f"SLUICE_TEST_SEED={SEED}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        report.sections.append(("replay", f"SLUICE_TEST_SEED={SEED}"))
        server = item.funcargs.get("server")
        if server:
            try:
                report.sections.append((f"{server.name}'s log", server.log_tail()))
            except OSError:
                pass


@pytest.fixture(scope="session", autouse=True)
def many_fds():
    """256 queues have 512 eventfds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture
def rng(request):
    """A generator that depends on the seed and the test's name alone."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture(scope="module")
def server(request):
    """The server of a module; options come from the module's SERVER_OPTIONS or a parameter."""
    options = getattr(request, "param", getattr(request.module, "SERVER_OPTIONS", {}))
    server = start_server(**options)
    try:
        yield server
    except BaseException:
        server.destroy()
        raise
    server.stop()


@pytest.fixture(scope="module")
def shared_disks(server):
    factory = DiskFactory(server)
    server.on_restart.append(factory.create_again)
    yield factory
    server.assert_healthy()
    factory.close()


@pytest.fixture(scope="module")
def memory_disk(shared_disks):
    return shared_disks("malloc", size=16 * MIB, num_queues=4, prefix="memory")


@pytest.fixture(scope="module")
def file_disk(shared_disks):
    return shared_disks("uring", size=16 * MIB, num_queues=4, prefix="file")


@pytest.fixture(scope="module")
def null_disk(shared_disks):
    return shared_disks("null", size=16 * MIB, num_queues=4, prefix="null")


@pytest.fixture(scope="module")
def neighbour(server, shared_disks):
    neighbour = Neighbour(shared_disks("malloc", size=MIB, prefix="neighbour"), SEED)
    server.on_restart.append(neighbour.restart)
    yield neighbour
    neighbour.stop()


@pytest.fixture(autouse=True)
def healthy(request):
    """After every test: alive, no fault logged, and no fd or mapping more than before."""
    if "server" not in request.fixturenames:
        yield
        return
    for name in ("memory_disk", "file_disk", "null_disk", "neighbour"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    server = request.getfixturevalue("server")
    server.restart_if_dead()
    fds = server.fd_list()
    maps = server.map_count()
    yield
    server.assert_healthy()
    try:
        wait_until(lambda: server.fd_count() == len(fds), "fds as before")
    except AssertionError:
        after = server.fd_list()
        extra = list(after)
        for fd in fds:
            if fd in extra:
                extra.remove(fd)
        raise AssertionError(f"{len(fds)} fds before, {len(after)} after; new: {extra}") from None
    wait_until(lambda: server.map_count() == maps, "mappings of guest memory as before")
    server.assert_healthy()


@pytest.fixture
def make_disk(server, healthy):
    """Makes disks that are deleted at the end of the test."""
    factory = DiskFactory(server)
    yield factory
    server.assert_healthy()
    factory.close()


@pytest.fixture
def ring(request):
    """The format of the rings that connect() makes, in a test that asks for several by RINGS."""
    return getattr(request, "param", {})


@pytest.fixture
def connect(healthy, ring):
    """Makes drivers, brought up, that are closed at the end of the test."""
    drivers = []

    def connect(disk, start_up=True, **options):
        driver = Driver(disk.socket, **{**ring, **options})
        drivers.append(driver)
        return driver.start_up() if start_up else driver

    yield connect
    for driver in drivers:
        driver.close()


@pytest.fixture
def dial(healthy):
    """Makes bare connections: features asked for, REPLY_ACK agreed on, nothing else."""
    connections = []

    def dial(disk, negotiate=True):
        connection = Connection(disk.socket)
        connections.append(connection)
        if negotiate:
            connection.get_features()
            connection.set_protocol_features(connection.get_protocol_features())
        return connection

    yield dial
    for connection in connections:
        connection.close()


class Hostile:
    """What every hostile test checks at its end."""

    def __init__(self, server, neighbour):
        self.server = server
        self.neighbour = neighbour
        self.disks = []
        self.log_lines_max = 50

    def check(self, lines_before):
        self.neighbour.check()
        if self.server.many_sessions:
            for disk in self.disks:
                self.check_disk(disk)
        said = self.server.log_lines() - lines_before
        assert said <= self.log_lines_max, f"{said} log lines:\n{self.server.log_tail()}"

    def check_disk(self, disk):
        """The victim's disk serves the next, honest, front-end."""
        with Driver(disk.socket).start_up() as driver:
            data = os.urandom(4096)
            driver.write(8, data)
            assert driver.read(8, 4096) == data


@pytest.fixture
def hostile(server, neighbour, memory_disk, healthy):
    """Around a hostile test: the neighbour, a new session on the victim disk, log lines."""
    hostile = Hostile(server, neighbour)
    hostile.disks.append(memory_disk)
    lines = server.log_lines()
    yield hostile
    hostile.check(lines)
