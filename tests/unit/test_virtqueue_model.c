/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk of descriptor chains against a model that knows guest memory byte by byte, and loops by
 * remembering where it has been. Random rings, tables and regions, with a random fault in every
 * second one. SLUICE_TEST_SEED replays a run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fd.h"
#include "harness.h"
#include "virtio/virtqueue.h"

#define BASE 0x40000000ull
#define SPAN 65536u /* of guest addresses from BASE on, in which the regions lie */
#define REGIONS_MAX 12u
#define RING_MAX 32u
#define TABLE_MAX 48u
#define PIECES_MAX 65536u
#define ROUNDS 60
#define CHAINS 400

/* ---- guest memory, byte by byte ------------------------------------------------------------ */

static int memory_fd;
static struct mem_region *regions[REGIONS_MAX];
static uint32_t region_count;
static struct mem_table *table;
static uint8_t *byte_at[SPAN]; /* NULL: not mapped */
static uint8_t region_at[SPAN];

static uint8_t *model_byte(uint64_t addr)
{
	return addr - BASE < SPAN ? byte_at[addr - BASE] : NULL;
}

static void memory_begin(void)
{
	uint32_t at = (uint32_t)harness_random(200);

	memset(byte_at, 0, sizeof(byte_at));
	region_count = 0;
	while (region_count < REGIONS_MAX) {
		uint32_t size = harness_random(4) == 0 ? 1 + (uint32_t)harness_random(40)
						       : 1 + (uint32_t)harness_random(12000);
		if (at + size > SPAN)
			break;
		struct mem_region_desc desc = {
			.guest_addr = {BASE + at},
			.user_addr = at,
			.size_bytes = size,
			/* Far apart in the file: neighbours of the guest are none here. */
			.mmap_offset = (REGIONS_MAX - region_count) * 32768 +
				       harness_random(2) * harness_random(64),
		};
		assert_int_equal(mem_region_map(memory_fd, &desc, &regions[region_count]), 0);
		for (uint32_t i = 0; i < size; i++) {
			byte_at[at + i] = regions[region_count]->host + i;
			region_at[at + i] = (uint8_t)region_count;
		}
		region_count++;
		at += size + (harness_random(3) == 0 ? (uint32_t)harness_random(3000) : 0);
	}
	assert_int_equal(mem_table_create(regions, region_count, &table), 0);
}

static void memory_end(void)
{
	mem_table_destroy(table);
	for (uint32_t i = 0; i < region_count; i++)
		mem_region_put(regions[i]);
}

/* ---- the model ---------------------------------------------------------------------------- */

struct model {
	bool legal;
	struct iovec pieces[PIECES_MAX];
	uint32_t piece_count;
	uint32_t readable_count;
	uint64_t readable_bytes;
	uint64_t writable_bytes;
	bool unmapped;
};
static struct model model;

static void model_add(void *base, uint64_t len)
{
	assert_true(model.piece_count < PIECES_MAX);
	model.pieces[model.piece_count++] = (struct iovec){base, len};
}

static bool model_buffer(const struct vring_desc *desc)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	uint64_t addr = desc->addr;
	uint64_t left = desc->len;

	if (!writable && model.writable_bytes > 0)
		return false;
	*(writable ? &model.writable_bytes : &model.readable_bytes) += left;
	while (left > 0) {
		uint8_t *first = model_byte(addr);
		uint64_t len = 1;
		if (first == NULL) {
			model.unmapped = true;
			len = left;
		} else {
			while (len < left && model_byte(addr + len) != NULL &&
			       region_at[addr + len - BASE] == region_at[addr - BASE])
				len++;
		}
		model_add(first, len);
		if (!writable)
			model.readable_count++;
		addr += len;
		left -= len;
	}
	return true;
}

static bool model_read_entry(uint64_t addr, struct vring_desc *out)
{
	for (uint64_t i = 0; i < sizeof(*out); i++) {
		const uint8_t *byte = model_byte(addr + i);
		if (byte == NULL)
			return false;
		((uint8_t *)out)[i] = *byte;
	}
	return true;
}

/* Follows a list, in the ring or (ring NULL) in a table. Calls itself for the table, once. */
static bool model_follow(const struct vring_desc *ring, uint64_t table_addr, uint32_t count,
			 uint16_t index, bool indirect)
{
	static bool seen[2][VIRTQUEUE_INDIRECT_MAX];
	bool *been = seen[ring == NULL];

	memset(been, 0, sizeof(seen[0]));
	for (;;) {
		struct vring_desc desc;
		if (index >= count || been[index])
			return false;
		been[index] = true;
		if (ring != NULL)
			desc = ring[index];
		else if (!model_read_entry(table_addr + 16ull * index, &desc))
			return false;
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			uint32_t entries = desc.len / 16;
			if (ring == NULL || !indirect || (desc.flags & VRING_DESC_F_NEXT) ||
			    desc.len % 16 != 0 || entries == 0 || entries > VIRTQUEUE_INDIRECT_MAX)
				return false;
			return model_follow(NULL, desc.addr, entries, 0, false);
		}
		if (!model_buffer(&desc))
			return false;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return true;
		index = desc.next;
	}
}

/* ---- random chains ------------------------------------------------------------------------ */

static struct vring_desc random_desc(bool writable, bool last, uint16_t next)
{
	struct vring_desc desc = {
		.addr = BASE + harness_random(SPAN),
		.len = 1 + (uint32_t)harness_random(600),
		.flags = (uint16_t)((writable ? VRING_DESC_F_WRITE : 0) |
				    (last ? 0 : VRING_DESC_F_NEXT)),
		.next = next,
	};

	switch (harness_random(24)) {
	case 0:
		desc.len = 0;
		break;
	case 1:
		desc.len = (uint32_t)harness_random(40000);
		break;
	case 2:
		desc.addr = harness_random(2) == 0 ? harness_random(UINT64_MAX)
						   : UINT64_MAX - harness_random(700);
		break;
	case 3:
		desc.len = UINT32_MAX - (uint32_t)harness_random(2);
		break;
	default:
		break;
	}
	return desc;
}

/* One field of one descriptor becomes something else. */
static void spoil(struct vring_desc *list, uint32_t count, uint32_t in_use)
{
	struct vring_desc *desc = &list[harness_random(in_use)];
	static const uint32_t lengths[] = {0, 1, 8, 15, 17, 16 * 1024, 16 * 1025, UINT32_MAX};

	switch (harness_random(6)) {
	case 0:
		desc->next = (uint16_t)harness_random(count);
		desc->flags |= VRING_DESC_F_NEXT;
		break;
	case 1:
		desc->next = (uint16_t)(count + harness_random(3));
		break;
	case 2:
		desc->flags = (uint16_t)harness_random(8);
		break;
	case 3:
		desc->flags = (uint16_t)harness_random(65536);
		break;
	case 4:
		desc->len = lengths[harness_random(ARRAY_COUNT(lengths))];
		break;
	default:
		desc->addr += harness_random(40) - 20;
		break;
	}
}

static uint32_t fill_list(struct vring_desc *list, uint32_t count, uint16_t *order, bool *writable)
{
	uint32_t used = 1 + (uint32_t)harness_random(count);

	for (uint32_t i = 0; i < used; i++) {
		*writable = *writable || harness_random(used) == 0;
		list[order[i]] =
			random_desc(*writable, i + 1 == used, i + 1 < used ? order[i + 1] : 77);
	}
	return used;
}

static void shuffle(uint16_t *order, uint32_t count, uint32_t from)
{
	for (uint32_t i = 0; i < count; i++)
		order[i] = (uint16_t)i;
	for (uint32_t i = count; i > from + 1; i--) {
		uint32_t k = from + (uint32_t)harness_random(i - from);
		uint16_t swap = order[i - 1];
		order[i - 1] = order[k];
		order[k] = swap;
	}
}

/* Writes a table where it may be anywhere: across regions, partly nowhere. */
static struct vring_desc put_table(bool writable)
{
	struct vring_desc list[TABLE_MAX] = {{.len = 0}};
	uint16_t order[TABLE_MAX];
	uint32_t count = 1 + (uint32_t)harness_random(TABLE_MAX);
	uint64_t addr = BASE + harness_random(SPAN) / 16 * 16;

	if (harness_random(4) == 0)
		addr += harness_random(16);
	shuffle(order, count, 1);
	uint32_t used = fill_list(list, count, order, &writable);
	if (harness_random(4) == 0)
		spoil(list, count, used);
	for (uint64_t i = 0; i < count * sizeof(list[0]); i++) {
		uint8_t *byte = model_byte(addr + i);
		if (byte != NULL)
			*byte = ((uint8_t *)list)[i];
	}
	return (struct vring_desc){
		.addr = addr,
		.len = count * (uint32_t)sizeof(list[0]),
		.flags = VRING_DESC_F_INDIRECT,
	};
}

/* ---- the comparison ------------------------------------------------------------------------ */

static struct vring_desc ring[RING_MAX] __attribute__((aligned(16)));
static uint16_t other_parts[2048];
static uint8_t journal[16 + 16 * RING_MAX] __attribute__((aligned(64)));
static struct iovec iovs[PIECES_MAX];

static uint16_t make_chain(uint32_t size)
{
	uint16_t order[RING_MAX];
	bool writable = false;

	memset(ring, 0, sizeof(ring));
	shuffle(order, size, 0);
	uint32_t used = fill_list(ring, size, order, &writable);
	if (harness_random(2) == 0)
		ring[order[used - 1]] = put_table(writable);
	if (harness_random(3) == 0)
		spoil(ring, size, size);
	return order[0];
}

static void compare(uint32_t size, uint16_t first, bool indirect)
{
	struct virtqueue_options options = {
		.desc = ring,
		.avail = other_parts,
		.used = other_parts + 1024,
		.mem = table,
		.size = (uint16_t)size,
		.journal = journal,
		.journal_capacity = (uint16_t)size,
		.indirect = indirect,
	};
	struct virtqueue vq;
	struct virtqueue_chain chain = {.iovs = iovs, .iov_max = PIECES_MAX};

	struct virtqueue_head head = {.id = first, .slot = first, .slot_count = 1};

	memset(journal, 0, sizeof(journal));
	assert_int_equal(virtqueue_init(&vq, &options), 0);
	virtqueue_fini(&vq); /* a walk does without */
	virtqueue_fetch(&vq, &head);
	vq.mem_hint = (uint32_t)harness_random(harness_random(2) == 0 ? 20 : UINT32_MAX);
	model.piece_count = 0;
	model.readable_count = 0;
	model.readable_bytes = 0;
	model.writable_bytes = 0;
	model.unmapped = false;
	model.legal = model_follow(ring, 0, size, first, indirect);
	int rc = virtqueue_walk(&vq, &head, &chain);
	assert_int_equal(rc, model.legal ? 0 : -EINVAL);
	assert_int_equal(vq.broken, !model.legal);
	assert_int_equal(vq.broken_why != NULL, !model.legal);
	if (!model.legal)
		return;
	assert_int_equal(chain.iov_count, model.piece_count);
	assert_int_equal(chain.readable_count, model.readable_count);
	assert_true(chain.readable_bytes == model.readable_bytes);
	assert_true(chain.writable_bytes == model.writable_bytes);
	assert_int_equal(chain.unmapped, model.unmapped);
	for (uint32_t i = 0; i < chain.iov_count; i++) {
		assert_ptr_equal(iovs[i].iov_base, model.pieces[i].iov_base);
		assert_true(iovs[i].iov_len == model.pieces[i].iov_len);
	}
	/* With just enough room, and with less. */
	chain.iov_max = chain.iov_count;
	assert_int_equal(virtqueue_walk(&vq, &head, &chain), 0);
	if (model.piece_count > 0) {
		chain.iov_max = (uint32_t)harness_random(model.piece_count);
		assert_int_equal(virtqueue_walk(&vq, &head, &chain), -ENOBUFS);
	}
	assert_false(vq.broken);
}

static void test_walk_against_model(void **state)
{
	unsigned int legal = 0, unmapped = 0, pieces = 0;

	harness_seed();
	for (int round = 0; round < ROUNDS; round++) {
		memory_begin();
		for (int i = 0; i < CHAINS; i++) {
			uint32_t size = 1u << harness_random(6);
			uint16_t head = make_chain(size);
			compare(size, head, harness_random(16) != 0);
			legal += model.legal;
			unmapped += model.legal && model.unmapped;
			pieces += model.legal ? model.piece_count : 0;
		}
		memory_end();
	}
	printf("# %d chains: %u legal, %u of them partly unmapped, %u buffers\n", ROUNDS * CHAINS,
	       legal, unmapped, pieces);
	/* The generator must not drift into testing refusals only. */
	assert_true(legal > ROUNDS * CHAINS / 4 && legal < ROUNDS * CHAINS);
	assert_true(legal - unmapped > ROUNDS * CHAINS / 50);
}

static int setup(void **state)
{
	memory_fd = fd_memfd_create("guest", 1 << 20, 0);
	return memory_fd < 0;
}

static int teardown(void **state)
{
	fd_close(&memory_fd);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_against_model),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
