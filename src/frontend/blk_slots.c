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
	if (plan->indirect || plan->packed)
		bytes += plan->slot_count * chain_bytes(plan);
	if (plan->indirect && plan->packed)
		bytes += plan->slot_count * sizeof(struct vring_packed_desc);
	/* What rounding up may cost before each of the five. */
	return bytes + 4 * HEADER_ALIGN + plan->data_align;
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
	plan->indirect |= plan->packed && indirect_offered;
	uint8_t slot_shift = plan->indirect ? 0 : chain_shift;
	plan->head_shift = plan->packed ? 0 : slot_shift;
	/* An indirect chain may not be longer than the ring either (virtio 1.2, 2.7.5.3.1). */
	uint32_t entries = MAX(plan->slot_count << slot_shift, plan->segment_count + 2);
	plan->ring_size = (uint16_t)MAX(1u << log2_up(entries), RING_SIZE_MIN);
	plan->arena_bytes = slots_bytes(plan) + vring_driver_arena_bytes(plan->ring_size);
	return 0;
}

static void desc_write(struct blk_slots *slots, uint64_t index, struct vring_desc desc)
{
	if (slots->packed)
		slots->packed_chains[index] = (struct vring_packed_desc){
			.addr = desc.addr,
			.len = desc.len,
			.flags = desc.flags,
		};
	else
		slots->chains[index] = desc;
}

/* The chain of one slot: header, data (none for the flush slot), status. first_index is the index
 * of its first descriptor in its table. Returns how many there are. */
static uint32_t chain_build(struct blk_slots *slots, const struct blk_slots_plan *plan,
			    const struct guest_arena *arena, uint32_t slot, uint16_t first_index)
{
	uint64_t at = (uint64_t)slot << slots->chain_shift;
	uint32_t data_bytes = slot < plan->depth ? plan->data_bytes : 0;
	struct vring_desc desc = {
		.addr = guest_arena_address(arena, &slots->headers[slot]),
		.len = sizeof(struct virtio_blk_outhdr),
		.flags = slots->next_flag,
		.next = (uint16_t)(first_index + 1),
	};

	desc_write(slots, at++, desc);
	for (uint32_t done = 0; done < data_bytes; done += desc.len) {
		desc.addr = guest_arena_address(arena, blk_slots_data(slots, slot) + done);
		desc.len = MIN(plan->segment_bytes, data_bytes - done);
		desc.next++;
		desc_write(slots, at++, desc);
	}
	desc = (struct vring_desc){
		.addr = guest_arena_address(arena, &slots->statuses[slot]),
		.len = 1,
		.flags = VRING_DESC_F_WRITE,
	};
	desc_write(slots, at++, desc);
	return (uint32_t)(at - ((uint64_t)slot << slots->chain_shift));
}

/* Where a table of indirect descriptors is, as one descriptor of the ring. */
static struct vring_desc table_desc(const struct blk_slots *slots, const struct guest_arena *arena,
				    uint32_t slot, uint32_t count)
{
	uint64_t first = (uint64_t)slot << slots->chain_shift;

	/* Descriptors of both formats are of one size. */
	return (struct vring_desc){
		.addr = guest_arena_address(arena, &slots->chains[first]),
		.len = count * (uint32_t)sizeof(struct vring_desc),
		.flags = VRING_DESC_F_INDIRECT,
	};
}

static void slots_build(struct blk_slots *slots, const struct blk_slots_plan *plan,
			const struct guest_arena *arena, struct vring_driver *ring,
			struct vring_packed_desc *tables)
{
	for (uint32_t slot = 0; slot < plan->slot_count; slot++) {
		uint16_t first = plan->indirect ? 0 : blk_slots_head(slots, slot);
		uint32_t count = chain_build(slots, plan, arena, slot, first);
		if (ring->packed)
			vring_driver_set_chain_slots(ring, slot,
						     plan->indirect ? 1 : (uint16_t)count);
		if (!plan->indirect)
			continue;
		struct vring_desc table = table_desc(slots, arena, slot, count);
		if (ring->packed)
			tables[slot] = (struct vring_packed_desc){
				.addr = table.addr,
				.len = table.len,
				.flags = table.flags,
			};
		else
			ring->desc[slot] = table;
	}
}

int blk_slots_init(struct blk_slots *slots, const struct blk_slots_plan *plan,
		   struct guest_arena *arena, struct vring_driver *ring)
{
	ensure(ring->size == plan->ring_size && ring->packed == plan->packed);
	uint64_t header_bytes = plan->slot_count * sizeof(struct virtio_blk_outhdr);
	uint64_t table_bytes = plan->slot_count * sizeof(struct vring_packed_desc);
	struct vring_packed_desc *tables = NULL;

	*slots = (struct blk_slots){
		.headers = guest_arena_alloc(arena, header_bytes, HEADER_ALIGN),
		.statuses = guest_arena_alloc(arena, plan->slot_count, HEADER_ALIGN),
		.chains = ring->desc,
		.data_stride = data_stride(plan),
		.segment_count = plan->segment_count,
		.count = plan->slot_count,
		.head_shift = plan->head_shift,
		.chain_shift = log2_up(plan->segment_count + 2),
		.packed = plan->packed,
		.next_flag = plan->packed && plan->indirect ? 0 : VRING_DESC_F_NEXT,
	};
	if (plan->indirect || plan->packed)
		slots->chains = guest_arena_alloc(arena, plan->slot_count * chain_bytes(plan),
						  HEADER_ALIGN);
	if (plan->indirect && plan->packed)
		tables = guest_arena_alloc(arena, table_bytes, HEADER_ALIGN);
	slots->data = guest_arena_alloc(arena, (uint64_t)plan->depth * slots->data_stride,
					plan->data_align);
	if (slots->headers == NULL || slots->statuses == NULL || slots->chains == NULL ||
	    slots->data == NULL || (plan->indirect && plan->packed && tables == NULL))
		return -ENOMEM;

	memset(slots->statuses, BLK_STATUS_UNSET, plan->slot_count);
	if (plan->packed && plan->indirect)
		vring_driver_set_chains(ring, tables, 0, plan->slot_count);
	else if (plan->packed)
		vring_driver_set_chains(ring, slots->packed_chains, slots->chain_shift,
					plan->slot_count);
	slots_build(slots, plan, arena, ring, tables);
	return 0;
}
