/* SPDX-License-Identifier: Apache-2.0 */
/* The decisions of the balancer, on a simulation of two reactors and their queues. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vhost/balance.h"

#define QUEUE_COUNT 4

static unsigned int busy(const unsigned int *load, const unsigned int *place, unsigned int reactor)
{
	unsigned int sum = 0;

	for (int i = 0; i < QUEUE_COUNT; i++)
		sum += place[i] == reactor ? load[i] : 0;
	return MIN(sum, 1000u);
}

/* Runs periods with the balancer's rule; how many moves it made. */
static unsigned int simulate(const unsigned int *load, unsigned int *place, unsigned int periods)
{
	struct balance_reactor reactors[2] = {0};
	unsigned int moves = 0;

	for (unsigned int period = 0; period < periods; period++) {
		for (unsigned int r = 0; r < 2; r++)
			balance_note(&reactors[r], busy(load, place, r));
		for (unsigned int r = 0; r < 2; r++) {
			unsigned int best = QUEUE_COUNT, best_peak = 0, peak, total = 0;
			for (unsigned int i = 0; i < QUEUE_COUNT; i++)
				total += place[i] == r ? load[i] : 0;
			if (!balance_is_hot(&reactors[r]))
				continue;
			for (unsigned int i = 0; i < QUEUE_COUNT; i++) {
				if (place[i] != r || load[i] == 0 ||
				    !balance_improves(&reactors[r], &reactors[!r],
						      reactors[r].busy_permille * load[i] / total,
						      &peak))
					continue;
				if (best == QUEUE_COUNT || peak < best_peak) {
					best = i;
					best_peak = peak;
				}
			}
			if (best == QUEUE_COUNT)
				continue;
			place[best] = !r;
			moves++;
			balance_rest(&reactors[0], 3);
			balance_rest(&reactors[1], 3);
			break;
		}
	}
	return moves;
}

static void test_splits_two_hot_queues(void **state)
{
	unsigned int load[QUEUE_COUNT] = {800, 800, 0, 0};
	unsigned int place[QUEUE_COUNT] = {0, 0, 0, 0};

	assert_int_equal(simulate(load, place, 2), 0); /* not at the first sight */
	assert_int_equal(simulate(load, place, 100), 1);
	assert_int_not_equal(place[0], place[1]);
}

static void test_leaves_one_hot_queue(void **state)
{
	unsigned int load[QUEUE_COUNT] = {1000, 0, 0, 0};
	unsigned int place[QUEUE_COUNT] = {0, 0, 1, 1};

	assert_int_equal(simulate(load, place, 100), 0);
	/* Nor the small one beside it: what it would free is not worth a move. */
	load[1] = 50;
	assert_int_equal(simulate(load, place, 100), 0);
}

static void test_leaves_two_hot_reactors(void **state)
{
	unsigned int load[QUEUE_COUNT] = {600, 600, 600, 600};
	unsigned int place[QUEUE_COUNT] = {0, 0, 1, 1};

	assert_int_equal(simulate(load, place, 100), 0);
}

static void test_short_peaks_do_not_count(void **state)
{
	struct balance_reactor reactor = {0};

	for (int i = 0; i < 50; i++) {
		balance_note(&reactor, i % 3 == 2 ? 100 : 1000);
		assert_false(balance_is_hot(&reactor));
	}
}

/* Whatever the loads are, moving ends: no pair of reactors passes a queue to and fro. */
static void test_never_flaps(void **state)
{
	uint32_t seed = 1;

	for (int round = 0; round < 2000; round++) {
		unsigned int load[QUEUE_COUNT], place[QUEUE_COUNT];
		for (int i = 0; i < QUEUE_COUNT; i++) {
			seed = seed * 1664525u + 1013904223u;
			load[i] = (seed >> 16) % 1001;
			place[i] = seed >> 31;
		}
		simulate(load, place, 100);
		assert_int_equal(simulate(load, place, 100), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_splits_two_hot_queues),
		cmocka_unit_test(test_leaves_one_hot_queue),
		cmocka_unit_test(test_leaves_two_hot_reactors),
		cmocka_unit_test(test_short_peaks_do_not_count),
		cmocka_unit_test(test_never_flaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
