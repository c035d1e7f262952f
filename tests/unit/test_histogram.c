/* SPDX-License-Identifier: Apache-2.0 */
/* The log-linear histogram: continuity of its buckets, precision, percentiles, merging. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/histogram.h"
#include "base/random.h"

static struct histogram *new_histogram(void)
{
	struct histogram *h = malloc(sizeof(*h));

	assert_non_null(h);
	histogram_reset(h);
	return h;
}

static void test_buckets_are_continuous(void **state)
{
	uint32_t last = histogram_bucket(0);

	for (uint64_t v = 1; v < 1u << 20; v++) {
		uint32_t bucket = histogram_bucket(v);
		assert_true(bucket == last || bucket == last + 1);
		last = bucket;
	}
	for (unsigned int bit = 7; bit < 64; bit++) {
		uint64_t v = 1ull << bit;
		assert_int_equal(histogram_bucket(v), histogram_bucket(v - 1) + 1);
	}
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void test_precision(void **state)
{
	struct histogram *h = new_histogram();
	uint64_t seed = 1;

	for (int i = 0; i < 2000; i++) {
		uint64_t v = random_next(&seed) >> (i % 64);
		histogram_reset(h);
		/* Two outer values, so that min and max do not correct the middle one. */
		histogram_record(h, 0);
		histogram_record(h, v);
		histogram_record(h, UINT64_MAX);
		uint64_t got = histogram_percentile(h, 500);
		uint64_t diff = got > v ? got - v : v - got;
		assert_true(diff <= v / 128 + 1);
	}
	free(h);
}

static void test_percentiles(void **state)
{
	struct histogram *h = new_histogram();

	assert_int_equal(histogram_percentile(h, 990), 0);
	assert_true(histogram_mean(h) == 0.0);
	for (uint64_t v = 1; v <= 100; v++)
		histogram_record(h, v);
	assert_int_equal(histogram_percentile(h, 0), 1);
	assert_int_equal(histogram_percentile(h, 500), 50);
	assert_int_equal(histogram_percentile(h, 990), 99);
	assert_int_equal(histogram_percentile(h, 1000), 100);
	assert_true(histogram_mean(h) == 50.5);
	assert_int_equal(h->count, 100);
	histogram_record_many(h, 1000000, 900);
	assert_int_equal(h->max, 1000000);
	assert_int_equal(histogram_percentile(h, 100), 100);
	assert_true(histogram_percentile(h, 101) > 990000);
	assert_true(histogram_percentile(h, 999) <= 1000000);
	free(h);
}

static void test_merge(void **state)
{
	struct histogram *a = new_histogram();
	struct histogram *b = new_histogram();
	struct histogram *all = new_histogram();
	uint64_t seed = 2;

	for (int i = 0; i < 10000; i++) {
		uint64_t v = random_next(&seed) >> (20 + i % 40);
		histogram_record(i % 3 == 0 ? a : b, v);
		histogram_record(all, v);
	}
	histogram_merge(a, b);
	assert_memory_equal(a, all, sizeof(*a));
	free(a);
	free(b);
	free(all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buckets_are_continuous),
		cmocka_unit_test(test_precision),
		cmocka_unit_test(test_percentiles),
		cmocka_unit_test(test_merge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
