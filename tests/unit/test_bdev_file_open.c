/* SPDX-License-Identifier: Apache-2.0 */
/* Opening files for disks: what is refused and how that is said, locks, block sizes, what is saved;
 * and block devices, on loop devices, which need root: without it the test says that it did not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/file/bdev_file.h"
#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "disk_model.h"
#include "harness.h"

#define SIZE_BYTES (8ull << 20)

static char directory[] = "test_bdev_open.XXXXXX";
static char disk_path[64];
static char other_path[64];

static void make_file(const char *path, uint64_t size_bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ensure(fd >= 0 && ftruncate(fd, (off_t)size_bytes) == 0);
	close(fd);
}

static int try_create(const char *path, uint32_t block_size, bool read_only, struct bdev **out,
		      char *error, size_t error_bytes)
{
	static unsigned int serial;
	char name[32];
	struct bdev_file_options options = {
		.name = name,
		.filename = path,
		.block_size_bytes = block_size,
		.read_only = read_only,
	};

	snprintf(name, sizeof(name), "file%u", serial++);
	error[0] = 0;
	return bdev_file_create(&options, out, error, error_bytes);
}

static struct bdev *create(const char *path, uint32_t block_size, bool read_only)
{
	struct bdev *bdev = NULL;
	char error[256];

	if (try_create(path, block_size, read_only, &bdev, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return bdev;
}

/* Refused with rc, in a sentence that names the file and has the words; and no fd is lost. */
static void refuse(const char *path, uint32_t block_size, bool read_only, int rc, const char *words)
{
	struct bdev *bdev = NULL;
	char error[256];
	int fd_before = dup(0);

	close(fd_before);
	assert_int_equal(try_create(path, block_size, read_only, &bdev, error, sizeof(error)), rc);
	if (strstr(error, words) == NULL || strstr(error, path) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", error, words);
	int fd_after = dup(0);
	close(fd_after);
	assert_int_equal(fd_before, fd_after);
}

/* ---- regular files ----------------------------------------------------------------------- */

static void test_refused(void **state)
{
	unlink(other_path);
	refuse(other_path, 0, false, -ENOENT, "No such file");
	refuse(directory, 0, false, -EINVAL, "a directory");
	refuse("/dev/null", 0, false, -EINVAL, "a character device");
	ensure(mkfifo(other_path, 0600) == 0);
	refuse(other_path, 0, true, -EINVAL, "a pipe");
	unlink(other_path);
	make_file(disk_path, 0);
	refuse(disk_path, 0, false, -EINVAL, "is empty");
	make_file(disk_path, 8192 + 100);
	refuse(disk_path, 0, false, -EINVAL, "not a whole number of blocks");
	make_file(disk_path, 8192 + 512);
	refuse(disk_path, 4096, false, -EINVAL, "not a whole number of blocks");
	refuse(disk_path, 1024, false, -EINVAL, "block_size 1024");
}

static void test_name_taken(void **state)
{
	struct bdev_file_options options = {.name = "same", .filename = disk_path};
	struct bdev *first, *second;
	char error[256];

	make_file(disk_path, SIZE_BYTES);
	make_file(other_path, SIZE_BYTES);
	assert_int_equal(bdev_file_create(&options, &first, error, sizeof(error)), 0);
	options.filename = other_path;
	assert_int_equal(bdev_file_create(&options, &second, error, sizeof(error)), -EEXIST);
	assert_non_null(strstr(error, "same"));
	options.name = "not a name";
	assert_int_equal(bdev_file_create(&options, &second, error, sizeof(error)), -EINVAL);
	assert_int_equal(bdev_destroy(first), 0);
}

static void test_second_opener(void **state)
{
	make_file(disk_path, SIZE_BYTES);
	struct bdev *first = create(disk_path, 0, false);
	refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	refuse(disk_path, 0, true, -EBUSY, "holds a lock");
	assert_int_equal(bdev_destroy(first), 0);

	/* Readers share. */
	struct bdev *reader1 = create(disk_path, 0, true);
	struct bdev *reader2 = create(disk_path, 0, true);
	refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	assert_int_equal(bdev_destroy(reader1), 0);
	assert_int_equal(bdev_destroy(reader2), 0);

	/* Somebody who is not Sluice. */
	int fd = open(disk_path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_SH), 0);
	refuse(disk_path, 0, false, -EBUSY, "holds a lock");
	close(fd);
	assert_int_equal(bdev_destroy(create(disk_path, 0, false)), 0);
}

/* The lock is free the moment the disk is destroyed, although a ring held the file. */
static void test_lock_after_io(void **state)
{
	static char buf[4096] __attribute__((aligned(4096)));
	struct harness_disk keeper, disk;

	make_file(disk_path, SIZE_BYTES);
	make_file(other_path, SIZE_BYTES);
	/* Another disk keeps the reactor's ring alive. */
	harness_disk_open(&keeper, create(other_path, 0, false), true);
	for (int i = 0; i < 20; i++) {
		harness_disk_open(&disk, create(disk_path, 0, false), true);
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

	make_file(disk_path, SIZE_BYTES);
	struct bdev *bdev = create(disk_path, 0, true);
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

	make_file(disk_path, SIZE_BYTES);
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

/* ---- block devices ----------------------------------------------------------------------- */

/* A loop device over path: its fd and name, or -errno. */
static int loop_attach(const char *path, uint32_t block_size, bool read_only, char *name,
		       size_t name_bytes)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int backing = open(path, O_RDWR | O_CLOEXEC);
	int fd = -ENODEV;

	for (int attempt = 0; control >= 0 && backing >= 0 && attempt < 10; attempt++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0) {
			fd = -errno;
			break;
		}
		snprintf(name, name_bytes, "/dev/loop%d", number);
		fd = open(name, O_RDWR | O_CLOEXEC);
		struct loop_config config = {.fd = (uint32_t)backing, .block_size = block_size};
		config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
			int off = 0; /* an earlier user may have left the device read-only */
			if (!read_only)
				ioctl(fd, BLKROSET, &off);
			break;
		}
		int rc = -errno;
		if (fd >= 0)
			close(fd);
		fd = rc;
		if (rc != -EBUSY)
			break; /* else somebody else took it first */
	}
	if (backing >= 0)
		close(backing);
	if (control >= 0)
		close(control);
	return fd;
}

static int attach_or_skip(const char *path, uint32_t block_size, bool read_only, char *name,
			  size_t name_bytes)
{
	int fd = loop_attach(path, block_size, read_only, name, name_bytes);

	if (fd < 0) {
		printf("# cannot make a loop device (%s): block devices are NOT tested\n",
		       strerror(-fd));
		skip();
	}
	return fd;
}

static uint64_t allocated_bytes(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_device(void **state)
{
	struct disk_model_options options = {25, 16, 1, 64u << 10, 20};
	struct bdev_io ios[5] = {0};
	enum bdev_status statuses[5];
	struct harness_disk disk;
	char name[32];

	make_file(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 512, false, name, sizeof(name));
	struct bdev *bdev = create(name, 0, false);
	assert_true(file_bdev(bdev)->device);
	assert_int_equal(bdev_size_bytes(bdev), SIZE_BYTES);
	assert_int_equal(bdev->limits.block_size_bytes, 512);
	assert_true(bdev->limits.discard_max_bytes > 0);
	refuse(name, 0, false, -EBUSY, "in use");
	harness_disk_open(&disk, bdev, true);
	disk_model_run(&disk, &options);
	options.buffer_align = 512;
	disk_model_run(&disk, &options);
	/* Several discards at once, then everything is gone. */
	for (size_t i = 0; i < ARRAY_COUNT(ios); i++) {
		ios[i].type = BDEV_IO_DISCARD;
		ios[i].offset_bytes = i == 0 ? 0 : i << 20;
		ios[i].len_bytes = i == 0 ? SIZE_BYTES : 1u << 20;
	}
	assert_true(allocated_bytes(disk_path) > SIZE_BYTES / 8);
	harness_submit(&disk, ios, ARRAY_COUNT(ios), statuses);
	for (size_t i = 0; i < ARRAY_COUNT(ios); i++)
		assert_int_equal(statuses[i], BDEV_STATUS_OK);
	assert_true(allocated_bytes(disk_path) < SIZE_BYTES / 8);
	harness_disk_destroy(&disk);
	close(fd);
}

static void test_device_4096(void **state)
{
	struct disk_model_options options = {15, 8, 4096, 64u << 10, 8};
	struct harness_disk disk;
	char name[32];

	make_file(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 4096, false, name, sizeof(name));
	refuse(name, 512, false, -EINVAL, "blocks of 4096 bytes");
	struct bdev *bdev = create(name, 0, false);
	assert_int_equal(bdev->limits.block_size_bytes, 4096);
	harness_disk_open(&disk, bdev, true);
	disk_model_run(&disk, &options);
	harness_disk_destroy(&disk);
	close(fd);
}

static void test_device_read_only(void **state)
{
	struct harness_disk disk;
	char name[32];

	make_file(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 512, true, name, sizeof(name));
	/* By open(2) on some kernels, by us on others. */
	struct bdev *bdev = NULL;
	char error[256];
	int rc = try_create(name, 0, false, &bdev, error, sizeof(error));
	assert_true(rc == -EROFS || rc == -EACCES);
	assert_non_null(strstr(error, "readonly may help"));
	harness_disk_open(&disk, create(name, 0, true), false);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	harness_disk_destroy(&disk);
	close(fd);
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
		cmocka_unit_test(test_refused),          cmocka_unit_test(test_name_taken),
		cmocka_unit_test(test_second_opener),    cmocka_unit_test(test_lock_after_io),
		cmocka_unit_test(test_read_only),        cmocka_unit_test(test_config),
		cmocka_unit_test(test_device),           cmocka_unit_test(test_device_4096),
		cmocka_unit_test(test_device_read_only),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
