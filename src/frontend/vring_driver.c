/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of a driver-side split virtqueue: see vring_driver.h, also for who owns it. */
#include "frontend/vring_driver.h"

#include <errno.h>

#include "base/assert.h"

/* Avail and used rings on pages of their own: each has one writer, and no line is shared. */
#define RING_ALIGN 4096ull

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

int vring_driver_init(struct vring_driver *ring, struct guest_arena *arena, uint16_t size,
		      bool interrupts)
{
	ensure(size > 0 && size <= VRING_DRIVER_SIZE_MAX && (size & (size - 1)) == 0);
	*ring = (struct vring_driver){
		.size = size,
		.mask = (uint16_t)(size - 1),
		.kick_fd = -1,
		.call_fd = -1,
		.desc = guest_arena_alloc(arena, desc_bytes(size), RING_ALIGN),
		.avail = guest_arena_alloc(arena, avail_bytes(size), RING_ALIGN),
		.used = guest_arena_alloc(arena, used_bytes(size), RING_ALIGN),
	};
	if (ring->desc == NULL || ring->avail == NULL || ring->used == NULL)
		return -ENOMEM;
	ring->avail->flags = interrupts ? 0 : VRING_AVAIL_F_NO_INTERRUPT;

	int rc = eventfds_create(ring);
	if (rc < 0)
		vring_driver_fini(ring);
	return rc;
}

void vring_driver_fini(struct vring_driver *ring)
{
	fd_close(&ring->kick_fd);
	fd_close(&ring->call_fd);
}
