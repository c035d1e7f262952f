/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver side of a virtqueue, in both formats, against a device of a few lines: prebuilt
 * requests as the device sees them, wrap-around, notification, the planning of rings.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/blk_slots.h"
#include "frontend/guest_arena.h"
#include "frontend/vring_driver.h"
#include "ring_device.h"

static struct guest_arena arena;
static struct vring_driver ring;
static struct ring_device device;
static struct blk_slots slots;
static struct blk_slots_plan plan;

/* How the rings of the next test are. */
static struct vring_driver_options ring_options;

static int with_split(void **state)
{
	ring_options = (struct vring_driver_options){.packed = false};
	return 0;
}

static int with_split_events(void **state)
{
	ring_options = (struct vring_driver_options){.event_idx = true};
	return 0;
}

static int with_packed(void **state)
{
	ring_options = (struct vring_driver_options){.packed = true};
	return 0;
}

static int with_packed_events(void **state)
{
	ring_options = (struct vring_driver_options){.packed = true, .event_idx = true};
	return 0;
}

static void set_up(uint32_t depth, bool flush, uint32_t data_bytes, uint32_t segment_bytes,
		   bool indirect_offered)
{
	plan = (struct blk_slots_plan){
		.depth = depth,
		.flush = flush,
		.data_bytes = data_bytes,
		.data_align = 4096,
		.segment_bytes = segment_bytes,
		.packed = ring_options.packed,
	};
	assert_int_equal(blk_slots_plan(&plan, indirect_offered), 0);
	assert_int_equal(guest_arena_create(&arena, plan.arena_bytes, false), 0);
	ring_options.size = plan.ring_size;
	assert_int_equal(vring_driver_init(&ring, &arena, &ring_options), 0);
	assert_int_equal(blk_slots_init(&slots, &plan, &arena, &ring), 0);
	ring_device_init(&device, &ring, &arena);
}

static void tear_down(void)
{
	vring_driver_fini(&ring);
	guest_arena_destroy(&arena);
}

static void submit(uint32_t slot)
{
	vring_driver_push(&ring, blk_slots_head(&slots, slot));
	vring_driver_publish(&ring);
}

/* A round trip of one slot; what the device saw. */
static struct ring_request pass(uint32_t slot)
{
	struct ring_request found;
	uint32_t id;

	submit(slot);
	assert_true(ring_device_take(&device, &found));
	assert_int_equal(found.id, blk_slots_head(&slots, slot));
	ring_device_give(&device, found.id);
	assert_true(vring_driver_look(&ring));
	assert_true(vring_driver_take(&ring, &id));
	assert_int_equal(id, found.id);
	assert_false(vring_driver_take(&ring, &id));
	return found;
}

static void check_all_slots(uint32_t segments)
{
	for (uint32_t slot = 0; slot < slots.count; slot++) {
		bool has_data = slot < plan.depth;
		struct ring_request found = pass(slot);
		assert_ptr_equal(found.header, &slots.headers[slot]);
		assert_ptr_equal(found.status, &slots.statuses[slot]);
		assert_int_equal(*found.status, BLK_STATUS_UNSET);
		assert_int_equal(found.segments, has_data ? segments : 0);
		assert_int_equal(found.data_bytes, has_data ? plan.data_bytes : 0);
		if (!has_data)
			continue;
		assert_ptr_equal(found.data, blk_slots_data(&slots, slot));
		assert_false(found.device_writes);
		blk_slots_set_direction(&slots, slot, true);
		assert_true(pass(slot).device_writes);
		blk_slots_set_direction(&slots, slot, false);
		assert_false(pass(slot).device_writes);
	}
}

static void test_direct_chains(void **state)
{
	set_up(64, true, 4096, 4096, !ring_options.packed);
	assert_false(plan.indirect);
	check_all_slots(1);
	tear_down();
}

static void test_segmented_chains(void **state)
{
	set_up(16, false, 10 * 4096 + 512, 4096, false);
	assert_false(plan.indirect);
	check_all_slots(11);
	tear_down();
}

static void test_indirect_chains(void **state)
{
	set_up(1000, true, 8192, 4096, true);
	assert_true(plan.indirect);
	assert_int_equal(plan.ring_size, 1024);
	check_all_slots(2);
	tear_down();
}

/* Packed: whenever they are offered. */
static void test_small_indirect_chains(void **state)
{
	set_up(64, true, 4096, 4096, true);
	assert_true(plan.indirect);
	assert_int_equal(plan.ring_size, 128);
	check_all_slots(1);
	tear_down();
}

static int plan_rc(uint32_t depth, bool flush, uint32_t segments, bool indirect)
{
	plan = (struct blk_slots_plan){
		.depth = depth,
		.flush = flush,
		.data_bytes = segments * 512,
		.data_align = 512,
		.segment_bytes = 512,
	};
	return blk_slots_plan(&plan, indirect);
}

static void test_plans(void **state)
{
	assert_int_equal(plan_rc(256, false, 1, false), 0);
	assert_int_equal(plan.ring_size, 1024);
	assert_int_equal(plan_rc(256, true, 1, false), -E2BIG);
	assert_int_equal(plan_rc(256, true, 1, true), 0);
	assert_true(plan.indirect);
	assert_int_equal(plan.ring_size, 512);
	assert_int_equal(plan_rc(1024, false, 1, true), 0);
	assert_int_equal(plan_rc(1024, true, 1, true), -E2BIG);
	assert_int_equal(plan_rc(1, false, 1, false), 0);
	assert_int_equal(plan.ring_size, 128);
	/* The ring is never shorter than an indirect chain. */
	assert_int_equal(plan_rc(4, false, 1022, true), 0);
	assert_int_equal(plan.ring_size, 1024);
	assert_int_equal(plan_rc(1, false, 1023, true), -E2BIG);
}

/* Completes whatever is new, in reverse. */
static uint32_t device_run(void)
{
	uint32_t ids[64];
	struct ring_request found;
	uint32_t count = 0;

	while (ring_device_take(&device, &found)) {
		*found.status = VIRTIO_BLK_S_OK;
		ids[count++] = found.id;
	}
	for (uint32_t i = count; i > 0; i--)
		ring_device_give(&device, ids[i - 1]);
	return count;
}

/* Batches of all lengths, several laps of the ring and of the 16-bit indices. */
static void run_batches(void)
{
	uint32_t id;

	for (uint32_t round = 0; round < 10000; round++) {
		uint32_t count = round % 30 + 1;
		for (uint32_t slot = 0; slot < count; slot++) {
			blk_slots_set_header(&slots, slot, VIRTIO_BLK_T_IN, round);
			vring_driver_push(&ring, blk_slots_head(&slots, slot));
		}
		assert_false(vring_driver_look(&ring));
		assert_int_equal(device_run(), 0);
		vring_driver_publish(&ring);
		assert_int_equal(device_run(), count);
		assert_true(vring_driver_look(&ring));
		for (uint32_t slot = count; slot > 0; slot--) {
			assert_true(vring_driver_take(&ring, &id));
			assert_int_equal(id, blk_slots_head(&slots, slot - 1));
		}
		assert_false(vring_driver_look(&ring));
		assert_false(vring_driver_take(&ring, &id));
	}
	assert_int_equal(slots.headers[0].sector, 9999);
}

static void test_indices_wrap(void **state)
{
	set_up(30, true, 4096, 4096, false);
	run_batches();
	tear_down();
	set_up(30, true, 4096, 4096, true);
	run_batches();
	tear_down();
}

/* A wrong id is handed on as it is, and moves nothing that is not there. */
static void test_wrong_ids(void **state)
{
	uint32_t id;

	set_up(4, false, 4096, 4096, false);
	submit(0);
	ring_device_give(&device, 60000);
	assert_true(vring_driver_look(&ring));
	assert_true(vring_driver_take(&ring, &id));
	assert_int_equal(id, 60000);
	tear_down();
}

static bool kicked(void)
{
	uint64_t value;

	vring_driver_kick(&ring);
	return read(ring.kick_fd, &value, sizeof(value)) == sizeof(value);
}

static void test_kicks_only_when_wanted(void **state)
{
	set_up(4, false, 4096, 4096, false);
	for (uint32_t round = 0; round < 70000; round++) {
		bool wanted = round % 3 == 0;
		ring_device_ask_kicks(&device, wanted);
		submit(round % 4);
		/* One that the device has asked for and got is not repeated with EVENT_IDX. */
		uint64_t before = ring.kick_count;
		if (kicked() != wanted || ring.kick_count - before != wanted)
			fail_msg("round %u: kick wanted: %d", round, wanted);
		if (ring_options.event_idx) {
			submit((round + 1) % 4);
			assert_false(kicked());
		}
		uint32_t id, count = device_run();
		assert_true(vring_driver_look(&ring));
		while (vring_driver_take(&ring, &id))
			count--;
		assert_int_equal(count, 0);
	}
	tear_down();
}

static void test_calls_only_when_wanted(void **state)
{
	set_up(4, false, 4096, 4096, false);
	for (uint32_t round = 0; round < 70000; round++) {
		bool wanted = round % 5 == 0;
		uint32_t id;
		if (wanted)
			assert_true(vring_driver_enable_calls(&ring));
		submit(round % 4);
		assert_int_equal(device_run(), 1);
		if (ring_device_must_call(&device) != wanted)
			fail_msg("round %u: call wanted: %d", round, wanted);
		if (wanted)
			assert_false(vring_driver_enable_calls(&ring));
		assert_true(vring_driver_look(&ring));
		assert_true(vring_driver_take(&ring, &id));
		vring_driver_disable_calls(&ring);
	}
	tear_down();
}

static void test_arena_ends(void **state)
{
	assert_int_equal(guest_arena_create(&arena, 1, false), 0);
	assert_int_equal(arena.size_bytes, GUEST_ARENA_GRANULE);
	uint8_t *first = guest_arena_alloc(&arena, 1, 1);
	uint8_t *second = guest_arena_alloc(&arena, 1, 4096);
	assert_int_equal(second - first, 4096);
	assert_int_equal(guest_arena_address(&arena, second), GUEST_ARENA_BASE + 4096);
	assert_null(guest_arena_alloc(&arena, GUEST_ARENA_GRANULE, 1));
	assert_null(guest_arena_alloc(&arena, UINT64_MAX, 1));
	assert_non_null(guest_arena_alloc(&arena, GUEST_ARENA_GRANULE - 4097, 1));
	assert_null(guest_arena_alloc(&arena, 1, 1));
	guest_arena_destroy(&arena);
}

#define SPLIT(name) cmocka_unit_test_setup(name, with_split)
#define PACKED(name) cmocka_unit_test_setup(name, with_packed)
#define WITH_EVENTS(name)                                \
	cmocka_unit_test_setup(name, with_split_events), \
		cmocka_unit_test_setup(name, with_packed_events)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPLIT(test_direct_chains),
		PACKED(test_direct_chains),
		SPLIT(test_segmented_chains),
		PACKED(test_segmented_chains),
		SPLIT(test_indirect_chains),
		PACKED(test_indirect_chains),
		PACKED(test_small_indirect_chains),
		SPLIT(test_plans),
		SPLIT(test_indices_wrap),
		PACKED(test_indices_wrap),
		SPLIT(test_wrong_ids),
		PACKED(test_wrong_ids),
		SPLIT(test_kicks_only_when_wanted),
		PACKED(test_kicks_only_when_wanted),
		WITH_EVENTS(test_kicks_only_when_wanted),
		SPLIT(test_calls_only_when_wanted),
		PACKED(test_calls_only_when_wanted),
		WITH_EVENTS(test_calls_only_when_wanted),
		cmocka_unit_test(test_arena_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
