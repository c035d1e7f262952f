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

#define DEPTH 8u
#define UNITS 64u
#define UNIT_BYTES 4096u

static struct guest_arena arena;
static struct bench_queue *queue;
static struct bench_stats stats;
static uint32_t units[UNITS];
static uint8_t disk[UNITS * UNIT_BYTES];
static uint16_t device_seen;

enum fault { FAULT_NONE, FAULT_LOSE_WRITES, FAULT_MISPLACE, FAULT_KEEP_STATUS, FAULT_FAIL };

static int set_up(void **state)
{
	struct blk_slots_plan plan = {
		.depth = DEPTH,
		.flush = true,
		.data_bytes = UNIT_BYTES,
		.data_align = 4096,
		.segment_bytes = UNIT_BYTES,
	};

	assert_int_equal(blk_slots_plan(&plan, false), 0);
	assert_int_equal(guest_arena_create(&arena, plan.arena_bytes, false), 0);
	queue = aligned_alloc(CACHE_LINE_BYTES, sizeof(*queue));
	memset(queue, 0, sizeof(*queue));
	memset(units, 0, sizeof(units));
	memset(disk, 0, sizeof(disk));
	bench_stats_init(&stats);
	device_seen = 0;
	assert_int_equal(vring_driver_init(&queue->ring, &arena, plan.ring_size, false), 0);
	assert_int_equal(blk_slots_init(&queue->slots, &plan, &arena, &queue->ring), 0);
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

static void complete(uint32_t id)
{
	struct vring_used *used = queue->ring.used;

	used->ring[used->idx & queue->ring.mask].id = id;
	store_release(&used->idx, (uint16_t)(used->idx + 1));
}

/* Heads are chains of 4 descriptors from the slot on, as planned for one data segment. */
static void device_serve(enum fault fault)
{
	for (; device_seen != load_acquire(&queue->ring.avail->idx); device_seen++) {
		uint16_t head = queue->ring.avail->ring[device_seen & queue->ring.mask];
		uint32_t slot = head / 4;
		const struct virtio_blk_outhdr *header = &queue->slots.headers[slot];
		uint64_t at = header->sector * 512;
		if (fault == FAULT_MISPLACE)
			at = (at + UNIT_BYTES) % sizeof(disk);
		assert_true(header->type == VIRTIO_BLK_T_FLUSH || at < sizeof(disk));
		if (header->type == VIRTIO_BLK_T_IN)
			memcpy(blk_slots_data(&queue->slots, slot), disk + at, UNIT_BYTES);
		else if (header->type == VIRTIO_BLK_T_OUT && fault != FAULT_LOSE_WRITES)
			memcpy(disk + at, blk_slots_data(&queue->slots, slot), UNIT_BYTES);
		if (fault != FAULT_KEEP_STATUS)
			queue->slots.statuses[slot] =
				fault == FAULT_FAIL ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
		complete(head);
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

static void test_wrong_ids(void **state)
{
	/* In the middle of a chain, past the ring, and not outstanding. */
	static const uint32_t ids[] = {1, 4 * (DEPTH + 1), UINT32_MAX, 4 * DEPTH};

	for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
		set_up(NULL);
		queue->remaining = 100;
		bench_queue_start(queue);
		complete(ids[i]);
		bench_queue_poll(queue);
		assert_non_null(queue->broken);
		assert_int_equal(bench_queue_poll(queue), 0);
		if (i + 1 < ARRAY_COUNT(ids))
			tear_down(NULL);
	}
}

static void test_too_many_completions(void **state)
{
	queue->remaining = 100;
	bench_queue_start(queue);
	for (uint32_t i = 0; i <= DEPTH; i++)
		complete(0);
	assert_int_equal(bench_queue_poll(queue), 0);
	assert_non_null(queue->broken);
}

static void test_completed_twice(void **state)
{
	queue->remaining = DEPTH;
	bench_queue_start(queue);
	queue->slots.statuses[0] = VIRTIO_BLK_S_OK;
	complete(0);
	complete(0);
	bench_queue_poll(queue);
	assert_non_null(queue->broken);
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

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_counts),
		CASE(test_flushes),
		CASE(test_failures_are_counted),
		CASE(test_too_many_completions),
		CASE(test_completed_twice),
		CASE(test_verify_good_disk),
		CASE(test_verify_sees_lost_writes),
		CASE(test_verify_sees_misplaced_reads),
		CASE(test_verify_sees_unwritten_status),
		CASE(test_failed_writes_expect_nothing),
		/* Sets itself up for each id. */
		cmocka_unit_test_teardown(test_wrong_ids, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
