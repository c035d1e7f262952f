/* SPDX-License-Identifier: Apache-2.0 */
/* What is particular to split rings (virtio 1.2, section 2.7). Inside of vring_driver.h. */
#ifndef SLUICE_FRONTEND_VRING_DRIVER_SPLIT_H
#define SLUICE_FRONTEND_VRING_DRIVER_SPLIT_H

#include "frontend/vring_driver_state.h"

static inline void vring_split_push(struct vring_driver *ring, uint16_t head)
{
	store_relaxed(&ring->avail->ring[ring->avail_idx & ring->mask], head);
	ring->avail_idx++;
}

static inline void vring_split_publish(struct vring_driver *ring)
{
	/* Release: pairs with the device's acquire load of avail->idx; the chains and ring entries
	 * written before are visible when the new index is. */
	store_release(&ring->avail->idx, ring->avail_idx);
}

static inline uint16_t *vring_split_avail_event(const struct vring_driver *ring)
{
	return (uint16_t *)&ring->used->ring[ring->size];
}

static inline uint16_t *vring_split_used_event(const struct vring_driver *ring)
{
	return &ring->avail->ring[ring->size];
}

static inline bool vring_split_wants_kick(struct vring_driver *ring)
{
	uint16_t old = ring->avail_signalled;

	ring->avail_signalled = ring->avail_idx;
	if (ring->event_idx)
		return vring_need_event(load_relaxed(vring_split_avail_event(ring)),
					ring->avail_idx, old);
	return !(load_relaxed(&ring->used->flags) & VRING_USED_F_NO_NOTIFY);
}

static inline bool vring_split_look(struct vring_driver *ring)
{
	/* Acquire: pairs with the device's release store of used->idx; used entries, status bytes
	 * and data are visible when the index is. */
	ring->used_seen = load_acquire(&ring->used->idx);
	return ring->used_seen != ring->used_idx;
}

static inline bool vring_split_take(struct vring_driver *ring, uint32_t *out_head)
{
	if (ring->used_idx == ring->used_seen)
		return false;
	*out_head = load_relaxed(&ring->used->ring[ring->used_idx++ & ring->mask].id);
	return true;
}

static inline void vring_split_disable_calls(struct vring_driver *ring)
{
	/* With EVENT_IDX an event that has passed is as good: one call in 65536 entries. */
	if (ring->event_idx)
		store_relaxed(vring_split_used_event(ring), (uint16_t)(ring->used_idx - 1));
	else
		store_relaxed(&ring->avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
}

static inline void vring_split_enable_calls(struct vring_driver *ring)
{
	if (ring->event_idx)
		store_relaxed(vring_split_used_event(ring), ring->used_idx);
	else
		store_relaxed(&ring->avail->flags, 0);
}

#endif
