# SPDX-License-Identifier: Apache-2.0
"""The ring formats that a test can be run with: decorate it, or its module, with one of these."""

import pytest

SPLIT = {"packed": False, "event_idx": False}
PACKED = {"packed": True, "event_idx": False}
SPLIT_EVENT = {"packed": False, "event_idx": True}
PACKED_EVENT = {"packed": True, "event_idx": True}

FORMATS = pytest.mark.parametrize("ring", [SPLIT, PACKED], ids=["split", "packed"], indirect=True)
RINGS = pytest.mark.parametrize(
    "ring", [SPLIT, SPLIT_EVENT, PACKED, PACKED_EVENT],
    ids=["split", "split_event_idx", "packed", "packed_event_idx"], indirect=True)
