/* SPDX-License-Identifier: Apache-2.0 */
/* Planning and building the requests of a ring: see blk_slots.h, also for who owns them. */
#include "frontend/blk_slots.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* A small ring is no faster, and some targets never see one smaller than a VM's usual 128. */
#define RING_SIZE_MIN 128u
#define HEADER_ALIGN CACHE_LINE_BYTES

/* The exponent of the smallest power of two that is at least n. */
static uint8_t log2_up(uint32_t n)
{
	return n <= 1 ? 0 : (uint8_t)(32 - __builtin_clz(n - 1));
}

static uint64_t chain_bytes(const struct blk_slots_plan *plan)
{
	return sizeof(struct vring_desc) << log2_up(plan->segment_count + 2);
}

static uint32_t data_stride(const struct blk_slots_plan *plan)
{
	return (plan->data_bytes + plan->data_align - 1) & ~(plan->data_align - 1);
}

static uint64_t slots_bytes(const struct blk_slots_plan *plan)
{
	uint64_t bytes = (uint64_t)plan->slot_count * sizeof(struct virtio_blk_outhdr);

	bytes += plan->slot_count;
	bytes += (uint64_t)plan->depth * data_stride(plan);
	if (plan->indirect)
		bytes += plan->slot_count * chain_bytes(plan);
	/* What rounding up may cost before each of the four. */
	return bytes + 3 * HEADER_ALIGN + plan->data_align;
}

int blk_slots_plan(struct blk_slots_plan *plan, bool indirect_offered)
{
	ensure(plan->depth > 0 && plan->data_bytes > 0 && plan->segment_bytes > 0);
	ensure((plan->data_align & (plan->data_align - 1)) == 0);
	plan->segment_count = (plan->data_bytes - 1) / plan->segment_bytes + 1;
	plan->slot_count = plan->depth + (plan->flush ? 1 : 0);
	if (plan->segment_count > VRING_DRIVER_SIZE_MAX - 2 ||
	    plan->slot_count > VRING_DRIVER_SIZE_MAX)
		return -E2BIG;

	uint8_t chain_shift = log2_up(plan->segment_count + 2);
	plan->indirect = ((uint64_t)plan->slot_count << chain_shift) > VRING_DRIVER_SIZE_MAX;
	if (plan->indirect && !indirect_offered)
		return -E2BIG;
	plan->head_shift = plan->indirect ? 0 : chain_shift;
	/* An indirect chain may not be longer than the ring either (virtio 1.2, 2.7.5.3.1). */
	uint32_t entries = MAX(plan->slot_count << plan->head_shift, plan->segment_count + 2);
	plan->ring_size = (uint16_t)MAX(1u << log2_up(entries), RING_SIZE_MIN);
	plan->arena_bytes = slots_bytes(plan) + vring_driver_arena_bytes(plan->ring_size);
	return 0;
}

/* The chain of one slot: header, data (none for the flush slot), status. first_index is the index
 * of chain[0] in its table. */
static void chain_build(struct blk_slots *slots, const struct blk_slots_plan *plan,
			const struct guest_arena *arena, uint32_t slot, uint16_t first_index)
{
	struct vring_desc *chain = &slots->chains[(uint64_t)slot << slots->chain_shift];
	bool has_data = slot < plan->depth;
	uint32_t count = 0;

	chain[count++] = (struct vring_desc){
		.addr = guest_arena_address(arena, &slots->headers[slot]),
		.len = sizeof(struct virtio_blk_outhdr),
		.flags = VRING_DESC_F_NEXT,
	};
	for (uint32_t at = 0; has_data && at < plan->data_bytes; at += plan->segment_bytes) {
		chain[count++] = (struct vring_desc){
			.addr = guest_arena_address(arena, blk_slots_data(slots, slot) + at),
			.len = MIN(plan->segment_bytes, plan->data_bytes - at),
			.flags = VRING_DESC_F_NEXT,
		};
	}
	chain[count++] = (struct vring_desc){
		.addr = guest_arena_address(arena, &slots->statuses[slot]),
		.len = 1,
		.flags = VRING_DESC_F_WRITE,
	};
	for (uint32_t i = 0; i + 1 < count; i++)
		chain[i].next = (uint16_t)(first_index + i + 1);
}

static void indirect_build(struct blk_slots *slots, const struct blk_slots_plan *plan,
			   const struct guest_arena *arena, struct vring_driver *ring,
			   uint32_t slot)
{
	bool has_data = slot < plan->depth;
	uint32_t count = 2 + (has_data ? plan->segment_count : 0);

	ring->desc[slot] = (struct vring_desc){
		.addr = guest_arena_address(arena,
					    &slots->chains[(uint64_t)slot << slots->chain_shift]),
		.len = count * (uint32_t)sizeof(struct vring_desc),
		.flags = VRING_DESC_F_INDIRECT,
	};
}

int blk_slots_init(struct blk_slots *slots, const struct blk_slots_plan *plan,
		   struct guest_arena *arena, struct vring_driver *ring)
{
	ensure(ring->size == plan->ring_size);
	uint64_t header_bytes = plan->slot_count * sizeof(struct virtio_blk_outhdr);
	*slots = (struct blk_slots){
		.headers = guest_arena_alloc(arena, header_bytes, HEADER_ALIGN),
		.statuses = guest_arena_alloc(arena, plan->slot_count, HEADER_ALIGN),
		.data_stride = data_stride(plan),
		.segment_count = plan->segment_count,
		.count = plan->slot_count,
		.head_shift = plan->head_shift,
		.chain_shift = log2_up(plan->segment_count + 2),
	};
	slots->chains = ring->desc;
	if (plan->indirect)
		slots->chains = guest_arena_alloc(arena, plan->slot_count * chain_bytes(plan),
						  HEADER_ALIGN);
	slots->data = guest_arena_alloc(arena, (uint64_t)plan->depth * slots->data_stride,
					plan->data_align);
	if (slots->headers == NULL || slots->statuses == NULL || slots->chains == NULL ||
	    slots->data == NULL)
		return -ENOMEM;

	memset(slots->statuses, BLK_STATUS_UNSET, plan->slot_count);
	for (uint32_t slot = 0; slot < plan->slot_count; slot++) {
		uint16_t first = plan->indirect ? 0 : blk_slots_head(slots, slot);
		chain_build(slots, plan, arena, slot, first);
		if (plan->indirect)
			indirect_build(slots, plan, arena, ring, slot);
	}
	return 0;
}
