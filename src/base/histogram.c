/* SPDX-License-Identifier: Apache-2.0 */
/* The cold half of the histogram: reset, merge and reading it. Pure. */
#include "base/histogram.h"

#include <string.h>

#include "base/assert.h"

void histogram_reset(struct histogram *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	into->count += from->count;
	into->sum += from->sum;
	into->max = MAX(into->max, from->max);
	into->min = MIN(into->min, from->min);
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

static uint64_t bucket_middle(uint32_t bucket)
{
	if (bucket < 2 * HISTOGRAM_STEPS)
		return bucket;
	uint32_t shift = bucket / HISTOGRAM_STEPS - 1;
	uint64_t step = bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
	return (step << shift) + ((1ull << shift) >> 1);
}

uint64_t histogram_percentile(const struct histogram *h, uint32_t per_mille)
{
	ensure(per_mille <= 1000);
	if (h->count == 0)
		return 0;
	uint64_t rank = (uint64_t)(((unsigned __int128)h->count * per_mille + 999) / 1000);
	uint64_t seen = 0;
	rank = MAX(rank, 1u);
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= rank)
			return MAX(MIN(bucket_middle(i), h->max), h->min);
	}
	return h->max;
}

double histogram_mean(const struct histogram *h)
{
	return h->count == 0 ? 0.0 : (double)h->sum / (double)h->count;
}
