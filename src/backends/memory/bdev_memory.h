/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory back-end: a disk in a memfd, on transparent huge pages where the system grants them,
 * or on hugetlb pages if asked for and there. Control thread.
 */
#ifndef SLUICE_BACKENDS_MEMORY_H
#define SLUICE_BACKENDS_MEMORY_H

#include "bdev/bdev.h"

struct bdev_memory_options {
	const char *name;
	const char *uuid; /* NULL: made anew */
	uint64_t block_count;
	uint32_t block_size_bytes;
	uint32_t physical_block_size_bytes; /* 0: as block_size_bytes */
	bool hugetlb;                       /* try hugetlb first; falls back to plain pages */
};
/* 0; -EEXIST, -EINVAL, -ENOMEM. *out is owned by the registry. */
int bdev_memory_create(const struct bdev_memory_options *options, struct bdev **out);

#endif
