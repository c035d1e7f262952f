/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory disk that changes its size: the memfd grows and is mapped a second time, channels go
 * over to the new mapping one by one, then the old one goes. When a disk has shrunk, its memory
 * beyond the new end is given back, and reads as zeroes should the disk grow again. Control thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/memory/memory_impl.h"
#include "base/assert.h"
#include "base/log.h"

uint64_t memory_map_bytes(const struct memory_bdev *memory, uint64_t size_bytes)
{
	uint64_t page = memory->hugetlb ? MEMORY_HUGE_PAGE_BYTES : memory->page_bytes;

	return (size_bytes + page - 1) & ~(page - 1);
}

/* The file only ever grows: it is sealed against anything else. */
static int grow_file(const struct memory_bdev *memory, uint64_t map_bytes)
{
	struct stat st;

	if (fstat(memory->fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < map_bytes && ftruncate(memory->fd, (off_t)map_bytes) < 0)
		return -errno;
	return 0;
}

int memory_reserve(struct bdev *bdev, uint64_t block_count)
{
	struct memory_bdev *memory = memory_bdev(bdev);
	uint64_t size_bytes = block_count * bdev->limits.block_size_bytes;

	if (size_bytes > INT64_MAX - MEMORY_HUGE_PAGE_BYTES)
		return -ENOMEM;
	uint64_t map_bytes = memory_map_bytes(memory, size_bytes);
	if (map_bytes <= memory->map_bytes)
		return 0;
	ensure(memory->old_base == NULL);
	int rc = grow_file(memory, map_bytes);
	if (rc < 0)
		return rc;
	void *base = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
	if (base == MAP_FAILED)
		return -ENOMEM;
	if (!memory->hugetlb)
		madvise(base, map_bytes, MADV_HUGEPAGE);
	madvise(base, map_bytes, MADV_DONTDUMP);
	memory->old_base = memory->base;
	memory->old_map_bytes = memory->map_bytes;
	memory->map_bytes = map_bytes;
	/* A channel that starts now may take either. */
	store_relaxed(&memory->base, base);
	return 0;
}

/* Makes what lies beyond the end zero, and gives it back as far as there are whole pages. */
static void clear_beyond(const struct memory_bdev *memory, uint64_t size_bytes, uint64_t keep_bytes)
{
	uint64_t len_bytes = memory->map_bytes - keep_bytes;

	memset(memory->base + size_bytes, 0, keep_bytes - size_bytes);
	if (len_bytes == 0)
		return;
	if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)keep_bytes,
		      (off_t)len_bytes) < 0) {
		log_warn("memory disk %s: its memory is not given back: %s", memory->bdev.name,
			 strerror(errno));
		memset(memory->base + keep_bytes, 0, len_bytes);
	}
}

void memory_settle(struct bdev *bdev)
{
	struct memory_bdev *memory = memory_bdev(bdev);
	uint64_t size_bytes = bdev_size_bytes(bdev);
	uint64_t keep_bytes = memory_map_bytes(memory, size_bytes);

	if (memory->old_base != NULL)
		munmap(memory->old_base, memory->old_map_bytes);
	memory->old_base = NULL;
	clear_beyond(memory, size_bytes, keep_bytes);
	if (keep_bytes < memory->map_bytes &&
	    munmap(memory->base + keep_bytes, memory->map_bytes - keep_bytes) == 0)
		memory->map_bytes = keep_bytes;
}
