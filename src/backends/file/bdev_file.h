/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file back-end: regular files and block devices by io_uring, with O_DIRECT where the file
 * system has it.
 */
#ifndef SLUICE_BACKENDS_FILE_H
#define SLUICE_BACKENDS_FILE_H

#include "bdev/bdev.h"

/* Which RPC made it: decides the name under which it is saved and may be deleted. */
enum bdev_file_dialect { BDEV_FILE_URING, BDEV_FILE_AIO };

struct bdev_file_options {
	const char *name;
	const char *uuid; /* NULL: made anew */
	const char *filename;
	uint32_t block_size_bytes; /* 0: what the storage has */
	bool read_only;
	bool buffered; /* go through the page cache even where O_DIRECT works */
	/* Hold the lock on the file only while a guest is being served: for live migration, where
	 * two daemons have the same file open and one of them serves. */
	bool migratable;
	enum bdev_file_dialect dialect;
};
/* Any thread; may block for as long as the file system likes, so on a worker. Opens and locks the
 * file, and makes a disk of it that nobody sees yet. 0; -ENOENT and what else open(2) says; -EBUSY:
 * another process or another bdev has the file (exclusive flock); -EINVAL: not a file or block
 * device, not a whole number of blocks, block size below what the device has. error, of
 * error_bytes, receives a sentence that says what was wrong. *out is the caller's, who must
 * register or abandon it. */
int bdev_file_open(const struct bdev_file_options *options, struct bdev **out, char *error,
		   size_t error_bytes);
/* Control thread. 0, and bdev is the registry's; -EEXIST: name or uuid taken, and bdev stays the
 * caller's. */
int bdev_file_register(struct bdev *bdev, char *error, size_t error_bytes);
/* Any thread; may block: lets go of a disk that was not registered. */
void bdev_file_abandon(struct bdev *bdev);
/* Both steps in one, for where blocking does no harm. Control thread. */
int bdev_file_create(const struct bdev_file_options *options, struct bdev **out, char *error,
		     size_t error_bytes);
/* How many whole blocks the storage has now, which somebody else may have changed: 0, or -errno
 * with a sentence in error; -EINVAL: not even one. For bdev_resize(). */
int bdev_file_block_count(const struct bdev *bdev, uint64_t *block_count, char *error,
			  size_t error_bytes);
bool bdev_is_file(const struct bdev *bdev, enum bdev_file_dialect dialect);

#endif
