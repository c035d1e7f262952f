# SPDX-License-Identifier: Apache-2.0
"""A selection of the hostile tests on servers that always poll, or never: a broken queue must
neither spin nor be waited for. The tests are imported; their modules run them with the default."""

import pytest

from test_bad_packed import (  # noqa: F401
    test_chain_longer_than_the_ring, test_id_beyond_the_ring, test_id_twice_in_flight,
    test_random_ring_noise as test_random_packed_ring_noise)
from test_bad_packed import Chain as PackedChain
from test_bad_rings import (  # noqa: F401
    Chain, test_avail_idx_jumps, test_endless_submission, test_head_made_available_many_times,
    test_indirect_loop, test_loop, test_no_log_line_that_a_guest_can_repeat,
    test_random_ring_noise, test_table_that_changes_while_it_is_read)
from test_disconnect import test_cut_200_times_at_random  # noqa: F401
from test_inflight import test_random_journal, test_truncated_journal  # noqa: F401

pytestmark = [pytest.mark.usefixtures("hostile"), pytest.mark.parametrize(
    "server", [{"poll": "always"}, {"poll": "never"}], ids=["always", "never"], indirect=True,
    scope="module")]

PACKED = ("test_chain_longer_than_the_ring", "test_id_beyond_the_ring")


@pytest.fixture
def chain(request, connect, memory_disk):
    if request.node.originalname in PACKED:
        return PackedChain(connect(memory_disk, packed=True))
    return Chain(connect(memory_disk))
