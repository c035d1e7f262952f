/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device side of a virtqueue in its plainest form, of either format, for tests of the driver
 * side: written from the specification alone, one request at a time, and strict with the driver.
 */
#ifndef SLUICE_TESTS_RING_DEVICE_H
#define SLUICE_TESTS_RING_DEVICE_H

#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#include "frontend/guest_arena.h"
#include "frontend/vring_driver.h"

struct ring_device {
	struct vring_driver *ring;
	const struct guest_arena *arena;
	uint16_t avail_idx; /* packed: a slot of the ring */
	uint16_t used_idx;
	bool avail_wrap;
	bool used_wrap;
	uint16_t chain_slots[VRING_DRIVER_SIZE_MAX]; /* packed, by id: of what is outstanding */
};

/* What a device finds when it walks a chain. */
struct ring_request {
	uint32_t id;
	const struct virtio_blk_outhdr *header;
	uint8_t *data; /* of the first segment */
	uint64_t data_bytes;
	uint32_t segments;
	bool device_writes;
	uint8_t *status;
};

void ring_device_init(struct ring_device *device, struct vring_driver *ring,
		      const struct guest_arena *arena);

/* The next request, or false when nothing is available. */
bool ring_device_take(struct ring_device *device, struct ring_request *out);

/* Gives a request back, at once. An id that was never taken counts as one descriptor. */
void ring_device_give(struct ring_device *device, uint32_t id);

/* Asks for kicks from the next request on, or for none. */
void ring_device_ask_kicks(struct ring_device *device, bool wanted);

/* Whether the driver wants a call for the last request given back. */
bool ring_device_must_call(const struct ring_device *device);

#endif
