/* SPDX-License-Identifier: Apache-2.0 */
/* Opening files for disks: what is refused and how that is said, locks, block sizes, what is saved.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/file/bdev_file.h"
#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "file_disk.h"
#include "harness.h"

#define SIZE_BYTES (8ull << 20)

static char directory[] = "test_bdev_open.XXXXXX";
static char disk_path[64];
static char other_path[64];

/* ---- regular files ----------------------------------------------------------------------- */

static void test_refused(void **state)
{
	unlink(other_path);
	file_disk_refuse(other_path, 0, false, -ENOENT, "No such file");
	file_disk_refuse(directory, 0, false, -EINVAL, "a directory");
	file_disk_refuse("/dev/null", 0, false, -EINVAL, "a character device");
	ensure(mkfifo(other_path, 0600) == 0);
	file_disk_refuse(other_path, 0, true, -EINVAL, "a pipe");
	unlink(other_path);
	file_disk_make(disk_path, 0);
	file_disk_refuse(disk_path, 0, false, -EINVAL, "is empty");
	file_disk_make(disk_path, 8192 + 100);
	file_disk_refuse(disk_path, 0, false, -EINVAL, "not a whole number of blocks");
	file_disk_make(disk_path, 8192 + 512);
	file_disk_refuse(disk_path, 4096, false, -EINVAL, "not a whole number of blocks");
	file_disk_refuse(disk_path, 1024, false, -EINVAL, "block_size 1024");
}

static void test_name_taken(void **state)
{
	struct bdev_file_options options = {.name = "same", .filename = disk_path};
	struct bdev *first, *second;
	char error[256];

	file_disk_make(disk_path, SIZE_BYTES);
	file_disk_make(other_path, SIZE_BYTES);
	assert_int_equal(bdev_file_create(&options, &first, error, sizeof(error)), 0);
	options.filename = other_path;
	assert_int_equal(bdev_file_create(&options, &second, error, sizeof(error)), -EEXIST);
	assert_non_null(strstr(error, "same"));
	options.filename = "not UTF-8 \xff";
	options.name = "other";
	assert_int_equal(bdev_file_create(&options, &second, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "UTF-8"));
	options.name = "not a name";
	assert_int_equal(bdev_file_create(&options, &second, error, sizeof(error)), -EINVAL);
	assert_int_equal(bdev_destroy(first), 0);
}

static void test_second_opener(void **state)
{
	file_disk_make(disk_path, SIZE_BYTES);
	struct bdev *first = file_disk_create(disk_path, 0, false);
	file_disk_refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	file_disk_refuse(disk_path, 0, true, -EBUSY, "holds a lock");
	assert_int_equal(bdev_destroy(first), 0);

	/* Readers share. */
	struct bdev *reader1 = file_disk_create(disk_path, 0, true);
	struct bdev *reader2 = file_disk_create(disk_path, 0, true);
	file_disk_refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	assert_int_equal(bdev_destroy(reader1), 0);
	assert_int_equal(bdev_destroy(reader2), 0);

	/* Somebody who is not Sluice. */
	int fd = open(disk_path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_SH), 0);
	file_disk_refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	close(fd);
	assert_int_equal(bdev_destroy(file_disk_create(disk_path, 0, false)), 0);
}

/* The lock is free the moment the disk is destroyed, although a ring held the file. */
static void test_lock_after_io(void **state)
{
	static char buf[4096] __attribute__((aligned(4096)));
	struct harness_disk keeper, disk;

	file_disk_make(disk_path, SIZE_BYTES);
	file_disk_make(other_path, SIZE_BYTES);
	/* Another disk keeps the reactor's ring alive. */
	harness_disk_open(&keeper, file_disk_create(other_path, 0, false), true);
	for (int i = 0; i < 20; i++) {
		harness_disk_open(&disk, file_disk_create(disk_path, 0, false), true);
		assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, sizeof(buf)),
				 BDEV_STATUS_OK);
		harness_disk_destroy(&disk);
	}
	harness_disk_destroy(&keeper);
}

static void test_read_only(void **state)
{
	static char buf[4096] __attribute__((aligned(4096)));
	struct bdev_open *open;
	struct harness_disk disk;

	file_disk_make(disk_path, SIZE_BYTES);
	struct bdev *bdev = file_disk_create(disk_path, 0, true);
	assert_true(bdev->limits.read_only);
	assert_int_equal(bdev_open(bdev->name, "t", true, &open, NULL), -EROFS);
	harness_disk_open(&disk, bdev, false);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 4096), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, 4096), BDEV_STATUS_READ_ONLY);
	harness_disk_destroy(&disk);
}

static void test_config(void **state)
{
	struct bdev_file_options options = {
		.name = "saved",
		.filename = disk_path,
		.block_size_bytes = 4096,
		.read_only = true,
		.dialect = BDEV_FILE_AIO,
	};
	struct bdev *bdev;
	char error[256];
	const char *method;

	file_disk_make(disk_path, SIZE_BYTES);
	assert_int_equal(bdev_file_create(&options, &bdev, error, sizeof(error)), 0);
	assert_true(bdev_is_file(bdev, BDEV_FILE_AIO));
	assert_false(bdev_is_file(bdev, BDEV_FILE_URING));
	assert_int_equal(bdev->limits.block_size_bytes, 4096);
	assert_int_equal(bdev->block_count, SIZE_BYTES / 4096);
	json_t *params = bdev->ops->config(bdev, &method);
	json_t *driver = bdev->ops->describe(bdev);
	assert_string_equal(method, "bdev_aio_create");
	assert_string_equal(json_string_value(json_object_get(params, "filename")), disk_path);
	assert_int_equal(json_integer_value(json_object_get(params, "block_size")), 4096);
	assert_true(json_is_true(json_object_get(params, "readonly")));
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(driver, "aio"), "filename")),
		disk_path);
	json_decref(params);
	json_decref(driver);
	assert_int_equal(bdev_destroy(bdev), 0);
}

static int setup(void **state)
{
	harness_seed();
	ensure(mkdtemp(directory) != NULL);
	snprintf(disk_path, sizeof(disk_path), "%s/disk", directory);
	snprintf(other_path, sizeof(other_path), "%s/other", directory);
	harness_start(REACTOR_POLL_ADAPTIVE);
	return 0;
}

static int teardown(void **state)
{
	harness_stop();
	unlink(disk_path);
	unlink(other_path);
	rmdir(directory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),       cmocka_unit_test(test_name_taken),
		cmocka_unit_test(test_second_opener), cmocka_unit_test(test_lock_after_io),
		cmocka_unit_test(test_read_only),     cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
