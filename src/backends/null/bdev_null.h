/* SPDX-License-Identifier: Apache-2.0 */
/* The null back-end: ends every I/O at once; reads leave the buffer as it is. Control thread. */
#ifndef SLUICE_BACKENDS_NULL_H
#define SLUICE_BACKENDS_NULL_H

#include "bdev/bdev.h"

struct bdev_null_options {
	const char *name;
	const char *uuid; /* NULL: made anew */
	uint64_t block_count;
	uint32_t block_size_bytes;
	uint32_t physical_block_size_bytes; /* 0: as block_size_bytes */
};
/* 0; -EEXIST, -EINVAL, -ENOMEM. *out is owned by the registry. */
int bdev_null_create(const struct bdev_null_options *options, struct bdev **out);

#endif
