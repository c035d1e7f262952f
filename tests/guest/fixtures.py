# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests with real front-ends: tests/guest and tests/thirdparty.

SLUICE_TEST_TARGET=storage-daemon tries the tests themselves against a known peer.
"""
import os
import pathlib
import shutil
import tempfile

import pytest

from guest import backports_qemu
from target import Backing, Sluice, StorageDaemon


@pytest.fixture(scope="session")
def target_class():
    """The daemon under test."""
    targets = {"sluice": Sluice, "storage-daemon": StorageDaemon}
    return targets[os.environ.get("SLUICE_TEST_TARGET", "sluice")]


@pytest.fixture(scope="session", name="qemu", params=["debian", "backports"])
def any_qemu(request):
    """QEMU of this Debian, and the newer one of Debian 13's backports."""
    return backports_qemu() if request.param == "backports" else None


@pytest.fixture(scope="session")
def newer_qemu():
    """QEMU of Debian 13's backports."""
    return backports_qemu()


@pytest.fixture(scope="module")
def folder():
    """A folder on a real disk (/tmp may be a tmpfs), removed afterwards."""
    path = tempfile.mkdtemp(prefix="sluice-test.", dir="/var/tmp")
    yield pathlib.Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def backing(folder):  # pylint: disable=redefined-outer-name
    """Makes the description of a disk whose file, if it has one, lies in `folder`."""
    def make(name, kind, size=64 << 20, **options):
        return Backing(name, kind, size, path=str(folder / f"{name}.img"), **options)
    return make
