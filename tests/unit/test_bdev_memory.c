/* SPDX-License-Identifier: Apache-2.0 */
/* The memory back-end: data against a model, long requests in slices, memory given back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "backends/memory/bdev_memory.h"
#include "backends/memory/memory_impl.h"
#include "disk_model.h"
#include "harness.h"

static struct bdev *create(uint64_t size_bytes, uint32_t block_size, bool hugetlb)
{
	struct bdev_memory_options options = {
		.name = "mem0",
		.block_count = size_bytes / block_size,
		.block_size_bytes = block_size,
		.hugetlb = hugetlb,
	};
	struct bdev *bdev = NULL;

	assert_int_equal(bdev_memory_create(&options, &bdev), 0);
	return bdev;
}

static void run_model(uint64_t size_bytes, uint32_t block_size, uint64_t io_max_bytes)
{
	struct harness_disk disk;
	struct disk_model_options options = {
		.round_count = 60,
		.depth = 8,
		.buffer_align = 1,
		.io_max_bytes = io_max_bytes,
		.iov_max_count = 40,
	};

	harness_disk_open(&disk, create(size_bytes, block_size, false), true);
	disk_model_run(&disk, &options);
	harness_disk_destroy(&disk);
}

static void test_model(void **state)
{
	run_model(4u << 20, 512, 64u << 10);
	run_model(4u << 20, 4096, 64u << 10);
	/* A size that is not a whole number of pages. */
	run_model((1u << 20) + 512, 512, 16u << 10);
}

static void test_model_long(void **state)
{
	run_model(32u << 20, 512, 2u << 20);
}

static uint64_t resident_bytes(const struct bdev *bdev)
{
	struct stat st;

	assert_int_equal(fstat(memory_bdev(bdev)->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void assert_all(const char *buf, size_t len, char value)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], value);
}

static void test_gives_back(void **state)
{
	const uint64_t size = 8u << 20;
	struct harness_disk disk;
	char *buf = malloc(size);

	memset(buf, 0x77, size);
	harness_disk_open(&disk, create(size, 512, false), true);
	assert_int_equal(resident_bytes(disk.bdev), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, size), BDEV_STATUS_OK);
	assert_int_equal(resident_bytes(disk.bdev), size);
	/* From the middle of a page to the middle of one: both edge pages stay. */
	assert_int_equal(
		harness_io(&disk, BDEV_IO_WRITE_ZEROES, BDEV_IO_UNMAP, 512, NULL, size - 1024),
		BDEV_STATUS_OK);
	assert_int_equal(resident_bytes(disk.bdev), 2 * 4096);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, size), BDEV_STATUS_OK);
	assert_all(buf, 512, 0x77);
	assert_all(buf + 512, size - 1024, 0);
	assert_all(buf + size - 512, 512, 0x77);
	assert_int_equal(harness_io(&disk, BDEV_IO_DISCARD, 0, 0, NULL, size), BDEV_STATUS_OK);
	assert_int_equal(resident_bytes(disk.bdev), 0);
	/* Without UNMAP the memory stays. */
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE_ZEROES, 0, 0, NULL, size), BDEV_STATUS_OK);
	assert_int_equal(resident_bytes(disk.bdev), size);
	harness_disk_destroy(&disk);
	free(buf);
}

/* Long requests share a queue; each must end, and a short one is not held up behind them. */
static void test_long_queue(void **state)
{
	enum { COUNT = 9 };
	const uint64_t size = 16u << 20;
	struct harness_disk disk;
	struct bdev_io ios[COUNT] = {0};
	enum bdev_status statuses[COUNT];
	struct bdev_stats stats;

	harness_disk_open(&disk, create(size, 4096, false), true);
	for (int i = 0; i < COUNT; i++) {
		ios[i].type = i % 2 == 0 ? BDEV_IO_WRITE_ZEROES : BDEV_IO_DISCARD;
		ios[i].len_bytes = size;
	}
	ios[COUNT - 1].type = BDEV_IO_FLUSH;
	harness_submit(&disk, ios, COUNT, statuses);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(statuses[i], BDEV_STATUS_OK);
	bdev_get_stats(disk.bdev, &stats);
	assert_int_equal(stats.types[BDEV_IO_FLUSH].ticks, 0);
	assert_true(stats.types[BDEV_IO_DISCARD].max_ticks > 0);
	harness_disk_destroy(&disk);
}

/* Whether or not the machine has hugetlb pages, asking for them gives a disk that works. */
static void test_hugetlb_falls_back(void **state)
{
	struct disk_model_options options = {10, 4, 1, 256u << 10, 8};
	struct harness_disk disk;
	const char *method;

	harness_disk_open(&disk, create(6u << 20, 512, true), true);
	disk_model_run(&disk, &options);
	json_t *params = disk.bdev->ops->config(disk.bdev, &method);
	assert_string_equal(method, "bdev_malloc_create");
	assert_true(json_is_true(json_object_get(params, "hugetlb")));
	json_decref(params);
	harness_disk_destroy(&disk);
}

static void test_bad_options(void **state)
{
	static const struct {
		struct bdev_memory_options options;
		int rc;
	} cases[] = {
		{{"m", NULL, 0, 512, 0, false}, -EINVAL},
		{{"m", NULL, 8, 0, 0, false}, -EINVAL},
		{{"m", NULL, 8, 1000, 0, false}, -EINVAL},
		{{"m", NULL, UINT64_MAX / 2, 4096, 0, false}, -EINVAL},
		{{"m", NULL, INT64_MAX / 8192, 4096, 0, false}, -ENOMEM},
		{{"bad name", NULL, 8, 512, 0, false}, -EINVAL},
	};
	struct bdev *out;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
		assert_int_equal(bdev_memory_create(&cases[i].options, &out), cases[i].rc);
	assert_null(bdev_next(NULL));
}

static int setup(void **state)
{
	harness_seed();
	harness_start(REACTOR_POLL_ADAPTIVE);
	return 0;
}

static int teardown(void **state)
{
	harness_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_long),
		cmocka_unit_test(test_gives_back),
		cmocka_unit_test(test_long_queue),
		cmocka_unit_test(test_hugetlb_falls_back),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
