/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that change their size while they are in use. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/memory/bdev_memory.h"
#include "backends/memory/memory_impl.h"
#include "backends/null/bdev_null.h"
#include "bdev_changes.h"
#include "file_disk.h"

#define BLOCK 4096u

static void test_null(void **state)
{
	struct bdev_null_options options = {"n", NULL, 100, BLOCK, 0};
	struct harness_disk disk;
	struct bdev *bdev;
	static char buf[BLOCK];
	const char *method;

	assert_int_equal(bdev_null_create(&options, &bdev), 0);
	disk_open(&disk, bdev);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 100 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(resize(bdev, 200), 0);
	assert_int_equal(seen.resize_count, 1);
	assert_int_equal(seen.block_count, 200);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 199 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 10), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 10 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 9 * BLOCK, buf, BLOCK), BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 10), 0);
	assert_int_equal(seen.resize_count, 2); /* no change, no event */
	assert_int_equal(resize(bdev, 0), -EINVAL);
	assert_int_equal(resize(bdev, INT64_MAX / BLOCK + 1), -EINVAL);
	json_t *params = bdev->ops->config(bdev, &method);
	assert_int_equal(json_integer_value(json_object_get(params, "num_blocks")), 10);
	json_decref(params);
	harness_disk_destroy(&disk);
}

static uint64_t resident_bytes(const struct bdev *bdev)
{
	struct stat st;

	assert_int_equal(fstat(memory_bdev(bdev)->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void memory_cycle(struct harness_disk *disk, uint32_t block_size)
{
	uint64_t small = (1u << 20) / block_size + 1; /* not a whole number of pages */
	uint64_t large = (8u << 20) / block_size;
	char *buf = malloc(8u << 20), *back = malloc(8u << 20);

	assert_int_equal(resize(disk->bdev, large), 0);
	harness_random_fill(buf, 8u << 20);
	assert_int_equal(harness_io(disk, BDEV_IO_WRITE, 0, 0, buf, 8u << 20), BDEV_STATUS_OK);
	assert_int_equal(resize(disk->bdev, small), 0);
	assert_true(resident_bytes(disk->bdev) <= (1u << 20) + (4u << 20));
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, small * block_size),
			 BDEV_STATUS_OK);
	assert_memory_equal(back, buf, small * block_size);
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, (small + 1) * block_size),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(resize(disk->bdev, large), 0);
	memset(buf + small * block_size, 0, (8u << 20) - small * block_size);
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, 8u << 20), BDEV_STATUS_OK);
	assert_memory_equal(back, buf, 8u << 20);
	free(buf);
	free(back);
}

static void test_memory(void **state)
{
	static const uint32_t block_sizes[] = {512, 4096};

	for (size_t i = 0; i < ARRAY_COUNT(block_sizes); i++) {
		for (int hugetlb = 0; hugetlb < 2; hugetlb++) {
			struct bdev_memory_options options = {"m", NULL,        100, block_sizes[i],
							      0,   hugetlb != 0};
			struct harness_disk disk;
			struct bdev *bdev;
			assert_int_equal(bdev_memory_create(&options, &bdev), 0);
			disk_open(&disk, bdev);
			for (int n = 0; n < 3; n++)
				memory_cycle(&disk, block_sizes[i]);
			harness_disk_destroy(&disk);
		}
	}
}

/* A size that could not be saved: storage was found, and the disk stays as it is. */
static void test_undo(void **state)
{
	struct bdev_memory_options options = {"m", NULL, 100, BLOCK, 0, false};
	static char buf[BLOCK] = "data", back[BLOCK];
	struct harness_disk disk;
	struct change change;
	struct bdev *bdev;

	assert_int_equal(bdev_memory_create(&options, &bdev), 0);
	disk_open(&disk, bdev);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 99 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(bdev_reserve(bdev, 1000), 0);
	assert_true(bdev_is_changing(bdev));
	assert_int_equal(bdev_config_block_count(bdev), 1000);
	assert_int_equal(bdev_reserve(bdev, 2000), -EBUSY);
	change_resize(&change, bdev, 100, false);
	change_wait(&change);
	assert_int_equal(bdev->block_count, 100);
	assert_int_equal(bdev_config_block_count(bdev), 100);
	assert_int_equal(seen.resize_count, 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 99 * BLOCK, back, BLOCK),
			 BDEV_STATUS_OK);
	assert_memory_equal(back, buf, BLOCK);
	harness_disk_destroy(&disk);
}

static void test_shrink_waits(void **state)
{
	struct bdev *bdev = slow_create();
	struct loose_io old, kept, beyond;
	struct harness_disk disk;
	struct change change;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 90);
	change_resize(&change, bdev, 50, false);
	a_while();
	loose_submit(&beyond, &disk, 50);
	loose_submit(&kept, &disk, 49);
	a_while();
	assert_int_equal(beyond.status, BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(kept.status, BDEV_STATUS_COUNT);
	assert_int_equal(slow.count, 1); /* the new one is held back */
	assert_false(change.ended);
	harness_call(slow_end_all, NULL);
	change_wait(&change);
	assert_int_equal(old.status, BDEV_STATUS_OK); /* it was before the change */
	assert_int_equal(seen.block_count, 50);
	harness_call(slow_end_all, NULL);
	assert_int_equal(kept.status, BDEV_STATUS_OK);
	harness_disk_destroy(&disk);
}

static void test_file(void **state)
{
	char path[] = "test_bdev_change.XXXXXX";
	static char buf[BLOCK];
	uint64_t block_count = 0;
	struct harness_disk disk;
	struct change change;
	char error[256] = "";

	close(mkstemp(path));
	file_disk_make(path, 1u << 20);
	struct bdev *bdev = file_disk_create(path, 512, false);
	disk_open(&disk, bdev);
	/* Ours to resize. */
	assert_int_equal(resize(bdev, 4096), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, (2u << 20) - BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 1024), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), 0);
	assert_int_equal(block_count, 1024);
	/* Resized by somebody else. */
	assert_int_equal(truncate(path, 3u << 20), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), 0);
	assert_int_equal(block_count, 6144);
	change_resize(&change, bdev, block_count, false);
	change_wait(&change);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, (3u << 20) - BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, path));
	harness_disk_destroy(&disk);
	unlink(path);
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
		cmocka_unit_test(test_null), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_undo), cmocka_unit_test(test_shrink_waits),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
