/* SPDX-License-Identifier: Apache-2.0 */
/* When calls are held back, and for how long at most. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "vhost/vhost_call.h"

static uint64_t us(uint64_t n)
{
	return ns_to_ticks(n * 1000);
}

static struct vhost_call_batch batch(uint32_t count, uint32_t inflight, uint64_t now)
{
	return (struct vhost_call_batch){
		.count = count, .inflight_count = inflight, .now_ticks = now};
}

static void test_low_depth_is_called_at_once(void **state)
{
	struct vhost_call call;
	uint64_t now = us(1000);

	vhost_call_init(&call);
	for (uint32_t inflight = 0; inflight < VHOST_CALL_DEEP; inflight++) {
		struct vhost_call_batch b = batch(1, inflight, now += us(5));
		assert_true(vhost_call_wanted(&call, &b));
		assert_false(call.held);
		vhost_call_sent(&call, now);
	}
}

static void test_deep_queues_wait_for_an_eighth(void **state)
{
	struct vhost_call call;
	uint64_t now = us(1000);

	vhost_call_init(&call);
	/* The first after a pause is no stream. */
	struct vhost_call_batch b = batch(1, 128, now);
	assert_true(vhost_call_wanted(&call, &b));
	vhost_call_sent(&call, now);
	b = batch(1, 128, now += us(2));
	assert_false(vhost_call_wanted(&call, &b));
	assert_true(call.held);
	for (int i = 0; i < 15; i++) {
		b = batch(1, 128, now += us(1));
		assert_false(vhost_call_more(&call, &b));
	}
	b = batch(1, 128, now += us(1));
	assert_true(vhost_call_more(&call, &b));
	vhost_call_sent(&call, now);
	/* A batch that is an eighth by itself does not wait. */
	b = batch(17, 128, now += us(2));
	assert_true(vhost_call_wanted(&call, &b));
}

static void test_hold_is_bounded(void **state)
{
	struct vhost_call call;
	uint64_t now = us(1000);

	vhost_call_init(&call);
	vhost_call_sent(&call, now);
	struct vhost_call_batch b = batch(1, 128, now);
	assert_false(vhost_call_wanted(&call, &b));
	assert_false(vhost_call_is_due(&call, now + us(31)));
	assert_true(vhost_call_is_due(&call, now + us(33)));
	b = batch(1, 127, now + us(33));
	assert_true(vhost_call_more(&call, &b));
	/* Nothing is left to wait for. */
	vhost_call_sent(&call, now);
	b = batch(1, 64, now);
	assert_false(vhost_call_wanted(&call, &b));
	b = batch(1, 0, now + us(1));
	assert_true(vhost_call_more(&call, &b));
}

static void test_distance_grows_with_the_rate(void **state)
{
	assert_int_equal(vhost_call_distance(1000, 10000, 0), 0);
	assert_int_equal(vhost_call_distance(1000, 10000, 10000), 0);
	assert_int_equal(vhost_call_distance(1000, 10000, 15000), 500);
	assert_int_equal(vhost_call_distance(1000, 10000, 20000), 1000);
	assert_int_equal(vhost_call_distance(1000, 10000, UINT64_MAX), 1000);
	assert_int_equal(vhost_call_distance(1000, 0, 20000), 0);
}

/* 100,000 requests a second for a second: calls keep the distance. */
static unsigned int count_calls(const struct vhost_coalescing *coalescing)
{
	struct vhost_call call;
	unsigned int calls = 0;

	vhost_call_init(&call);
	vhost_call_set(&call, coalescing);
	for (uint64_t i = 1; i <= 100000; i++) {
		struct vhost_call_batch b = batch(1, 0, us(1000) + i * us(10));
		b.request_count = i;
		bool now = call.held ? vhost_call_more(&call, &b) : vhost_call_wanted(&call, &b);
		if (!now)
			continue;
		vhost_call_sent(&call, b.now_ticks);
		calls++;
	}
	return calls;
}

static void test_fixed_rates(void **state)
{
	struct vhost_coalescing off = {.mode = VHOST_COALESCING_NONE};
	struct vhost_coalescing below = {VHOST_COALESCING_FIXED, 200, 200000};
	struct vhost_coalescing full = {VHOST_COALESCING_FIXED, 200, 50000};
	struct vhost_coalescing half = {VHOST_COALESCING_FIXED, 200, 66667};

	assert_int_equal(count_calls(&off), 100000);
	assert_int_equal(count_calls(&below), 100000);
	/* The first 10 ms are needed to measure. */
	assert_in_range(count_calls(&full), 5000, 6500);
	assert_in_range(count_calls(&half), 9000, 12500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_low_depth_is_called_at_once),
		cmocka_unit_test(test_deep_queues_wait_for_an_eighth),
		cmocka_unit_test(test_hold_is_bounded),
		cmocka_unit_test(test_distance_grows_with_the_rate),
		cmocka_unit_test(test_fixed_rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
