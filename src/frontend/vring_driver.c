/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of a driver-side virtqueue: see vring_driver.h, also for who owns it. */
#include "frontend/vring_driver.h"

#include <errno.h>

#include "base/assert.h"

/* Avail and used rings on pages of their own: each has one writer, and no line is shared. */
#define RING_ALIGN 4096ull

_Static_assert(sizeof(struct vring_desc) == sizeof(struct vring_packed_desc), "descriptors");

static uint64_t desc_bytes(uint16_t size)
{
	return (uint64_t)size * sizeof(struct vring_desc);
}

static uint64_t avail_bytes(uint16_t size)
{
	return sizeof(struct vring_avail) + (uint64_t)size * sizeof(uint16_t) + sizeof(uint16_t);
}

static uint64_t used_bytes(uint16_t size)
{
	return sizeof(struct vring_used) + (uint64_t)size * sizeof(struct vring_used_elem) +
	       sizeof(uint16_t);
}

static uint64_t aligned(uint64_t bytes)
{
	return (bytes + RING_ALIGN - 1) & ~(RING_ALIGN - 1);
}

uint64_t vring_driver_arena_bytes(uint16_t size)
{
	/* One more for a start that is not aligned. */
	return aligned(desc_bytes(size)) + aligned(avail_bytes(size)) + aligned(used_bytes(size)) +
	       RING_ALIGN;
}

static int eventfds_create(struct vring_driver *ring)
{
	ring->kick_fd = fd_eventfd_create();
	if (ring->kick_fd < 0)
		return ring->kick_fd;
	ring->call_fd = fd_eventfd_create();
	return ring->call_fd < 0 ? ring->call_fd : 0;
}

int vring_driver_init(struct vring_driver *ring, struct guest_arena *arena,
		      const struct vring_driver_options *options)
{
	uint16_t size = options->size;

	ensure(size > 0 && size <= VRING_DRIVER_SIZE_MAX && (size & (size - 1)) == 0);
	/* A packed ring's event structures are smaller than avail and used rings. */
	*ring = (struct vring_driver){
		.size = size,
		.mask = (uint16_t)(size - 1),
		.packed = options->packed,
		.event_idx = options->event_idx,
		.avail_flags = VRING_PACKED_AVAIL,
		.used_flags = VRING_PACKED_BOTH,
		.kick_fd = -1,
		.call_fd = -1,
		.desc = guest_arena_alloc(arena, desc_bytes(size), RING_ALIGN),
		.avail = guest_arena_alloc(arena, avail_bytes(size), RING_ALIGN),
		.used = guest_arena_alloc(arena, used_bytes(size), RING_ALIGN),
	};
	if (ring->desc == NULL || ring->avail == NULL || ring->used == NULL)
		return -ENOMEM;
	vring_driver_disable_calls(ring);

	int rc = eventfds_create(ring);
	if (rc < 0)
		vring_driver_fini(ring);
	return rc;
}

void vring_driver_set_chains(struct vring_driver *ring, const struct vring_packed_desc *chains,
			     uint8_t chain_shift, uint32_t chain_count)
{
	ensure(ring->packed && chain_count <= ring->size);
	ring->chains = chains;
	ring->chain_shift = chain_shift;
	ring->chain_count = chain_count;
}

void vring_driver_set_chain_slots(struct vring_driver *ring, uint32_t id, uint16_t slots)
{
	ensure(id < ring->chain_count && slots > 0 && slots <= ring->size);
	ring->chain_slots[id] = slots;
}

void vring_driver_fini(struct vring_driver *ring)
{
	fd_close(&ring->kick_fd);
	fd_close(&ring->call_fd);
}
