/* SPDX-License-Identifier: Apache-2.0 */
/* What a virtio-blk disk tells its driver: configuration space and features over the limits that a
 * back-end may declare; and the bounds of every vhost-user message. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harness.h"
#include "vhost/blk/blk_device.h"
#include "vhost/blk/blk_queue.h"

#define BIT(n) (1ull << (n))

static void test_capacity(void **state)
{
	static const struct {
		uint64_t block_count;
		uint32_t block_size;
		uint64_t sectors;
	} cases[] = {
		{1, 512, 1},
		{1, 4096, 8},
		{1ull << 32, 512, 1ull << 32},
		{(1ull << 32) + 1, 4096, (1ull << 35) + 8},
		{INT64_MAX / 512, 512, INT64_MAX / 512},
		{INT64_MAX / 4096, 4096, INT64_MAX / 4096 * 8},
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct virtio_blk_config config;
		struct bdev bdev = {
			.block_count = cases[i].block_count,
			.limits = {.block_size_bytes = cases[i].block_size,
				   .physical_block_size_bytes = cases[i].block_size},
		};
		memset(&config, 0xff, sizeof(config));
		blk_config_fill(&config, &bdev, 1, true);
		assert_true(config.capacity == cases[i].sectors);
		assert_int_equal(config.blk_size, cases[i].block_size);
		assert_int_equal(config.physical_block_exp, 0);
		assert_int_equal(config.min_io_size, 1);
		assert_int_equal(config.opt_io_size, 0);
		assert_int_equal(config.wce, 1);
		assert_int_equal(config.num_queues, 1);
		assert_true(config.seg_max >= 126);
		/* Nothing of what was there before. */
		assert_int_equal(config.max_discard_sectors, 0);
		assert_int_equal(config.max_discard_seg, 0);
		assert_int_equal(config.max_write_zeroes_seg, 0);
		assert_int_equal(config.geometry.cylinders, 0);
	}
}

static void test_topology(void **state)
{
	static const struct {
		uint32_t block, physical, optimal;
		uint8_t exp;
		uint16_t min_io;
		uint32_t opt_io;
	} cases[] = {
		{512, 512, 0, 0, 1, 0},
		{512, 4096, 65536, 3, 8, 128},
		{4096, 4096, 1u << 20, 0, 1, 256},
		{4096, 16384, 4096, 2, 4, 1},
		{512, 1u << 24, 512, 15, 32768, 1},
		/* A minimum that its 16 bits cannot say: the most that they can. */
		{512, 1u << 25, 512, 16, 32768, 1},
		{512, 1u << 31, 0x80000000u, 22, 32768, 1u << 22},
		{4096, 1u << 31, 0x80000000u, 19, 32768, 1u << 19},
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct virtio_blk_config config;
		struct bdev bdev = {
			.block_count = 1000,
			.limits = {.block_size_bytes = cases[i].block,
				   .physical_block_size_bytes = cases[i].physical,
				   .optimal_io_bytes = cases[i].optimal},
		};
		blk_config_fill(&config, &bdev, 256, false);
		assert_int_equal(config.physical_block_exp, cases[i].exp);
		assert_int_equal(config.min_io_size, cases[i].min_io);
		assert_int_equal(config.opt_io_size, cases[i].opt_io);
		assert_int_equal(config.wce, 0);
		assert_int_equal(config.num_queues, 256);
	}
}

static void test_discard_limits(void **state)
{
	static const uint64_t maxima[] = {
		4096,       1u << 20,   (uint64_t)UINT32_MAX * 512 & ~4095ull,
		1ull << 41, 1ull << 42, INT64_MAX & ~4095ull};

	for (uint32_t block = 512; block <= 4096; block *= 8) {
		for (uint32_t granularity = block; granularity <= 1u << 20; granularity *= 2) {
			for (size_t i = 0; i < ARRAY_COUNT(maxima); i++) {
				struct virtio_blk_config config;
				struct bdev bdev = {
					.block_count = 1000,
					.limits = {.block_size_bytes = block,
						   .physical_block_size_bytes = block,
						   .discard_max_bytes = maxima[i],
						   .discard_granularity_bytes = granularity,
						   .write_zeroes_max_bytes = maxima[i],
						   .write_zeroes_unmap = true},
				};
				blk_config_fill(&config, &bdev, 1, true);
				assert_true(config.max_discard_sectors > 0);
				assert_true((uint64_t)config.max_discard_sectors * 512 <=
					    maxima[i]);
				/* A driver that asks for the most must not ask for half a block. */
				assert_int_equal(config.max_discard_sectors % (block / 512), 0);
				assert_int_equal(config.max_write_zeroes_sectors,
						 config.max_discard_sectors);
				assert_int_equal(config.discard_sector_alignment,
						 granularity / 512);
				assert_int_equal(config.max_discard_seg, BLK_RANGES_MAX);
				assert_int_equal(config.max_write_zeroes_seg, BLK_RANGES_MAX);
				assert_int_equal(config.write_zeroes_may_unmap, 1);
			}
		}
	}
}

static void test_features(void **state)
{
	const uint64_t always = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_BLK_F_FLUSH) |
				BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_SEG_MAX) |
				BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
				BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
				BIT(VHOST_USER_F_PROTOCOL_FEATURES);

	for (unsigned int bits = 0; bits < 32; bits++) {
		bool discard = bits & 1, zeroes = bits & 2, read_only = bits & 4, multi = bits & 8,
		     packed = bits & 16;
		struct bdev bdev = {
			.block_count = 1000,
			.limits = {.block_size_bytes = 512,
				   .physical_block_size_bytes = 512,
				   .discard_max_bytes = discard ? 1 << 20 : 0,
				   .discard_granularity_bytes = 512,
				   .write_zeroes_max_bytes = zeroes ? 1 << 20 : 0},
		};
		struct virtio_blk_config config;
		uint64_t features = blk_features(&bdev, read_only, multi ? 4 : 1, packed);
		blk_config_fill(&config, &bdev, multi ? 4 : 1, true);
		assert_true((features & always) == always);
		assert_int_equal(!!(features & BIT(VIRTIO_BLK_F_RO)), read_only);
		assert_int_equal(!!(features & BIT(VIRTIO_BLK_F_MQ)), multi);
		assert_int_equal(!!(features & BIT(VIRTIO_F_RING_PACKED)), packed);
		assert_int_equal(!!(features & BIT(VIRTIO_BLK_F_DISCARD)), discard && !read_only);
		assert_int_equal(!!(features & BIT(VIRTIO_BLK_F_WRITE_ZEROES)),
				 zeroes && !read_only);
		/* No feature whose limits are zero. */
		if (features & BIT(VIRTIO_BLK_F_DISCARD))
			assert_true(config.max_discard_sectors > 0 && config.max_discard_seg > 0 &&
				    config.discard_sector_alignment > 0);
		if (features & BIT(VIRTIO_BLK_F_WRITE_ZEROES))
			assert_true(config.max_write_zeroes_sectors > 0 &&
				    config.max_write_zeroes_seg > 0);
	}
}

/* ---- messages ----------------------------------------------------------------------------- */

static void test_message_bounds(void **state)
{
	/* From vhost-user.rst: the sizes of the payloads. Other requests are unknown. */
	static const struct {
		uint32_t request, min, max;
		bool reply;
	} known[] = {
		{VHOST_USER_GET_FEATURES, 0, 8, true},
		{VHOST_USER_SET_FEATURES, 8, 8, false},
		{VHOST_USER_SET_OWNER, 0, 8, false},
		{VHOST_USER_RESET_OWNER, 0, 8, false},
		{VHOST_USER_SET_MEM_TABLE, 8, 264, false},
		{VHOST_USER_SET_VRING_NUM, 8, 8, false},
		{VHOST_USER_SET_VRING_ADDR, 40, 40, false},
		{VHOST_USER_SET_VRING_BASE, 8, 8, false},
		{VHOST_USER_GET_VRING_BASE, 8, 8, true},
		{VHOST_USER_SET_VRING_KICK, 8, 8, false},
		{VHOST_USER_SET_VRING_CALL, 8, 8, false},
		{VHOST_USER_SET_VRING_ERR, 8, 8, false},
		{VHOST_USER_GET_PROTOCOL_FEATURES, 0, 8, true},
		{VHOST_USER_SET_PROTOCOL_FEATURES, 8, 8, false},
		{VHOST_USER_GET_QUEUE_NUM, 0, 8, true},
		{VHOST_USER_SET_VRING_ENABLE, 8, 8, false},
		{VHOST_USER_SET_BACKEND_REQ_FD, 0, 8, false},
		{VHOST_USER_GET_CONFIG, 12, 268, true},
		{VHOST_USER_SET_CONFIG, 12, 268, false},
		{VHOST_USER_RESET_DEVICE, 0, 8, false},
		{VHOST_USER_GET_MAX_MEM_SLOTS, 0, 8, true},
		{VHOST_USER_ADD_MEM_REG, 40, 40, false},
		{VHOST_USER_REM_MEM_REG, 40, 40, false},
		{VHOST_USER_SET_STATUS, 8, 8, false},
		{VHOST_USER_GET_STATUS, 0, 8, true},
	};
	uint32_t found = 0;

	for (uint64_t request = 0; request < 1000; request++) {
		uint32_t min = 1, max = 2;
		size_t i = 0;
		while (i < ARRAY_COUNT(known) && known[i].request != request)
			i++;
		int rc = message_payload_bounds((uint32_t)request, &min, &max);
		if (i == ARRAY_COUNT(known)) {
			/* Requests that later come to be known have bounds within a message. */
			if (rc == 0)
				assert_true(min <= max && max <= sizeof(union vhost_user_payload));
			else
				assert_int_equal(rc, -EPROTO);
			continue;
		}
		found++;
		assert_int_equal(rc, 0);
		assert_int_equal(min, known[i].min);
		assert_int_equal(max, known[i].max);
		assert_true(max <= sizeof(union vhost_user_payload));
		assert_int_equal(message_has_reply((uint32_t)request), known[i].reply);
		assert_string_not_equal(message_name((uint32_t)request), "unknown request");
	}
	assert_int_equal(found, ARRAY_COUNT(known));
	static const uint32_t never[] = {0, VHOST_USER_REQUEST_MAX, UINT32_MAX, 1u << 31};
	for (size_t i = 0; i < ARRAY_COUNT(never); i++) {
		uint32_t min, max;
		assert_int_equal(message_payload_bounds(never[i], &min, &max), -EPROTO);
		assert_false(message_has_reply(never[i]));
		assert_string_equal(message_name(never[i]), "unknown request");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capacity),       cmocka_unit_test(test_topology),
		cmocka_unit_test(test_discard_limits), cmocka_unit_test(test_features),
		cmocka_unit_test(test_message_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
