/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers for the tests of the file back-end; see file_disk.h. */
#include "file_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"

void file_disk_make(const char *path, uint64_t size_bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ensure(fd >= 0 && ftruncate(fd, (off_t)size_bytes) == 0);
	close(fd);
}

uint64_t file_disk_allocated(const char *path)
{
	struct stat st;

	ensure(stat(path, &st) == 0);
	return (uint64_t)st.st_blocks * 512;
}

int file_disk_try(const char *path, uint32_t block_size, bool read_only, struct bdev **out,
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

struct bdev *file_disk_create(const char *path, uint32_t block_size, bool read_only)
{
	struct bdev *bdev = NULL;
	char error[256];

	if (file_disk_try(path, block_size, read_only, &bdev, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return bdev;
}

/* The number that the next fd will get. */
static int next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

void file_disk_refuse(const char *path, uint32_t block_size, bool read_only, int rc,
		      const char *words)
{
	struct bdev *bdev = NULL;
	char error[256];
	int fd_before = next_fd();

	assert_int_equal(file_disk_try(path, block_size, read_only, &bdev, error, sizeof(error)),
			 rc);
	if (strstr(error, words) == NULL || strstr(error, path) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", error, words);
	assert_int_equal(fd_before, next_fd());
}

bool file_disk_mount_small(const char *path)
{
	if (mkdir(path, 0700) == 0 &&
	    mount("none", path, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") == 0)
		return true;
	printf("# cannot mount a small tmpfs (%s): a full file system is NOT tested\n",
	       strerror(errno));
	rmdir(path);
	return false;
}
