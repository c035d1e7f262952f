# SPDX-License-Identifier: Apache-2.0
"""The fixtures are shared: see tests/guest/fixtures.py. --full also runs the tests marked `full`."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "guest"))

from fixtures import any_qemu, backing, folder, newer_qemu, target_class  # noqa: E402,F401 pylint: disable=all


def pytest_addoption(parser):
    """--full, what `make check-full` uses."""
    parser.addoption("--full", action="store_true",
                     help="also run the variants marked `full`, which `make check` leaves out")


def pytest_configure(config):
    """Names the mark."""
    config.addinivalue_line("markers", "full: a variant for `make check-full` only")


def pytest_collection_modifyitems(config, items):
    """Without --full its variants are not part of the run; pytest says how many it left out."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
