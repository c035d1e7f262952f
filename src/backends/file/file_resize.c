/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File disks that change their size: because the file or device has another one by now, or because
 * we are asked to give the file another. Control thread.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/file/file_impl.h"

static int storage_size(const struct file_bdev *file, uint64_t *size_bytes)
{
	struct stat st;

	if (file->device)
		return ioctl(file->fd, BLKGETSIZE64, size_bytes) < 0 ? -errno : 0;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	*size_bytes = (uint64_t)st.st_size;
	return 0;
}

int bdev_file_block_count(const struct bdev *bdev, uint64_t *block_count, char *error,
			  size_t error_bytes)
{
	const struct file_bdev *file = file_bdev(bdev);
	uint32_t block_size = bdev->limits.block_size_bytes;
	uint64_t size_bytes = 0;
	int rc = storage_size(file, &size_bytes);

	if (rc < 0) {
		snprintf(error, error_bytes, "'%s' does not tell its size: %s", file->filename,
			 strerror(-rc));
		return rc;
	}
	/* As at creation, which is what happens to it after a restart. */
	if (size_bytes == 0 || size_bytes % block_size != 0) {
		snprintf(error, error_bytes,
			 "'%s' has %llu bytes, not a whole number of blocks of %u; the disk stays "
			 "as it was",
			 file->filename, (unsigned long long)size_bytes, block_size);
		return -EINVAL;
	}
	*block_count = size_bytes / block_size;
	return 0;
}

/* Not ours to cut: another daemon may be serving a migratable file while we are not. */
static bool is_lent(const struct file_bdev *file)
{
	return file->migratable && file->bdev.active_count == 0;
}

/* A file grows here and shrinks when no I/O is left beyond its new end; a device is what it is, and
 * would be so again after a restart. */
int file_reserve(struct bdev *bdev, uint64_t block_count)
{
	struct file_bdev *file = file_bdev(bdev);
	uint64_t wanted_bytes = block_count * bdev->limits.block_size_bytes;
	uint64_t size_bytes = 0;
	int rc = storage_size(file, &size_bytes);

	if (rc < 0)
		return rc;
	if (file->device)
		return wanted_bytes == size_bytes ? 0 : -EOPNOTSUPP;
	if (bdev->limits.read_only)
		return -EROFS;
	if (is_lent(file))
		return -EBUSY;
	if (wanted_bytes > size_bytes && ftruncate(file->fd, (off_t)wanted_bytes) < 0)
		return -errno;
	file->cut_wanted = true;
	return 0;
}

void file_settle(struct bdev *bdev)
{
	struct file_bdev *file = file_bdev(bdev);
	uint64_t size_bytes = 0;

	if (!file->cut_wanted || is_lent(file))
		return;
	file->cut_wanted = false;
	if (storage_size(file, &size_bytes) == 0 && size_bytes > bdev_size_bytes(bdev) &&
	    ftruncate(file->fd, (off_t)bdev_size_bytes(bdev)) < 0)
		log_warn("'%s': cannot be cut to the size of its disk: %s", file->filename,
			 strerror(errno));
}
