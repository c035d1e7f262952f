/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prebuilt virtio-blk requests of one ring: slot i has its header, data buffer, status byte and
 * descriptor chain from the start, and an I/O changes only the header. A target may return slots
 * in any order. Owned by the thread of its ring.
 *
 * Headers lie side by side, and so do status bytes, apart from the headers: a header is written by
 * the driver and read by the device, a status the other way round. Side by side, four headers or
 * 64 statuses cross between the cores with one cache line; mixed, every request would cost two
 * lines that both cores write.
 */
#ifndef SLUICE_FRONTEND_BLK_SLOTS_H
#define SLUICE_FRONTEND_BLK_SLOTS_H

#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#include "frontend/guest_arena.h"
#include "frontend/vring_driver.h"

/* A value that no device writes. */
#define BLK_STATUS_UNSET 0xffu

struct blk_slots_plan {
	uint32_t depth;         /* slots with a data buffer */
	bool flush;             /* one slot more, without data, as the last */
	uint32_t data_bytes;    /* of a slot's buffer */
	uint32_t data_align;    /* power of two */
	uint32_t segment_bytes; /* of a data descriptor, but the last of a chain */
	bool packed;
	/* found by blk_slots_plan() */
	uint32_t segment_count;
	uint32_t slot_count;
	uint8_t head_shift; /* id = slot << head_shift */
	bool indirect;
	uint16_t ring_size;
	uint64_t arena_bytes; /* for the slots and the ring */
};

struct blk_slots {
	struct virtio_blk_outhdr *headers;
	uint8_t *statuses;
	union { /* of slot i from i << chain_shift: header, data, status */
		struct vring_desc *chains;
		struct vring_packed_desc *packed_chains;
	};
	uint8_t *data;
	uint32_t data_stride;
	uint32_t segment_count;
	uint32_t count;
	uint8_t head_shift;
	uint8_t chain_shift;
	bool packed;
	uint16_t next_flag; /* NEXT, but 0 in a packed ring's indirect tables, which go in order */
};

/* Completes a plan from its first group of fields. On a split ring chains of descriptors of the
 * ring itself are preferred (one lookup less for the device), and tables of indirect ones taken
 * when the ring would be too large and the device offers them. On a packed ring, whose descriptors
 * are written by both sides for every I/O, indirect ones are preferred: one line of the ring then
 * carries four I/Os between the cores, not one and a third. 0, or -E2BIG when neither fits. */
int blk_slots_plan(struct blk_slots_plan *plan, bool indirect_offered);

/* Builds the requests in the arena and the descriptors in the ring, which has plan->ring_size
 * entries. Data descriptors begin as those of writes. 0 or -ENOMEM. */
int blk_slots_init(struct blk_slots *slots, const struct blk_slots_plan *plan,
		   struct guest_arena *arena, struct vring_driver *ring);

/* The id of a slot's chain. */
static inline uint16_t blk_slots_head(const struct blk_slots *slots, uint32_t slot)
{
	return (uint16_t)(slot << slots->head_shift);
}

static inline uint8_t *blk_slots_data(const struct blk_slots *slots, uint32_t slot)
{
	return slots->data + (uint64_t)slot * slots->data_stride;
}

/* Needed only when a slot changes from write to read or back: the device writes what is read. */
static inline void blk_slots_set_direction(struct blk_slots *slots, uint32_t slot, bool read)
{
	uint64_t first = ((uint64_t)slot << slots->chain_shift) + 1;
	uint16_t flags = slots->next_flag | (read ? VRING_DESC_F_WRITE : 0);

	for (uint64_t i = first; i < first + slots->segment_count; i++) {
		if (slots->packed)
			slots->packed_chains[i].flags = flags;
		else
			slots->chains[i].flags = flags;
	}
}

/* Writes a slot's chain and unsets its status once more, with what is there already, as a guest's
 * driver does for every request: the lines then move between the cores as they do under a guest. */
static inline void blk_slots_rewrite(struct blk_slots *slots, uint32_t slot)
{
	uint64_t first = (uint64_t)slot << slots->chain_shift;
	uint64_t *words = (uint64_t *)&slots->chains[first];

	_Static_assert(sizeof(struct vring_desc) == 2 * sizeof(*words),
		       "a descriptor is two words");
	for (uint32_t i = 0; i < 2 * (slots->segment_count + 2); i++)
		store_relaxed(&words[i], load_relaxed(&words[i]));
	store_relaxed(&slots->statuses[slot], BLK_STATUS_UNSET);
}

static inline void blk_slots_set_header(struct blk_slots *slots, uint32_t slot, uint32_t type,
					uint64_t sector)
{
	slots->headers[slot].type = type;
	slots->headers[slot].sector = sector;
}

#endif
