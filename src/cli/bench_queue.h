/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtqueue under load: keeps `depth` requests outstanding on it and accounts for those that
 * come back. A phase (filling, the workload, reading back) is started with bench_queue_start() and
 * then driven by bench_queue_poll(). Owned by one generator thread during a phase, by the main
 * thread between phases.
 */
#ifndef SLUICE_CLI_BENCH_QUEUE_H
#define SLUICE_CLI_BENCH_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/bench_stats.h"
#include "frontend/blk_slots.h"
#include "frontend/vring_driver.h"

enum bench_phase {
	BENCH_PHASE_FILL,     /* write every unit of the queue's part once */
	BENCH_PHASE_WORKLOAD, /* what --rw asks for */
	BENCH_PHASE_READBACK, /* read every unit of another queue's part that is known */
};

/* The driver's own memory of a slot; the device never sees it. */
struct bench_slot {
	uint64_t submit_ticks;
	uint64_t unit;
	bool busy;
	bool read; /* direction of the slot's descriptors */
};

struct bench_queue {
	struct vring_driver ring;
	struct blk_slots slots;
	struct bench_slot *state;  /* owned; a slot each */
	struct bench_stats *stats; /* of the thread that drives the queue in this phase */

	/* Where and what: units of unit_sectors sectors, the first of them at first_unit. */
	uint64_t random;
	uint64_t first_unit;
	uint64_t unit_count;
	uint64_t cursor; /* of a sequential workload: in [0, unit_count) */
	uint32_t unit_sectors;
	uint32_t read_threshold; /* of 65536: how many I/Os are reads */
	bool is_random;

	uint32_t depth;
	uint32_t outstanding;
	uint64_t remaining;    /* I/Os still to submit in this phase */
	bool static_rings;     /* descriptors are written once, not for every request */
	uint64_t think_ticks;  /* 0: a completed I/O is followed by the next at once */
	uint64_t resume_ticks; /* when the pause ends; 0: none */
	uint64_t flush_every;
	uint64_t writes_unflushed;
	uint32_t batch_number;

	/* Verifying runs only; units is shared, each unit having one owner in a phase. */
	uint32_t *units;
	enum bench_phase phase;
	uint64_t seed;
	uint32_t block_bytes; /* of the device */
	uint32_t index;

	const char *broken; /* why the device's ring cannot be followed any longer, or NULL */
} CACHE_ALIGNED;

/* Submits the first requests of a phase. The caller has set where and what, remaining, phase and
 * stats. */
void bench_queue_start(struct bench_queue *queue);

/* Completes at most a batch, submits as many, and returns how many it completed. */
uint32_t bench_queue_poll(struct bench_queue *queue);
uint32_t bench_queue_poll_verify(struct bench_queue *queue);

/* Whether the queue pauses between two rounds. */
static inline bool bench_queue_pauses(const struct bench_queue *queue)
{
	return queue->resume_ticks != 0 && queue->remaining != 0;
}

/* Verification's part (bench_prover.c). Chooses the next unit and fills the slot's buffer if it
 * is to be written: false when nothing is left to do in this phase. Sets state->unit and *read. */
bool bench_prover_next(struct bench_queue *queue, uint32_t slot, bool *read);
/* Proves a read, or takes note of a write. */
void bench_prover_complete(struct bench_queue *queue, uint32_t slot, bool ok);

#endif
