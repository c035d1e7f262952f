/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the memory back-end. */
#ifndef SLUICE_BACKENDS_MEMORY_IMPL_H
#define SLUICE_BACKENDS_MEMORY_IMPL_H

#include "backends/memory/bdev_memory.h"
#include "base/compiler.h"

/* Where transparent huge pages may start, and hugetlb's usual page. */
#define MEMORY_HUGE_PAGE_BYTES (2ull << 20)

/* Fixed from creation on, but for the mapping; read by all reactors. */
struct memory_bdev {
	struct bdev bdev;
	char *base; /* written by the control thread; a channel keeps to the one that it was told of
		     */
	uint64_t map_bytes;
	/* What channels may still use until the change of size is settled; NULL: nothing. */
	char *old_base;
	uint64_t old_map_bytes;
	uint32_t page_bytes;
	int fd;
	bool hugetlb;
	bool hugetlb_wanted;
};

/* Where the disk is mapped, and the I/Os too long to be done in one go. On the reactor's thread. */
struct memory_channel {
	char *base;
	const struct memory_bdev *memory;
	struct bdev_channel *channel;
	struct poller poller;
	struct bdev_io *long_first;
	struct bdev_io **long_last;
};

static inline struct memory_bdev *memory_bdev(const struct bdev *bdev)
{
	return container_of((struct bdev *)(uintptr_t)bdev, struct memory_bdev, bdev);
}

int memory_channel_get(struct bdev_channel *channel);
void memory_channel_put(struct bdev_channel *channel);
void memory_channel_resize(struct bdev_channel *channel);
void memory_submit(struct bdev_channel *channel, struct bdev_io *io);

/* memory_resize.c */
int memory_reserve(struct bdev *bdev, uint64_t block_count);
void memory_settle(struct bdev *bdev);
/* Of a mapping that holds a disk of size_bytes. */
uint64_t memory_map_bytes(const struct memory_bdev *memory, uint64_t size_bytes);

#endif
