/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verifying run does besides: chooses units so that no write overlaps another I/O, stamps
 * what it writes and proves what it reads. Declared in bench_queue.h; runs on the queue's thread.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"
#include "cli/bench_queue.h"
#include "cli/bench_units.h"
#include "cli/bench_verify.h"

/* Of all queues together, on stderr; the rest is only counted. */
#define FINDINGS_SHOWN 10

static atomic_uint findings_shown;

static uint64_t step(struct bench_queue *queue)
{
	uint64_t at = queue->cursor;

	queue->cursor = at + 1 == queue->unit_count ? 0 : at + 1;
	return at;
}

/* A unit that no I/O is under way on. A part has more units than its queue has slots, so the walk
 * ends. */
static uint64_t choose_free(struct bench_queue *queue, uint64_t bits)
{
	uint64_t at = queue->is_random ? random_scale(bits, queue->unit_count) : step(queue);

	for (uint64_t tries = 0; bench_unit_busy(queue->units[queue->first_unit + at]); tries++) {
		ensure(tries < queue->unit_count);
		if (queue->is_random)
			at = at + 1 == queue->unit_count ? 0 : at + 1;
		else
			at = step(queue);
	}
	return queue->first_unit + at;
}

/* The next unit whose content is known: false at the end of the part. */
static bool choose_known(struct bench_queue *queue, uint64_t *out)
{
	while (queue->remaining > 0) {
		*out = queue->first_unit + queue->cursor;
		if (bench_unit_expected(queue->units[*out]) != 0) {
			queue->cursor++;
			return true;
		}
		queue->cursor++;
		queue->remaining--;
	}
	return false;
}

static uint64_t unit_bytes(const struct bench_queue *queue)
{
	return (uint64_t)queue->unit_sectors * 512;
}

static void stamp_unit(struct bench_queue *queue, uint32_t slot, uint64_t unit)
{
	uint8_t *data = blk_slots_data(&queue->slots, slot);
	uint32_t generation = bench_unit_next_generation(queue->units[unit]);

	for (uint64_t at = 0; at < unit_bytes(queue); at += queue->block_bytes)
		bench_verify_fill(data + at, queue->block_bytes, queue->seed,
				  unit * unit_bytes(queue) + at, generation);
}

bool bench_prover_next(struct bench_queue *queue, uint32_t slot, bool *read)
{
	struct bench_slot *state = &queue->state[slot];

	if (queue->phase == BENCH_PHASE_FILL) {
		state->unit = queue->first_unit + step(queue);
		*read = false;
	} else if (queue->phase == BENCH_PHASE_READBACK) {
		if (!choose_known(queue, &state->unit))
			return false;
		*read = true;
	} else {
		uint64_t bits = random_next(&queue->random);
		*read = (uint32_t)(bits & 0xffff) < queue->read_threshold;
		state->unit = choose_free(queue, bits);
	}
	bench_unit_begin(&queue->units[state->unit]);
	/* What the buffer holds from before may be just what is expected: a read that leaves it
	 * alone must not pass. */
	if (*read)
		memset(blk_slots_data(&queue->slots, slot), 0xa5, unit_bytes(queue));
	else
		stamp_unit(queue, slot, state->unit);
	return true;
}

static void show(const struct bench_queue *queue, uint64_t offset, uint32_t generation,
		 const struct bench_finding *found)
{
	if (atomic_fetch_add(&findings_shown, 1) >= FINDINGS_SHOWN)
		return;
	fprintf(stderr,
		"sluice bench: verify: queue %u read at offset %llu: expected generation %u, found "
		"%s (generation %u, offset %llu, first wrong byte %u)\n",
		queue->index, (unsigned long long)offset, generation,
		bench_verdict_name(found->verdict), found->generation,
		(unsigned long long)found->offset, found->bad_byte);
}

static void prove_unit(struct bench_queue *queue, uint32_t slot, uint32_t generation)
{
	const uint8_t *data = blk_slots_data(&queue->slots, slot);
	uint64_t start = queue->state[slot].unit * unit_bytes(queue);

	for (uint64_t at = 0; at < unit_bytes(queue); at += queue->block_bytes) {
		struct bench_finding found;
		queue->stats->verified_blocks++;
		if (bench_verify_check(data + at, queue->block_bytes, queue->seed, start + at,
				       generation, &found) == BENCH_VERDICT_OK)
			continue;
		queue->stats->verify_errors++;
		show(queue, start + at, generation, &found);
	}
}

void bench_prover_complete(struct bench_queue *queue, uint32_t slot, bool ok)
{
	struct bench_slot *state = &queue->state[slot];
	uint32_t *unit = &queue->units[state->unit];

	if (!state->read) {
		bench_unit_end_write(unit, ok);
		return;
	}
	uint32_t expected = bench_unit_expected(*unit);
	bench_unit_end_read(unit);
	if (!ok)
		return; /* counted as an I/O error */
	if (expected != 0)
		prove_unit(queue, slot, expected);
	else
		queue->stats->unverified_reads++;
}
