/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the memory back-end. */
#ifndef SLUICE_BACKENDS_MEMORY_IMPL_H
#define SLUICE_BACKENDS_MEMORY_IMPL_H

#include "backends/memory/bdev_memory.h"
#include "base/compiler.h"

/* Fixed from creation on; read by all reactors. */
struct memory_bdev {
	struct bdev bdev;
	char *base;
	uint64_t map_bytes;
	uint32_t page_bytes;
	int fd;
	bool hugetlb;
	bool hugetlb_wanted;
};

/* The I/Os too long to be done in one go, on the reactor's thread. */
struct memory_channel {
	struct poller poller;
	struct bdev_channel *channel;
	struct bdev_io *long_first;
	struct bdev_io **long_last;
};

static inline struct memory_bdev *memory_bdev(const struct bdev *bdev)
{
	return container_of((struct bdev *)(uintptr_t)bdev, struct memory_bdev, bdev);
}

int memory_channel_get(struct bdev_channel *channel);
void memory_channel_put(struct bdev_channel *channel);
void memory_submit(struct bdev_channel *channel, struct bdev_io *io);

#endif
