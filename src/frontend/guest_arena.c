/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of a front-end: see guest_arena.h, also for who owns it. */
#include "frontend/guest_arena.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/range.h"

int guest_arena_create(struct guest_arena *arena, uint64_t size_bytes, bool hugetlb)
{
	*arena = (struct guest_arena){.fd = -1};
	size_bytes = (size_bytes + GUEST_ARENA_GRANULE - 1) & ~(GUEST_ARENA_GRANULE - 1);

	int fd = fd_memfd_create("sluice-bench", size_bytes, hugetlb ? MFD_HUGETLB : 0);
	if (fd < 0)
		return fd;
	/* Present from the start: a page fault in the measured path would be ours, not the
	 * target's. */
	void *base =
		mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (base == MAP_FAILED) {
		int rc = -errno;
		fd_close(&fd);
		return rc;
	}
	*arena = (struct guest_arena){.fd = fd, .base = base, .size_bytes = size_bytes};
	return 0;
}

void guest_arena_destroy(struct guest_arena *arena)
{
	if (arena->base != NULL)
		munmap(arena->base, arena->size_bytes);
	arena->base = NULL;
	fd_close(&arena->fd);
}

void *guest_arena_alloc(struct guest_arena *arena, uint64_t len_bytes, uint64_t align_bytes)
{
	ensure(align_bytes > 0 && (align_bytes & (align_bytes - 1)) == 0);
	uint64_t at = (arena->next_bytes + align_bytes - 1) & ~(align_bytes - 1);

	if (!range_within(at, len_bytes, arena->size_bytes))
		return NULL;
	arena->next_bytes = at + len_bytes;
	return arena->base + at;
}

uint64_t guest_arena_address(const struct guest_arena *arena, const void *ptr)
{
	ptrdiff_t at = (const uint8_t *)ptr - arena->base;

	ensure(at >= 0 && (uint64_t)at < arena->size_bytes);
	return GUEST_ARENA_BASE + (uint64_t)at;
}
