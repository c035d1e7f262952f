/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver side of a virtqueue, split or packed (virtio 1.2, sections 2.7 and 2.8). Chains of
 * descriptors are prepared once at set-up by the owner of the ring and known by an id: on a split
 * ring the index of the chain's first descriptor, on a packed ring the buffer id. An I/O then
 * costs one entry of the avail ring and one of the used ring, or the copy of its chain into the
 * packed ring, which is one descriptor when it is indirect. Owned by one thread after set-up.
 *
 * What the device writes (used->idx, ids, flags) is not trusted: the caller checks ids.
 */
#ifndef SLUICE_FRONTEND_VRING_DRIVER_H
#define SLUICE_FRONTEND_VRING_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/guest_arena.h"
#include "frontend/vring_driver_packed.h"
#include "frontend/vring_driver_split.h"
#include "frontend/vring_driver_state.h"

struct vring_driver_options {
	uint16_t size; /* a power of two up to VRING_DRIVER_SIZE_MAX */
	bool packed;
	bool event_idx; /* VIRTIO_RING_F_EVENT_IDX is negotiated */
};

/* Bytes of arena that a ring of that size takes, in either format. */
uint64_t vring_driver_arena_bytes(uint16_t size);

/* The device is asked not to signal the call eventfd until vring_driver_enable_calls(). 0, -ENOMEM
 * (arena used up) or -errno. */
int vring_driver_init(struct vring_driver *ring, struct guest_arena *arena,
		      const struct vring_driver_options *options);
void vring_driver_fini(struct vring_driver *ring);

/* Says where the chains of a packed ring are prepared: that of id i at chains[i << chain_shift],
 * chain_slots[i] long, without AVAIL, USED and id. Nothing to do on a split ring, whose chains lie
 * in ring->desc. chains is borrowed. */
void vring_driver_set_chains(struct vring_driver *ring, const struct vring_packed_desc *chains,
			     uint8_t chain_shift, uint32_t chain_count);
void vring_driver_set_chain_slots(struct vring_driver *ring, uint32_t id, uint16_t slots);

/* The indices as SET_VRING_BASE of an unused ring has them. */
static inline uint32_t vring_driver_base(const struct vring_driver *ring)
{
	/* Both wrap counters of a packed ring begin at 1. */
	return ring->packed ? 1u << 31 | 1u << 15 : 0;
}

/* Puts a chain into the ring; the device sees it after vring_driver_publish(). No more descriptors
 * (split: chains) may be outstanding than the ring has entries. */
static inline void vring_driver_push(struct vring_driver *ring, uint16_t id)
{
	if (ring->packed)
		vring_packed_push(ring, id);
	else
		vring_split_push(ring, id);
}

/* Shows the device everything pushed so far, with one store for the batch. */
static inline void vring_driver_publish(struct vring_driver *ring)
{
	if (ring->packed)
		vring_packed_publish(ring);
	else
		vring_split_publish(ring);
}

/* After a publish: signals the device if it asked for that. */
static inline void vring_driver_kick(struct vring_driver *ring)
{
	/* Full fence: our publication before our look at what the device asks for. Pairs with the
	 * fence of a device between asking for kicks and looking at the ring once more: one of the
	 * two sees the other, so no batch is left lying. Once a batch, about 20 cycles. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(ring->packed ? vring_packed_wants_kick(ring) : vring_split_wants_kick(ring)))
		return;
	ring->kick_count++;
	fd_eventfd_signal(ring->kick_fd);
}

/* Whether the device has given chains back that we have not taken. */
static inline bool vring_driver_look(struct vring_driver *ring)
{
	return ring->packed ? vring_packed_look(ring) : vring_split_look(ring);
}

/* Takes the next chain that the device has given back, unchecked. False when there is none; a split
 * ring shows only those that were there at the last look. */
static inline bool vring_driver_take(struct vring_driver *ring, uint32_t *out_id)
{
	return ring->packed ? vring_packed_take(ring, out_id) : vring_split_take(ring, out_id);
}

/* Asks the device to signal the call eventfd no longer; it may do so once more. */
static inline void vring_driver_disable_calls(struct vring_driver *ring)
{
	if (ring->packed)
		vring_packed_disable_calls(ring);
	else
		vring_split_disable_calls(ring);
}

/* Asks the device to signal the call eventfd at the next chain. False when there is one already,
 * for which the signal may not come: do not sleep. */
static inline bool vring_driver_enable_calls(struct vring_driver *ring)
{
	if (ring->packed)
		vring_packed_enable_calls(ring);
	else
		vring_split_enable_calls(ring);
	/* Full fence: our request before our look. Pairs with that of the device between giving a
	 * chain back and looking whether we want a call. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !vring_driver_look(ring);
}

#endif
