# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with the file behind a disk: no space, no file, somebody else's."""

import fcntl
import os
import subprocess
import sys

import pytest

from blk import S_IOERR, S_OK, Type
from daemon import MIB, RpcError

ENOENT, EBUSY = -2, -16


@pytest.fixture
def small_file_system(server, healthy):
    """A tmpfs of 1 MiB. Needs root, as the suite does."""
    path = server.dir / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)
    path.rmdir()


def test_no_space(server, small_file_system, make_disk, connect):
    """A sparse file larger than its file system: writes that find no room fail, and what was
    written stays; with room again they succeed."""
    filler = small_file_system / "filler"
    filler.write_bytes(bytes(MIB // 2))
    disk = make_disk("uring", size=8 * MIB, directory=small_file_system)
    driver = connect(disk)
    statuses = []
    data = {}
    for i in range(16):
        data[i] = os.urandom(65536)
        statuses.append(driver.request(Type.OUT, i * 128, out=data[i]).status)
    assert statuses[0] == S_OK and statuses[-1] == S_IOERR
    assert set(statuses) == {S_OK, S_IOERR}
    for i, status in enumerate(statuses):
        if status == S_OK:
            assert driver.read(i * 128, 65536) == data[i]
    driver.flush()
    filler.unlink()
    driver.write(15 * 128, data[15])
    assert driver.read(15 * 128, 65536) == data[15]
    server.assert_healthy()


def create_fails(server, code, filename):
    with pytest.raises(RpcError) as error:
        server.rpc("bdev_uring_create", name="victim", filename=str(filename), block_size=512)
    assert error.value.code == code
    assert os.path.basename(filename) in error.value.message


def test_missing_file(server, healthy):
    create_fails(server, ENOENT, server.dir / "missing.img")


def test_locked_by_another_process(server, healthy):
    """Refused while another process has it, and after its end no longer."""
    path = server.dir / "locked.img"
    path.write_bytes(bytes(MIB))
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1]); "
         "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()", path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    create_fails(server, EBUSY, path)
    holder.communicate()
    server.rpc("bdev_uring_create", name="victim", filename=str(path), block_size=512)
    with open(path, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    server.rpc("bdev_uring_delete", name="victim")


def test_second_bdev_of_a_file(server, file_disk):
    create_fails(server, EBUSY, file_disk.file)
    os.link(file_disk.file, server.dir / "other-name.img")
    create_fails(server, EBUSY, server.dir / "other-name.img")


def test_file_that_shrinks_under_load_and_grows_again(server, connect, make_disk):
    """Sectors beyond the end fail, or are served as the file system has it; grown again, all is
    well."""
    disk = make_disk("uring", size=2 * MIB)
    driver = connect(disk)
    for _ in range(10):
        pending = [driver.submit(Type.IN, i * 64, in_len=4096) for i in range(40)]
        os.truncate(disk.file, MIB // 2)
        for request in pending:
            assert driver.finish(request).status in (S_OK, S_IOERR)
        os.truncate(disk.file, 2 * MIB)
        driver.write(4000, bytes(4096))
        assert driver.read(4000, 4096) == bytes(4096)
    server.assert_healthy()
