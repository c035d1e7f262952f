/* SPDX-License-Identifier: Apache-2.0 */
/* A device side of a few lines: see ring_device.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "ring_device.h"

struct piece {
	uint64_t addr;
	uint32_t len;
	bool written;
};

void ring_device_init(struct ring_device *device, struct vring_driver *ring,
		      const struct guest_arena *arena)
{
	*device = (struct ring_device){
		.ring = ring,
		.arena = arena,
		.avail_wrap = true,
		.used_wrap = true,
	};
}

static void *at_address(const struct ring_device *device, uint64_t address)
{
	assert_true(address >= GUEST_ARENA_BASE);
	assert_true(address - GUEST_ARENA_BASE < device->arena->size_bytes);
	return device->arena->base + (address - GUEST_ARENA_BASE);
}

static void interpret(const struct ring_device *device, const struct piece *pieces, uint32_t count,
		      struct ring_request *out)
{
	assert_true(count >= 2);
	assert_int_equal(pieces[0].len, sizeof(struct virtio_blk_outhdr));
	assert_false(pieces[0].written);
	out->header = at_address(device, pieces[0].addr);
	for (uint32_t i = 1; i + 1 < count; i++) {
		if (out->segments++ == 0)
			out->data = at_address(device, pieces[i].addr);
		out->data_bytes += pieces[i].len;
		out->device_writes = pieces[i].written;
	}
	assert_int_equal(pieces[count - 1].len, 1);
	assert_true(pieces[count - 1].written);
	out->status = at_address(device, pieces[count - 1].addr);
}

/* ---- split -------------------------------------------------------------------------------- */

static uint32_t walk_split(const struct ring_device *device, uint16_t head, struct piece *pieces)
{
	const struct vring_desc *table = device->ring->desc;
	uint32_t limit = device->ring->size;
	uint32_t count = 0;
	uint16_t index = head;

	assert_true(head < limit);
	if (table[index].flags & VRING_DESC_F_INDIRECT) {
		assert_int_equal(table[index].flags, VRING_DESC_F_INDIRECT);
		limit = table[index].len / sizeof(struct vring_desc);
		assert_true(limit <= device->ring->size);
		table = at_address(device, table[index].addr);
		index = 0;
	}
	for (;;) {
		const struct vring_desc *desc = &table[index];
		assert_true(count < limit);
		pieces[count++] = (struct piece){desc->addr, desc->len,
						 (desc->flags & VRING_DESC_F_WRITE) != 0};
		if (!(desc->flags & VRING_DESC_F_NEXT))
			return count;
		assert_true(desc->next < limit);
		index = desc->next;
	}
}

static bool take_split(struct ring_device *device, struct ring_request *out)
{
	struct piece pieces[VRING_DRIVER_SIZE_MAX];
	struct vring_driver *ring = device->ring;

	if (device->avail_idx == load_acquire(&ring->avail->idx))
		return false;
	out->id = ring->avail->ring[device->avail_idx++ & ring->mask];
	interpret(device, pieces, walk_split(device, (uint16_t)out->id, pieces), out);
	return true;
}

static void give_split(struct ring_device *device, uint32_t id)
{
	struct vring_used *used = device->ring->used;

	used->ring[device->used_idx++ & device->ring->mask].id = id;
	store_release(&used->idx, device->used_idx);
}

/* ---- packed ------------------------------------------------------------------------------- */

static void advance(const struct ring_device *device, uint16_t *index, bool *wrap)
{
	if (++*index < device->ring->size)
		return;
	*index = 0;
	*wrap = !*wrap;
}

static bool is_available(const struct ring_device *device)
{
	uint16_t flags = load_acquire(&device->ring->packed_desc[device->avail_idx].flags);

	return (bool)(flags & VRING_PACKED_AVAIL) == device->avail_wrap &&
	       (bool)(flags & VRING_PACKED_USED) != device->avail_wrap;
}

static uint32_t walk_table(const struct ring_device *device, const struct vring_packed_desc *desc,
			   struct piece *pieces)
{
	const struct vring_packed_desc *table = at_address(device, desc->addr);
	uint32_t count = desc->len / sizeof(*table);

	assert_true(count <= device->ring->size);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(table[i].flags & ~VRING_DESC_F_WRITE, 0);
		pieces[i] = (struct piece){table[i].addr, table[i].len,
					   (table[i].flags & VRING_DESC_F_WRITE) != 0};
	}
	return count;
}

static bool take_packed(struct ring_device *device, struct ring_request *out)
{
	struct piece pieces[VRING_DRIVER_SIZE_MAX];
	const struct vring_packed_desc *desc = &device->ring->packed_desc[device->avail_idx];
	uint16_t slots = 0;
	uint32_t count = 0;

	if (!is_available(device))
		return false;
	if (desc->flags & VRING_DESC_F_INDIRECT) {
		assert_false(desc->flags & (VRING_DESC_F_NEXT | VRING_DESC_F_WRITE));
		count = walk_table(device, desc, pieces);
	}
	for (bool more = true; more;) {
		assert_true(is_available(device) && slots < device->ring->size);
		desc = &device->ring->packed_desc[device->avail_idx];
		if (!(desc->flags & VRING_DESC_F_INDIRECT))
			pieces[count++] = (struct piece){desc->addr, desc->len,
							 (desc->flags & VRING_DESC_F_WRITE) != 0};
		more = (desc->flags & VRING_DESC_F_NEXT) != 0;
		out->id = desc->id;
		advance(device, &device->avail_idx, &device->avail_wrap);
		slots++;
	}
	assert_true(out->id < device->ring->size);
	assert_int_equal(device->chain_slots[out->id], 0);
	device->chain_slots[out->id] = slots;
	interpret(device, pieces, count, out);
	return true;
}

static void give_packed(struct ring_device *device, uint32_t id)
{
	struct vring_packed_desc *desc = &device->ring->packed_desc[device->used_idx];
	uint16_t flags = device->used_wrap ? VRING_PACKED_BOTH : 0;
	uint16_t slots = 1;

	if (id < VRING_DRIVER_SIZE_MAX && device->chain_slots[id] != 0) {
		slots = device->chain_slots[id];
		device->chain_slots[id] = 0;
	}
	desc->id = (uint16_t)id;
	store_release(&desc->flags, flags);
	while (slots-- > 0)
		advance(device, &device->used_idx, &device->used_wrap);
}

/* ---- both --------------------------------------------------------------------------------- */

bool ring_device_take(struct ring_device *device, struct ring_request *out)
{
	memset(out, 0, sizeof(*out));
	return device->ring->packed ? take_packed(device, out) : take_split(device, out);
}

void ring_device_give(struct ring_device *device, uint32_t id)
{
	if (device->ring->packed)
		give_packed(device, id);
	else
		give_split(device, id);
}

void ring_device_ask_kicks(struct ring_device *device, bool wanted)
{
	struct vring_driver *ring = device->ring;

	if (ring->packed) {
		uint16_t yes = ring->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
					       : VRING_PACKED_EVENT_FLAG_ENABLE;
		ring->device_event->off_wrap =
			(uint16_t)(device->avail_idx | device->avail_wrap << 15);
		ring->device_event->flags = wanted ? yes : VRING_PACKED_EVENT_FLAG_DISABLE;
	} else if (ring->event_idx) {
		uint16_t *event = (uint16_t *)&ring->used->ring[ring->size];
		*event = (uint16_t)(device->avail_idx - (wanted ? 0 : 1));
	} else {
		ring->used->flags = wanted ? 0 : VRING_USED_F_NO_NOTIFY;
	}
}

static bool must_call_packed(const struct ring_device *device)
{
	const struct vring_packed_desc_event *event = device->ring->driver_event;

	if (event->flags != VRING_PACKED_EVENT_FLAG_DESC)
		return event->flags == VRING_PACKED_EVENT_FLAG_ENABLE;
	/* In these tests the driver asks for the next one only: it has passed when the device is
	 * elsewhere. */
	return event->off_wrap != (uint16_t)(device->used_idx | device->used_wrap << 15);
}

bool ring_device_must_call(const struct ring_device *device)
{
	const struct vring_driver *ring = device->ring;

	if (ring->packed)
		return must_call_packed(device);
	if (!ring->event_idx)
		return !(ring->avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
	return ring->avail->ring[ring->size] == (uint16_t)(device->used_idx - 1);
}
