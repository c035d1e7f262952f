# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the guest tests."""
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

# pylint: disable=wrong-import-position,import-error
from target import Backing, Sluice, StorageDaemon  # noqa: E402


def pytest_addoption(parser):
    """--target storage-daemon tries the harness itself against a known peer."""
    parser.addoption("--target", default="sluice", choices=["sluice", "storage-daemon"])


@pytest.fixture(scope="session")
def target_class(request):
    """The daemon under test."""
    return {"sluice": Sluice, "storage-daemon": StorageDaemon}[request.config.getoption("--target")]


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
