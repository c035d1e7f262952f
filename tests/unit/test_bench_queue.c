/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator's queue against a device of a few lines that can be told to misbehave: wrong
 * ids, too many completions, failed requests, lost and misplaced writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/bench_queue.h"
#include "cli/bench_units.h"
#include "ring_device.h"

#define DEPTH 8u
#define UNITS 64u
#define UNIT_BYTES 4096u

static struct guest_arena arena;
static struct bench_queue *queue;
static struct bench_stats stats;
static uint32_t units[UNITS];
static uint8_t disk[UNITS * UNIT_BYTES];
static struct ring_device device;
static bool packed; /* the format of the ring in the next test */

enum fault { FAULT_NONE, FAULT_LOSE_WRITES, FAULT_MISPLACE, FAULT_KEEP_STATUS, FAULT_FAIL };

static int set_up(void **state)
{
	struct blk_slots_plan plan = {
		.depth = DEPTH,
		.flush = true,
		.data_bytes = UNIT_BYTES,
		.data_align = 4096,
		.segment_bytes = UNIT_BYTES,
		.packed = packed,
	};

	assert_int_equal(blk_slots_plan(&plan, false), 0);
	assert_int_equal(guest_arena_create(&arena, plan.arena_bytes, false), 0);
	queue = aligned_alloc(CACHE_LINE_BYTES, sizeof(*queue));
	memset(queue, 0, sizeof(*queue));
	memset(units, 0, sizeof(units));
	memset(disk, 0, sizeof(disk));
	bench_stats_init(&stats);
	struct vring_driver_options ring = {.size = plan.ring_size, .packed = packed};
	assert_int_equal(vring_driver_init(&queue->ring, &arena, &ring), 0);
	assert_int_equal(blk_slots_init(&queue->slots, &plan, &arena, &queue->ring), 0);
	ring_device_init(&device, &queue->ring, &arena);
	queue->state = calloc(plan.slot_count, sizeof(*queue->state));
	queue->stats = &stats;
	queue->depth = DEPTH;
	queue->is_random = true;
	queue->unit_sectors = UNIT_BYTES / 512;
	queue->unit_count = UNITS;
	queue->read_threshold = 32768;
	queue->phase = BENCH_PHASE_WORKLOAD;
	queue->block_bytes = 512;
	queue->seed = 9;
	return 0;
}

static int tear_down(void **state)
{
	vring_driver_fini(&queue->ring);
	guest_arena_destroy(&arena);
	free(queue->state);
	free(queue);
	return 0;
}

static int set_up_packed(void **state)
{
	packed = true;
	return set_up(state);
}

static int set_up_split(void **state)
{
	packed = false;
	return set_up(state);
}

static void device_serve(enum fault fault)
{
	struct ring_request request;

	while (ring_device_take(&device, &request)) {
		uint64_t at = request.header->sector * 512;
		if (fault == FAULT_MISPLACE)
			at = (at + UNIT_BYTES) % sizeof(disk);
		assert_true(request.header->type == VIRTIO_BLK_T_FLUSH || at < sizeof(disk));
		if (request.header->type == VIRTIO_BLK_T_IN)
			memcpy(request.data, disk + at, UNIT_BYTES);
		else if (request.header->type == VIRTIO_BLK_T_OUT && fault != FAULT_LOSE_WRITES)
			memcpy(disk + at, request.data, UNIT_BYTES);
		if (fault != FAULT_KEEP_STATUS)
			*request.status =
				fault == FAULT_FAIL ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
		ring_device_give(&device, request.id);
	}
}

static void run(enum fault fault, uint32_t ios, bool verify)
{
	queue->units = verify ? units : NULL;
	queue->remaining = ios;
	bench_queue_start(queue);
	while (queue->outstanding != 0 && queue->broken == NULL) {
		device_serve(fault);
		if (verify)
			bench_queue_poll_verify(queue);
		else
			bench_queue_poll(queue);
	}
}

static void test_counts(void **state)
{
	run(FAULT_NONE, 1000, false);
	assert_null(queue->broken);
	assert_int_equal(stats.reads + stats.writes, 1000);
	assert_true(stats.reads > 400 && stats.reads < 600);
	assert_int_equal(stats.progress, 1000);
	assert_int_equal(stats.latency.count, 1000);
	assert_int_equal(stats.errors, 0);
}

static void test_flushes(void **state)
{
	queue->flush_every = 4;
	queue->read_threshold = 0;
	run(FAULT_NONE, 400, false);
	assert_int_equal(stats.writes, 400);
	assert_true(stats.flushes > 20 && stats.flushes <= 100);
	assert_int_equal(stats.flush_latency.count, stats.flushes);
}

static void test_failures_are_counted(void **state)
{
	run(FAULT_FAIL, 100, false);
	assert_int_equal(stats.errors, 100);
	assert_int_equal(stats.reads + stats.writes, 0);
	assert_int_equal(stats.first_failure.status, VIRTIO_BLK_S_IOERR);
}

static void expect_broken(uint32_t id)
{
	queue->remaining = 100;
	bench_queue_start(queue);
	ring_device_give(&device, id);
	bench_queue_poll(queue);
	assert_non_null(queue->broken);
	assert_int_equal(bench_queue_poll(queue), 0);
}

static void test_wrong_ids(void **state)
{
	/* In the middle of a chain, past the ring, and not outstanding. */
	static const uint32_t of_split[] = {1, 4 * (DEPTH + 1), UINT32_MAX, 4 * DEPTH};
	static const uint32_t of_packed[] = {DEPTH, DEPTH + 1, UINT16_MAX, 128};

	for (size_t i = 0; i < ARRAY_COUNT(of_split); i++) {
		set_up(NULL);
		expect_broken(packed ? of_packed[i] : of_split[i]);
		tear_down(NULL);
	}
}

static int choose_packed(void **state)
{
	packed = true;
	return 0;
}

static int choose_split(void **state)
{
	packed = false;
	return 0;
}

/* Slot 0 comes back, is submitted again in the same batch, and is not published yet when it seems
 * to come back once more. */
static void test_completed_twice(void **state)
{
	struct ring_request request;

	for (uint32_t ios = DEPTH; ios <= 100; ios += 100 - DEPTH) {
		if (ios != DEPTH)
			set_up(NULL);
		queue->remaining = ios;
		bench_queue_start(queue);
		assert_true(ring_device_take(&device, &request));
		*request.status = VIRTIO_BLK_S_OK;
		ring_device_give(&device, 0);
		ring_device_give(&device, 0);
		bench_queue_poll(queue);
		assert_non_null(queue->broken);
		if (ios == DEPTH)
			tear_down(NULL);
	}
}

static void test_rounds_with_pauses(void **state)
{
	queue->think_ticks = 1;
	queue->remaining = 3 * DEPTH;
	bench_queue_start(queue);
	for (uint32_t round = 1; round <= 3; round++) {
		assert_int_equal(queue->outstanding, DEPTH);
		assert_false(bench_queue_pauses(queue));
		device_serve(FAULT_NONE);
		assert_int_equal(bench_queue_poll(queue), DEPTH);
		assert_int_equal(stats.reads + stats.writes, round * DEPTH);
		assert_int_equal(queue->outstanding, 0);
		assert_true(bench_queue_pauses(queue) == (round < 3));
		if (round < 3)
			bench_queue_start(queue);
	}
}

static void test_verify_good_disk(void **state)
{
	run(FAULT_NONE, 5000, true);
	assert_int_equal(stats.verify_errors, 0);
	assert_true(stats.verified_blocks > 5000);
	assert_int_equal(stats.errors, 0);
	uint64_t before = stats.verified_blocks;
	queue->phase = BENCH_PHASE_READBACK;
	queue->cursor = 0;
	run(FAULT_NONE, UNITS, true);
	assert_int_equal(stats.verified_blocks - before, UNITS * UNIT_BYTES / 512);
	assert_int_equal(stats.verify_errors, 0);
}

static void test_verify_sees_lost_writes(void **state)
{
	queue->phase = BENCH_PHASE_FILL;
	run(FAULT_NONE, UNITS, true);
	queue->phase = BENCH_PHASE_WORKLOAD;
	queue->read_threshold = 0;
	run(FAULT_LOSE_WRITES, 1, true);
	queue->phase = BENCH_PHASE_READBACK;
	queue->cursor = 0;
	run(FAULT_NONE, UNITS, true);
	/* One unit, every block of it. */
	assert_int_equal(stats.verify_errors, UNIT_BYTES / 512);
}

static void test_verify_sees_misplaced_reads(void **state)
{
	queue->phase = BENCH_PHASE_FILL;
	run(FAULT_NONE, UNITS, true);
	queue->phase = BENCH_PHASE_READBACK;
	queue->cursor = 0;
	run(FAULT_MISPLACE, UNITS, true);
	assert_int_equal(stats.verify_errors, UNITS * UNIT_BYTES / 512);
}

static void test_verify_sees_unwritten_status(void **state)
{
	run(FAULT_KEEP_STATUS, 100, true);
	assert_int_equal(stats.errors, 100);
	assert_int_equal(stats.first_failure.status, BLK_STATUS_UNSET);
}

static void test_failed_writes_expect_nothing(void **state)
{
	queue->phase = BENCH_PHASE_FILL;
	run(FAULT_FAIL, UNITS, true);
	assert_int_equal(stats.errors, UNITS);
	queue->phase = BENCH_PHASE_READBACK;
	queue->cursor = 0;
	run(FAULT_NONE, UNITS, true);
	assert_int_equal(stats.reads, 0);
	assert_int_equal(stats.verify_errors, 0);
	for (uint32_t i = 0; i < UNITS; i++)
		assert_false(bench_unit_busy(units[i]));
}

#define CASE(name)                                                      \
	cmocka_unit_test_setup_teardown(name, set_up_split, tear_down), \
		cmocka_unit_test_setup_teardown(name, set_up_packed, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_counts),
		CASE(test_flushes),
		CASE(test_failures_are_counted),
		CASE(test_completed_twice),
		CASE(test_rounds_with_pauses),
		CASE(test_verify_good_disk),
		CASE(test_verify_sees_lost_writes),
		CASE(test_verify_sees_misplaced_reads),
		CASE(test_verify_sees_unwritten_status),
		CASE(test_failed_writes_expect_nothing),
		/* Sets itself up for each id. */
		cmocka_unit_test_setup(test_wrong_ids, choose_split),
		cmocka_unit_test_setup(test_wrong_ids, choose_packed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
