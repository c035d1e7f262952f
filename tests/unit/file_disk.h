/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the file back-end share. Main thread of a cmocka test. */
#ifndef SLUICE_TESTS_FILE_DISK_H
#define SLUICE_TESTS_FILE_DISK_H

#include "backends/file/bdev_file.h"

/* A sparse file, empty before. */
void file_disk_make(const char *path, uint64_t size_bytes);
/* Bytes that the file system has allocated for it. */
uint64_t file_disk_allocated(const char *path);
/* A file bdev with a name of its own: as bdev_file_create(). */
int file_disk_try(const char *path, uint32_t block_size, bool read_only, struct bdev **out,
		  char *error, size_t error_bytes);
/* The same; the test fails if that does. */
struct bdev *file_disk_create(const char *path, uint32_t block_size, bool read_only);
/* Fails unless it is refused with rc, in a sentence that names the file and has the words, and no
 * fd is lost. */
void file_disk_refuse(const char *path, uint32_t block_size, bool read_only, int rc,
		      const char *words);
/* Mounts a tmpfs of 1 MiB at path, made for it. Needs root: says so and returns false if it cannot.
 */
bool file_disk_mount_small(const char *path);

#endif
