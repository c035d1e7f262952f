/* SPDX-License-Identifier: Apache-2.0 */
/* Block devices as disks, on loop devices. That needs root: without it the test says that it did
 * not run. */
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
#include <sys/ioctl.h>
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

static char directory[] = "test_bdev_device.XXXXXX";
static char disk_path[64];
static char mount_path[64];

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

static void test_device(void **state)
{
	struct disk_model_options options = {25, 16, 1, 64u << 10, 20};
	struct bdev_io ios[5] = {0};
	enum bdev_status statuses[5];
	struct harness_disk disk;
	char name[32];

	file_disk_make(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 512, false, name, sizeof(name));
	struct bdev *bdev = file_disk_create(name, 0, false);
	assert_true(file_bdev(bdev)->device);
	assert_int_equal(bdev_size_bytes(bdev), SIZE_BYTES);
	assert_int_equal(bdev->limits.block_size_bytes, 512);
	assert_true(bdev->limits.discard_max_bytes > 0);
	file_disk_refuse(name, 0, false, -EBUSY, "in use");
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
	assert_true(file_disk_allocated(disk_path) > SIZE_BYTES / 8);
	harness_submit(&disk, ios, ARRAY_COUNT(ios), statuses);
	for (size_t i = 0; i < ARRAY_COUNT(ios); i++)
		assert_int_equal(statuses[i], BDEV_STATUS_OK);
	assert_true(file_disk_allocated(disk_path) < SIZE_BYTES / 8);
	harness_disk_destroy(&disk);
	close(fd);
}

static void test_device_4096(void **state)
{
	struct disk_model_options options = {15, 8, 4096, 64u << 10, 8};
	struct harness_disk disk;
	char name[32];

	file_disk_make(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 4096, false, name, sizeof(name));
	file_disk_refuse(name, 512, false, -EINVAL, "blocks of 4096 bytes");
	struct bdev *bdev = file_disk_create(name, 0, false);
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

	file_disk_make(disk_path, SIZE_BYTES);
	int fd = attach_or_skip(disk_path, 512, true, name, sizeof(name));
	/* By open(2) on some kernels, by us on others. */
	struct bdev *bdev = NULL;
	char error[256];
	int rc = file_disk_try(name, 0, false, &bdev, error, sizeof(error));
	assert_true(rc == -EROFS || rc == -EACCES);
	assert_non_null(strstr(error, "readonly may help"));
	harness_disk_open(&disk, file_disk_create(name, 0, true), false);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	harness_disk_destroy(&disk);
	close(fd);
}

/* A device that loses what it was given: the loop device's own file system is full. The page cache
 * took the write, so it is the flush that must tell, and go on telling. */
static void test_flush_fails(void **state)
{
	char *buf = aligned_alloc(4096, SIZE_BYTES);
	struct harness_disk disk;
	char name[32], path[128];

	if (!file_disk_mount_small(mount_path)) {
		free(buf);
		skip();
	}
	memset(buf, 0x13, SIZE_BYTES);
	snprintf(path, sizeof(path), "%s/disk", mount_path);
	file_disk_make(path, SIZE_BYTES);
	int fd = attach_or_skip(path, 512, false, name, sizeof(name));
	struct bdev_file_options options = {.name = "full", .filename = name, .buffered = true};
	struct bdev *bdev;
	char error[256];
	assert_int_equal(bdev_file_create(&options, &bdev, error, sizeof(error)), 0);
	harness_disk_open(&disk, bdev, true);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, SIZE_BYTES), BDEV_STATUS_OK);
	assert_int_not_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	/* The kernel would say OK here. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0),
				 BDEV_STATUS_IO_ERROR);
	harness_disk_destroy(&disk);
	close(fd);
	umount2(mount_path, MNT_DETACH);
	rmdir(mount_path);
	free(buf);
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
		cmocka_unit_test(test_device),
		cmocka_unit_test(test_device_4096),
		cmocka_unit_test(test_device_read_only),
		cmocka_unit_test(test_flush_fails),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
