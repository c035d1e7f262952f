/* SPDX-License-Identifier: Apache-2.0 */
/* Random I/O on a disk, compared against a plain array that models it. */
#ifndef SLUICE_TESTS_DISK_MODEL_H
#define SLUICE_TESTS_DISK_MODEL_H

#include "harness.h"

struct disk_model_options {
	unsigned int round_count;
	unsigned int depth;    /* I/Os in flight together, on ranges of their own */
	uint32_t buffer_align; /* of iovec bases and lengths; 1: odd ones */
	uint64_t io_max_bytes;
	unsigned int iov_max_count; /* pieces of a buffer at most */
};
/* Fails the running cmocka test on the first difference. The disk is cleared first. */
void disk_model_run(struct harness_disk *disk, const struct disk_model_options *options);

#endif
