/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver side of a split virtqueue (virtio 1.2, section 2.7). Descriptors are written once at
 * set-up by the owner of the ring; an I/O then costs one entry of the avail ring and one of the
 * used ring. Owned by one thread after set-up.
 *
 * What the device writes (used->idx, used ids, flags) is not trusted: the caller checks ids.
 */
#ifndef SLUICE_FRONTEND_VRING_DRIVER_H
#define SLUICE_FRONTEND_VRING_DRIVER_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/fd.h"
#include "frontend/guest_arena.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "rings of virtio 1 are little-endian and are accessed without conversion here");

#define VRING_DRIVER_SIZE_MAX 1024u

struct vring_driver {
	struct vring_avail *avail;
	struct vring_used *used; /* read only here */
	struct vring_desc *desc;
	uint16_t mask;
	uint16_t avail_idx; /* next entry to fill; ahead of avail->idx until published */
	uint16_t used_idx;  /* next entry to take */
	uint16_t size;
	int kick_fd; /* owned */
	int call_fd; /* owned */
	uint64_t kick_count;
};

/* Bytes of arena that a ring of that size takes. */
uint64_t vring_driver_arena_bytes(uint16_t size);

/* size: a power of two up to VRING_DRIVER_SIZE_MAX. With interrupts false the device is asked
 * never to signal the call eventfd. 0, -ENOMEM (arena used up) or -errno. */
int vring_driver_init(struct vring_driver *ring, struct guest_arena *arena, uint16_t size,
		      bool interrupts);
void vring_driver_fini(struct vring_driver *ring);

/* Puts a descriptor chain into the avail ring; the device sees it after vring_driver_publish().
 * No more chains may be outstanding than the ring has entries. */
static inline void vring_driver_push(struct vring_driver *ring, uint16_t head)
{
	store_relaxed(&ring->avail->ring[ring->avail_idx & ring->mask], head);
	ring->avail_idx++;
}

/* Shows the device everything pushed so far, with one store for the batch. */
static inline void vring_driver_publish(struct vring_driver *ring)
{
	/* Release: pairs with the device's acquire load of avail->idx; the chains and ring entries
	 * written before are visible when the new index is. */
	store_release(&ring->avail->idx, ring->avail_idx);
}

/* After a publish: signals the device if it asked for that. */
static inline void vring_driver_kick(struct vring_driver *ring)
{
	/* Full fence: our store of avail->idx before our load of used->flags. Pairs with the fence
	 * of a device between clearing NO_NOTIFY and looking at avail->idx once more: one of the
	 * two sees the other, so no batch is left lying. Once a batch, about 20 cycles. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (load_relaxed(&ring->used->flags) & VRING_USED_F_NO_NOTIFY)
		return;
	ring->kick_count++;
	fd_eventfd_signal(ring->kick_fd);
}

/* How many chains the device has given back and we have not taken. May be any number if the
 * device misbehaves. */
static inline uint16_t vring_driver_used_count(const struct vring_driver *ring)
{
	/* Acquire: pairs with the device's release store of used->idx; used entries, status bytes
	 * and data are visible when the index is. */
	return (uint16_t)(load_acquire(&ring->used->idx) - ring->used_idx);
}

/* Takes the next used entry: the head that the device says it has finished, unchecked. */
static inline uint32_t vring_driver_take(struct vring_driver *ring)
{
	return load_relaxed(&ring->used->ring[ring->used_idx++ & ring->mask].id);
}

#endif
