/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings a load run up and down: the connection, the fit between options and disk, shared memory,
 * rings and requests. Main thread; the queues are then lent to generator threads.
 */
#ifndef SLUICE_CLI_BENCH_SETUP_H
#define SLUICE_CLI_BENCH_SETUP_H

#include <stdint.h>

#include "cli/bench.h"
#include "cli/bench_options.h"
#include "cli/bench_queue.h"
#include "frontend/blk_client.h"
#include "frontend/blk_slots.h"
#include "frontend/guest_arena.h"

struct bench_setup {
	const struct bench_options *options; /* borrowed */
	struct blk_client client;
	struct guest_arena arena;
	struct blk_slots_plan plan;
	struct bench_queue *queues; /* owned */
	uint32_t queue_count;       /* queues that are initialised */
	uint64_t region_bytes;      /* what the run touches, from the start of the disk */
	uint64_t unit_count;        /* region in units of --bs */
	uint32_t *units;            /* owned; NULL unless verifying */
};

/* BENCH_EXIT_OK, or the exit code after a sentence on stderr. To be followed by
 * bench_setup_close() in any case. */
enum bench_exit bench_setup_open(struct bench_setup *setup, const struct bench_options *options);

/* orderly: the connection is alive and no request is outstanding, so rings are stopped first. */
void bench_setup_close(struct bench_setup *setup, bool orderly);

/* The part of the region that belongs to queue index when queues do not share it: its first unit
 * and count. */
void bench_setup_part(const struct bench_setup *setup, uint32_t index, uint64_t *first,
		      uint64_t *count);

#endif
