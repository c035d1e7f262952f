/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log-linear histogram of 64-bit values: exact below 128, above that 64 equal steps an octave,
 * so a percentile is never off by more than 1/128 of itself (the middle of a step is reported).
 * Fixed size, no allocation. Owned by one thread; merged after it has ended.
 */
#ifndef SLUICE_BASE_HISTOGRAM_H
#define SLUICE_BASE_HISTOGRAM_H

#include <stdint.h>

#include "base/compiler.h"

#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t count;
	uint64_t sum; /* wraps after 2^64: for ticks at 5 GHz, a century of waiting in sum */
	uint64_t max;
	uint64_t min; /* UINT64_MAX while empty */
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_reset(struct histogram *h);

/* Which bucket a value falls into. Buckets of octave e (2^e <= v < 2^(e+1), e > 6) follow each
 * other without a hole after the 128 exact ones. */
static inline uint32_t histogram_bucket(uint64_t value)
{
	if (value < 2 * HISTOGRAM_STEPS)
		return (uint32_t)value;
	uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
	return shift * HISTOGRAM_STEPS + (uint32_t)(value >> shift);
}

/* Adds the same value times over: a batch that was submitted and seen together costs one call. */
static inline void histogram_record_many(struct histogram *h, uint64_t value, uint64_t times)
{
	h->count += times;
	h->sum += value * times;
	h->max = MAX(h->max, value);
	h->min = MIN(h->min, value);
	h->buckets[histogram_bucket(value)] += times;
}

static inline void histogram_record(struct histogram *h, uint64_t value)
{
	histogram_record_many(h, value, 1);
}

/* Adds all of from into into. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that a share of per_mille/1000 of the records does not exceed; 0 when empty, never
 * above max or below min. */
uint64_t histogram_percentile(const struct histogram *h, uint32_t per_mille);

/* 0 when empty. */
double histogram_mean(const struct histogram *h);

#endif
