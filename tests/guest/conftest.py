# SPDX-License-Identifier: Apache-2.0
"""The fixtures are shared: see tests/guest/fixtures.py."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "guest"))

from fixtures import any_qemu, backing, folder, newer_qemu, target_class  # noqa: E402,F401 pylint: disable=all
