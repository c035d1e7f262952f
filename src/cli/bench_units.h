/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verifying run knows about each unit (--bs bytes) of its region: the generation last
 * acknowledged, and whether an I/O is under way on it. No two I/Os overlap while one of them may
 * be a write, so a read has exactly one right answer. Each unit is owned by one queue's thread
 * during a phase; phases are separated by joining the threads.
 */
#ifndef SLUICE_CLI_BENCH_UNITS_H
#define SLUICE_CLI_BENCH_UNITS_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_UNIT_BUSY (1u << 31)
/* A write of it failed: it may hold the old data, the new, or a mixture. */
#define BENCH_UNIT_UNKNOWN (1u << 30)
#define BENCH_UNIT_GENERATION_MASK (BENCH_UNIT_UNKNOWN - 1)

static inline bool bench_unit_busy(uint32_t state)
{
	return (state & BENCH_UNIT_BUSY) != 0;
}

/* The generation that a read must show, or 0 when anything may be there: the unit was never
 * written in this run, or its last write failed. */
static inline uint32_t bench_unit_expected(uint32_t state)
{
	return (state & BENCH_UNIT_UNKNOWN) ? 0 : state & BENCH_UNIT_GENERATION_MASK;
}

/* The generation for the next write; never 0. */
static inline uint32_t bench_unit_next_generation(uint32_t state)
{
	uint32_t next = (state + 1) & BENCH_UNIT_GENERATION_MASK;

	return next == 0 ? 1 : next;
}

static inline void bench_unit_begin(uint32_t *state)
{
	*state |= BENCH_UNIT_BUSY;
}

static inline void bench_unit_end_read(uint32_t *state)
{
	*state &= ~BENCH_UNIT_BUSY;
}

/* A failed write takes its generation with it, so that what it left is never taken for a later
 * write. */
static inline void bench_unit_end_write(uint32_t *state, bool ok)
{
	*state = bench_unit_next_generation(*state) | (ok ? 0 : BENCH_UNIT_UNKNOWN);
}

#endif
