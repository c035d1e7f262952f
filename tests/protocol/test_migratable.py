# SPDX-License-Identifier: Apache-2.0
"""Two disks over one file, as the two ends of a live migration have them: one serves at a time."""

import os

import pytest

from blk import Driver
from daemon import MIB, RpcError
from vhost_user import SessionClosed


@pytest.fixture
def two_sockets(server, healthy, tmp_path):
    """The sockets of two controllers, each with a migratable bdev of its own over one file."""
    path = tmp_path / "shared.img"
    path.write_bytes(bytes(4 * MIB))
    sockets = []
    for name in ("source", "destination"):
        server.rpc("bdev_uring_create", name=f"{name}-bdev", filename=str(path), migratable=True)
        sockets.append(server.create_controller(name, f"{name}-bdev"))
    with pytest.raises(RpcError, match="somebody|another|lock"):
        # What is held in the ordinary way shuts out everybody once it is served; the other way
        # round, a disk that is served shuts out the ordinary opener.
        with Driver(sockets[0]).start_up() as driver:
            driver.write(0, b"x" * 512)
            server.rpc("bdev_uring_create", name="plain", filename=str(path))
    yield sockets
    for name in ("source", "destination"):
        server.delete_controller(name)
        server.delete_bdev(f"{name}-bdev", "uring")


def test_the_file_is_handed_over_when_the_ring_stops(two_sockets):
    """GET_VRING_BASE of the source's last ring lets go of the file before it is answered."""
    data = os.urandom(4096)
    with Driver(two_sockets[0]).start_up() as source:
        source.write(8, data)
        with Driver(two_sockets[1]) as destination:
            with pytest.raises(SessionClosed):
                destination.start_up()
                destination.read(8, 4096)
        source.stop_queue()
        with Driver(two_sockets[1]).start_up() as destination:
            assert destination.read(8, 4096) == data
