/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is particular to packed rings (virtio 1.2, section 2.8). Inside of vring_driver.h.
 *
 * Available descriptors overwrite used ones, so a chain is copied into the ring for each I/O, from
 * where it was prepared once.
 */
#ifndef SLUICE_FRONTEND_VRING_DRIVER_PACKED_H
#define SLUICE_FRONTEND_VRING_DRIVER_PACKED_H

#include "frontend/vring_driver_state.h"

#define VRING_PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define VRING_PACKED_USED (1u << VRING_PACKED_DESC_F_USED)
#define VRING_PACKED_BOTH (VRING_PACKED_AVAIL | VRING_PACKED_USED)
#define VRING_PACKED_EVENT_WRAP (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

static inline void vring_packed_push(struct vring_driver *ring, uint16_t id)
{
	const struct vring_packed_desc *from = &ring->chains[(uint32_t)id << ring->chain_shift];
	uint16_t count = ring->chain_slots[id];

	for (uint16_t i = 0; i < count; i++) {
		struct vring_packed_desc *to = &ring->packed_desc[ring->avail_idx];
		uint16_t flags = from[i].flags | ring->avail_flags;

		store_relaxed(&to->addr, from[i].addr);
		store_relaxed(&to->len, from[i].len);
		store_relaxed(&to->id, id);
		/* The device stops at the first one while its flags are old, whatever lies behind:
		 * the batch is published by them. */
		if (ring->first == NULL) {
			ring->first = to;
			ring->first_flags = flags;
		} else {
			store_relaxed(&to->flags, flags);
		}
		if (++ring->avail_idx == ring->size) {
			ring->avail_idx = 0;
			ring->avail_flags ^= VRING_PACKED_BOTH;
		}
	}
	ring->pushed_slots += count;
}

static inline void vring_packed_publish(struct vring_driver *ring)
{
	if (ring->first == NULL)
		return;
	/* Release: pairs with the device's acquire load of the flags; everything else of the batch
	 * is visible when they are. */
	store_release(&ring->first->flags, ring->first_flags);
	ring->first = NULL;
}

static inline bool vring_packed_wants_kick(struct vring_driver *ring)
{
	uint16_t flags = load_relaxed(&ring->device_event->flags);
	uint16_t off_wrap = load_relaxed(&ring->device_event->off_wrap);
	uint16_t old = (uint16_t)(ring->avail_idx - ring->pushed_slots);

	ring->pushed_slots = 0;
	if (!ring->event_idx || flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	uint16_t event = off_wrap & (uint16_t)~VRING_PACKED_EVENT_WRAP;
	/* Of the lap before: counts from below zero, as old does. */
	if (!(off_wrap & VRING_PACKED_EVENT_WRAP) != !(ring->avail_flags & VRING_PACKED_AVAIL))
		event = (uint16_t)(event - ring->size);
	return vring_need_event(event, ring->avail_idx, old);
}

static inline bool vring_packed_look(const struct vring_driver *ring)
{
	/* Acquire: pairs with the device's release store of the flags; id, status byte and data
	 * are visible when they are. */
	uint16_t flags = load_acquire(&ring->packed_desc[ring->used_idx].flags);

	return (flags & VRING_PACKED_BOTH) == ring->used_flags;
}

static inline bool vring_packed_take(struct vring_driver *ring, uint32_t *out_id)
{
	if (!vring_packed_look(ring))
		return false;
	uint32_t id = load_relaxed(&ring->packed_desc[ring->used_idx].id);
	*out_id = id;
	/* An id that is none goes no further: the caller will give the ring up. */
	uint32_t next = ring->used_idx;
	next += likely(id < ring->chain_count) ? ring->chain_slots[id] : 0;
	if (next >= ring->size) {
		next -= ring->size;
		ring->used_flags ^= VRING_PACKED_BOTH;
	}
	ring->used_idx = (uint16_t)next;
	return true;
}

static inline void vring_packed_disable_calls(struct vring_driver *ring)
{
	store_relaxed(&ring->driver_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
}

static inline void vring_packed_enable_calls(struct vring_driver *ring)
{
	uint16_t wrap = ring->used_flags & VRING_PACKED_USED ? VRING_PACKED_EVENT_WRAP : 0;

	store_relaxed(&ring->driver_event->off_wrap, ring->used_idx | wrap);
	/* Release: the device that sees DESC sees where. */
	store_release(&ring->driver_event->flags, ring->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
								  : VRING_PACKED_EVENT_FLAG_ENABLE);
}

#endif
