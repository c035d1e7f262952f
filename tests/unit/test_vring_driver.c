/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver side of a virtqueue against a device of a few lines: prebuilt requests as the device
 * sees them, wrap-around of the 16-bit indices, notification, the planning of rings.
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

static struct guest_arena arena;
static struct vring_driver ring;
static struct blk_slots slots;
static struct blk_slots_plan plan;

static void set_up(uint32_t depth, bool flush, uint32_t data_bytes, uint32_t segment_bytes,
		   bool indirect_offered)
{
	plan = (struct blk_slots_plan){
		.depth = depth,
		.flush = flush,
		.data_bytes = data_bytes,
		.data_align = 4096,
		.segment_bytes = segment_bytes,
	};
	assert_int_equal(blk_slots_plan(&plan, indirect_offered), 0);
	assert_int_equal(guest_arena_create(&arena, plan.arena_bytes, false), 0);
	assert_int_equal(vring_driver_init(&ring, &arena, plan.ring_size, false), 0);
	assert_int_equal(blk_slots_init(&slots, &plan, &arena, &ring), 0);
}

static void tear_down(void)
{
	vring_driver_fini(&ring);
	guest_arena_destroy(&arena);
}

static void *at_address(uint64_t address)
{
	assert_true(address >= GUEST_ARENA_BASE);
	assert_true(address - GUEST_ARENA_BASE < arena.size_bytes);
	return arena.base + (address - GUEST_ARENA_BASE);
}

/* What a device finds when it walks the chain of a head. */
struct walked {
	const struct virtio_blk_outhdr *header;
	uint8_t *data;
	uint64_t data_bytes;
	uint32_t segments;
	bool device_writes;
	uint8_t *status;
};

static struct walked walk(uint16_t head)
{
	struct walked found = {0};
	const struct vring_desc *table = ring.desc;
	uint32_t limit = ring.size;
	uint32_t index = head;

	assert_true(head < ring.size);
	if (table[index].flags == VRING_DESC_F_INDIRECT) {
		limit = table[index].len / sizeof(struct vring_desc);
		table = at_address(table[index].addr);
		index = 0;
	}
	const struct vring_desc *desc = &table[index];
	assert_int_equal(desc->len, sizeof(struct virtio_blk_outhdr));
	assert_int_equal(desc->flags, VRING_DESC_F_NEXT);
	found.header = at_address(desc->addr);
	for (uint32_t steps = 0;; steps++) {
		assert_true(steps < limit && desc->next < limit);
		desc = &table[desc->next];
		if (!(desc->flags & VRING_DESC_F_NEXT))
			break;
		if (found.segments++ == 0)
			found.data = at_address(desc->addr);
		found.data_bytes += desc->len;
		found.device_writes = (desc->flags & VRING_DESC_F_WRITE) != 0;
	}
	assert_int_equal(desc->flags, VRING_DESC_F_WRITE);
	assert_int_equal(desc->len, 1);
	found.status = at_address(desc->addr);
	return found;
}

static void check_all_slots(uint32_t segments)
{
	for (uint32_t slot = 0; slot < slots.count; slot++) {
		bool has_data = slot < plan.depth;
		struct walked found = walk(blk_slots_head(&slots, slot));
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
		assert_true(walk(blk_slots_head(&slots, slot)).device_writes);
		blk_slots_set_direction(&slots, slot, false);
		assert_false(walk(blk_slots_head(&slots, slot)).device_writes);
	}
}

static void test_direct_chains(void **state)
{
	set_up(64, true, 4096, 4096, true);
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

/* The device: completes whatever is new, in reverse, one publication for all. */
static uint16_t device_run(uint16_t *seen)
{
	uint16_t avail = load_acquire(&ring.avail->idx);
	uint16_t used = ring.used->idx;
	uint16_t count = (uint16_t)(avail - *seen);

	for (uint16_t i = count; i > 0; i--) {
		uint16_t head = ring.avail->ring[(uint16_t)(*seen + i - 1) & ring.mask];
		struct walked found = walk(head);
		*found.status = VIRTIO_BLK_S_OK;
		ring.used->ring[used++ & ring.mask].id = head;
	}
	*seen = avail;
	store_release(&ring.used->idx, used);
	return count;
}

static void test_indices_wrap(void **state)
{
	uint16_t seen = 0;

	set_up(30, false, 4096, 4096, false);
	for (uint32_t round = 0; round < 10000; round++) {
		uint32_t count = round % 30 + 1;
		for (uint32_t slot = 0; slot < count; slot++) {
			blk_slots_set_header(&slots, slot, VIRTIO_BLK_T_IN, round);
			vring_driver_push(&ring, blk_slots_head(&slots, slot));
		}
		assert_int_equal(vring_driver_used_count(&ring), 0);
		assert_int_equal(device_run(&seen), 0);
		vring_driver_publish(&ring);
		assert_int_equal(device_run(&seen), count);
		assert_int_equal(vring_driver_used_count(&ring), count);
		for (uint32_t slot = count; slot > 0; slot--)
			assert_int_equal(vring_driver_take(&ring),
					 blk_slots_head(&slots, slot - 1));
		assert_int_equal(vring_driver_used_count(&ring), 0);
	}
	assert_int_equal(slots.headers[0].sector, 9999);
	tear_down();
}

static void test_kicks_only_when_wanted(void **state)
{
	uint64_t value;

	set_up(4, false, 4096, 4096, false);
	assert_int_equal(ring.avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
	ring.used->flags = VRING_USED_F_NO_NOTIFY;
	vring_driver_publish(&ring);
	vring_driver_kick(&ring);
	assert_int_equal(ring.kick_count, 0);
	assert_int_equal(read(ring.kick_fd, &value, sizeof(value)), -1);
	ring.used->flags = 0;
	vring_driver_kick(&ring);
	assert_int_equal(ring.kick_count, 1);
	assert_int_equal(read(ring.kick_fd, &value, sizeof(value)), sizeof(value));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_direct_chains),
		cmocka_unit_test(test_segmented_chains),
		cmocka_unit_test(test_indirect_chains),
		cmocka_unit_test(test_plans),
		cmocka_unit_test(test_indices_wrap),
		cmocka_unit_test(test_kicks_only_when_wanted),
		cmocka_unit_test(test_arena_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
