/* SPDX-License-Identifier: Apache-2.0 */
/* The file back-end's I/O: data against a model by every path, more in flight than fits the ring,
 * space given back, flush, a file that shrinks, a full file system. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/file/bdev_file.h"
#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "disk_model.h"
#include "file_disk.h"
#include "harness.h"

#define SIZE_BYTES (8ull << 20)

static char directory[] = "test_bdev_file.XXXXXX";
static char disk_path[64];
static char mount_path[64];

static struct bdev *create(const char *path, uint32_t block_size, bool buffered)
{
	struct bdev_file_options options = {
		.name = "file0",
		.filename = path,
		.block_size_bytes = block_size,
		.buffered = buffered,
	};
	struct bdev *bdev = NULL;
	char error[256] = "";

	if (bdev_file_create(&options, &bdev, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return bdev;
}

static void open_disk(struct harness_disk *disk, uint32_t block_size, bool buffered)
{
	file_disk_make(disk_path, SIZE_BYTES);
	harness_disk_open(disk, create(disk_path, block_size, buffered), true);
}

static void assert_all(const char *buf, size_t len, char value)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], value);
}

static char *alloc_buf(size_t len, int value)
{
	char *buf = aligned_alloc(4096, len);

	assert_non_null(buf);
	memset(buf, value, len);
	return buf;
}

/* ---- data -------------------------------------------------------------------------------- */

static void run_model(uint32_t block_size, bool buffered, uint32_t buffer_align, unsigned int depth,
		      uint64_t io_max_bytes)
{
	struct disk_model_options options = {
		.round_count = 25,
		.depth = depth,
		.buffer_align = buffer_align,
		.io_max_bytes = io_max_bytes,
		.iov_max_count = 20,
	};
	struct harness_disk disk;

	open_disk(&disk, block_size, buffered);
	disk_model_run(&disk, &options);
	harness_disk_destroy(&disk);
}

static void test_model_direct(void **state)
{
	run_model(0, false, 512, 16, 64u << 10);
	run_model(4096, false, 4096, 16, 64u << 10);
}

/* More of them than there are bounce buffers, and longer ones than a buffer. */
static void test_model_bounced(void **state)
{
	run_model(0, false, 1, 64, 32u << 10);
	run_model(0, false, 1, 8, 600u << 10);
}

static void test_model_buffered(void **state)
{
	run_model(512, true, 1, 16, 64u << 10);
}

static void test_ring_levels(void **state)
{
	for (int level = 0; level < FILE_RING_LEVEL_COUNT; level++) {
		file_ring_first_level = (enum file_ring_level)level;
		run_model(0, false, 512, 16, 64u << 10);
	}
	file_ring_first_level = FILE_RING_DEFER;
}

/* Sleeping between submission and completion, at each level of the ring. */
static void test_poll_modes(void **state)
{
	static const enum reactor_poll_mode modes[] = {REACTOR_POLL_NEVER, REACTOR_POLL_ALWAYS};
	struct harness_disk disk;
	char *buf = alloc_buf(4096, 0);

	harness_stop();
	for (size_t i = 0; i < ARRAY_COUNT(modes) * FILE_RING_LEVEL_COUNT; i++) {
		file_ring_first_level = (enum file_ring_level)(i / ARRAY_COUNT(modes));
		harness_start(modes[i % ARRAY_COUNT(modes)]);
		open_disk(&disk, 0, false);
		for (int k = 0; k < 300; k++) {
			uint64_t offset = harness_random(SIZE_BYTES / 4096) * 4096;
			enum bdev_io_type type = k % 50 == 49 ? BDEV_IO_FLUSH
						 : k % 2 == 0 ? BDEV_IO_WRITE
							      : BDEV_IO_READ;
			assert_int_equal(harness_io(&disk, type, 0, offset, buf, 4096),
					 BDEV_STATUS_OK);
		}
		harness_disk_destroy(&disk);
		harness_stop();
	}
	file_ring_first_level = FILE_RING_DEFER;
	harness_start(REACTOR_POLL_ADAPTIVE);
	free(buf);
}

/* More than the ring takes and than its completion queue has places for. */
static void test_many_in_flight(void **state)
{
	enum { COUNT = FILE_RING_INFLIGHT_MAX + 2000 };
	struct harness_disk disk;
	struct bdev_io *ios = calloc(COUNT, sizeof(*ios));
	enum bdev_status *statuses = calloc(COUNT, sizeof(*statuses));
	struct iovec *iovs = calloc(COUNT, sizeof(*iovs));
	char *buf = alloc_buf((size_t)COUNT * 512, 0x31);
	struct bdev_stats stats;

	open_disk(&disk, 512, false);
	for (int round = 0; round < 2; round++) {
		memset(ios, 0, COUNT * sizeof(*ios));
		for (size_t i = 0; i < COUNT; i++) {
			iovs[i] = (struct iovec){buf + i * 512, 512};
			ios[i].type = round == 0 ? BDEV_IO_WRITE : BDEV_IO_READ;
			ios[i].iovs = &iovs[i];
			ios[i].iov_count = 1;
			ios[i].offset_bytes = i * 512;
			ios[i].len_bytes = 512;
		}
		harness_submit(&disk, ios, COUNT, statuses);
		for (size_t i = 0; i < COUNT; i++)
			assert_int_equal(statuses[i], BDEV_STATUS_OK);
		if (round == 0)
			memset(buf, 0, (size_t)COUNT * 512);
	}
	assert_all(buf, (size_t)COUNT * 512, 0x31);
	bdev_get_stats(disk.bdev, &stats);
	assert_int_equal(stats.types[BDEV_IO_WRITE].op_count, COUNT);
	assert_int_equal(stats.types[BDEV_IO_READ].bytes, COUNT * 512);
	assert_true(stats.types[BDEV_IO_READ].max_ticks > 0);
	harness_disk_destroy(&disk);
	free(ios);
	free(statuses);
	free(iovs);
	free(buf);
}

/* Longer vectors than one system call takes, some of them empty. */
static void test_many_iovecs(void **state)
{
	enum { COUNT = 3000 };
	struct harness_disk disk;
	struct iovec *iovs = calloc(COUNT, sizeof(*iovs));
	char *buf = alloc_buf((size_t)COUNT * 512, 0x42);
	enum bdev_status status;
	uint64_t len = 0;

	open_disk(&disk, 512, false);
	for (size_t i = 0; i < COUNT; i++) {
		iovs[i] = (struct iovec){buf + len, i % 7 == 3 ? 0 : 512};
		len += iovs[i].iov_len;
	}
	for (int round = 0; round < 2; round++) {
		struct bdev_io io = {
			.type = round == 0 ? BDEV_IO_WRITE : BDEV_IO_READ,
			.iovs = iovs,
			.iov_count = COUNT,
			.len_bytes = len,
		};
		harness_submit(&disk, &io, 1, &status);
		assert_int_equal(status, BDEV_STATUS_OK);
		if (round == 0)
			memset(buf, 0, len);
	}
	assert_all(buf, len, 0x42);
	harness_disk_destroy(&disk);
	free(iovs);
	free(buf);
}

/* ---- space ------------------------------------------------------------------------------- */

static void test_discard_frees(void **state)
{
	struct harness_disk disk;
	char *buf = alloc_buf(SIZE_BYTES, 0x55);

	open_disk(&disk, 0, false);
	assert_true(disk.bdev->limits.discard_max_bytes > 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, SIZE_BYTES), BDEV_STATUS_OK);
	assert_true(file_disk_allocated(disk_path) >= SIZE_BYTES);
	assert_int_equal(harness_io(&disk, BDEV_IO_DISCARD, 0, 0, NULL, SIZE_BYTES),
			 BDEV_STATUS_OK);
	assert_true(file_disk_allocated(disk_path) < SIZE_BYTES / 8);
	harness_disk_destroy(&disk);
	free(buf);
}

static void test_write_zeroes(void **state)
{
	static const struct {
		uint32_t flags;
		bool no_punch;
		bool no_zero_range;
		bool frees;
	} cases[] = {
		{0, false, false, false},
		{BDEV_IO_UNMAP, false, false, true},
		{BDEV_IO_UNMAP, true, false, false},
		{0, false, true, false},
		{BDEV_IO_UNMAP, true, true, false},
	};
	struct harness_disk disk;
	char *buf = alloc_buf(SIZE_BYTES, 0);

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		open_disk(&disk, 512, false);
		file_bdev(disk.bdev)->no_punch = cases[i].no_punch;
		file_bdev(disk.bdev)->no_zero_range = cases[i].no_zero_range;
		memset(buf, 0x66, SIZE_BYTES);
		assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, SIZE_BYTES),
				 BDEV_STATUS_OK);
		assert_int_equal(harness_io(&disk, BDEV_IO_WRITE_ZEROES, cases[i].flags, 512, NULL,
					    SIZE_BYTES - 1024),
				 BDEV_STATUS_OK);
		assert_int_equal(file_disk_allocated(disk_path) < SIZE_BYTES / 8, cases[i].frees);
		assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, SIZE_BYTES),
				 BDEV_STATUS_OK);
		assert_all(buf, 512, 0x66);
		assert_all(buf + 512, SIZE_BYTES - 1024, 0);
		assert_all(buf + SIZE_BYTES - 512, 512, 0x66);
		harness_disk_destroy(&disk);
	}
	free(buf);
}

static void test_file_system_full(void **state)
{
	struct harness_disk disk;
	char *buf = alloc_buf(SIZE_BYTES, 1);
	char path[128];

	if (!file_disk_mount_small(mount_path)) {
		free(buf);
		skip();
	}
	snprintf(path, sizeof(path), "%s/disk", mount_path);
	file_disk_make(path, SIZE_BYTES);
	harness_disk_open(&disk, create(path, 4096, false), true);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, 4096), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 4096, buf, SIZE_BYTES - 4096),
			 BDEV_STATUS_NO_SPACE);
	/* What was there is there, and space freed can be used. */
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 4096), BDEV_STATUS_OK);
	assert_all(buf, 4096, 1);
	assert_int_equal(harness_io(&disk, BDEV_IO_DISCARD, 0, 4096, NULL, SIZE_BYTES - 4096),
			 BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 8192, buf, 65536), BDEV_STATUS_OK);
	/* tmpfs has no ZERO_RANGE: zeroes are written. */
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE_ZEROES, 0, 0, NULL, 65536),
			 BDEV_STATUS_OK);
	assert_true(file_bdev(disk.bdev)->no_zero_range);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 65536), BDEV_STATUS_OK);
	assert_all(buf, 65536, 0);
	harness_disk_destroy(&disk);
	umount(mount_path);
	rmdir(mount_path);
	free(buf);
}

/* ---- trouble ----------------------------------------------------------------------------- */

static void test_flush(void **state)
{
	struct harness_disk disk;

	open_disk(&disk, 0, false);
	assert_true(disk.bdev->limits.volatile_write_cache);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	/* Once one has failed none may succeed. */
	file_bdev(disk.bdev)->flush_failed = true;
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_IO_ERROR);
	harness_disk_destroy(&disk);
}

static void shrink(bool buffered)
{
	struct harness_disk disk;
	char *buf = alloc_buf(65536, 2);

	open_disk(&disk, 512, buffered);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, 65536), BDEV_STATUS_OK);
	/* In the middle of a block, which a direct read cannot go on from. */
	assert_int_equal(truncate(disk_path, 4096 + 100), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 4096), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 65536), BDEV_STATUS_IO_ERROR);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 65536, buf, 4096),
			 BDEV_STATUS_IO_ERROR);
	/* By the bounce path too. */
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 65536, buf + 1, 4096),
			 BDEV_STATUS_IO_ERROR);
	for (int i = 0; i < 50; i++)
		assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 65536, buf, 512),
				 BDEV_STATUS_IO_ERROR);
	harness_disk_destroy(&disk);
	free(buf);
}

static void test_shrunk(void **state)
{
	shrink(false);
	shrink(true);
}

/* A guest buffer that is not there: the kernel says EFAULT and nobody dies. */
static void test_bad_memory(void **state)
{
	struct harness_disk disk;

	open_disk(&disk, 0, false);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, (void *)4096, 4096),
			 BDEV_STATUS_IO_ERROR);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, (void *)4096, 4096),
			 BDEV_STATUS_IO_ERROR);
	harness_disk_destroy(&disk);
}

static int setup(void **state)
{
	harness_seed();
	ensure(mkdtemp(directory) != NULL);
	snprintf(disk_path, sizeof(disk_path), "%s/disk", directory);
	snprintf(mount_path, sizeof(mount_path), "%s/small", directory);
	harness_start(REACTOR_POLL_ADAPTIVE);
	return 0;
}

static int teardown(void **state)
{
	harness_stop();
	unlink(disk_path);
	umount2(mount_path, MNT_DETACH);
	rmdir(mount_path);
	rmdir(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model_direct),   cmocka_unit_test(test_model_bounced),
		cmocka_unit_test(test_model_buffered), cmocka_unit_test(test_ring_levels),
		cmocka_unit_test(test_poll_modes),     cmocka_unit_test(test_many_in_flight),
		cmocka_unit_test(test_many_iovecs),    cmocka_unit_test(test_discard_frees),
		cmocka_unit_test(test_write_zeroes),   cmocka_unit_test(test_file_system_full),
		cmocka_unit_test(test_flush),          cmocka_unit_test(test_shrunk),
		cmocka_unit_test(test_bad_memory),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
