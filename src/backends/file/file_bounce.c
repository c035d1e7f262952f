/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounce buffers: aligned memory for direct I/O on behalf of guests whose buffers are not. A fixed
 * number a reactor; who finds none waits its turn. On the reactor's thread.
 */
#include <errno.h>
#include <sys/mman.h>

#include "backends/file/file_impl.h"
#include "base/assert.h"

int file_bounce_init(struct file_bounce *bounce)
{
	void *base =
		mmap(NULL, (size_t)FILE_BOUNCE_COUNT * FILE_BOUNCE_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	bounce->base = base;
	bounce->waiting_first = NULL;
	bounce->waiting_last = &bounce->waiting_first;
	/* The lowest number on top: little traffic touches few pages. */
	for (bounce->free_count = 0; bounce->free_count < FILE_BOUNCE_COUNT; bounce->free_count++)
		bounce->free[bounce->free_count] =
			(uint8_t)(FILE_BOUNCE_COUNT - 1 - bounce->free_count);
	return 0;
}

void file_bounce_fini(struct file_bounce *bounce)
{
	ensure(bounce->free_count == FILE_BOUNCE_COUNT && bounce->waiting_first == NULL);
	munmap(bounce->base, (size_t)FILE_BOUNCE_COUNT * FILE_BOUNCE_BYTES);
}

int file_bounce_get(struct file_bounce *bounce, struct bdev_io *io)
{
	if (bounce->free_count > 0)
		return bounce->free[--bounce->free_count];
	io->next = NULL;
	*bounce->waiting_last = io;
	bounce->waiting_last = &io->next;
	return -1;
}

struct bdev_io *file_bounce_put(struct file_bounce *bounce, int index)
{
	struct bdev_io *io = bounce->waiting_first;

	if (io == NULL) {
		ensure(bounce->free_count < FILE_BOUNCE_COUNT);
		bounce->free[bounce->free_count++] = (uint8_t)index;
		return NULL;
	}
	bounce->waiting_first = io->next;
	if (bounce->waiting_first == NULL)
		bounce->waiting_last = &bounce->waiting_first;
	return io;
}
