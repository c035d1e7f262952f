/* SPDX-License-Identifier: Apache-2.0 */
/* The one overflow-safe way to check a range that somebody else chose. Pure. */
#ifndef SLUICE_BASE_RANGE_H
#define SLUICE_BASE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

/* True when [offset, offset + len) lies inside [0, limit). An empty range at limit is inside. */
static inline bool range_within(uint64_t offset, uint64_t len, uint64_t limit)
{
	return offset <= limit && len <= limit - offset;
}

/* True when offset + len does not wrap. */
static inline bool range_valid(uint64_t offset, uint64_t len)
{
	return len <= UINT64_MAX - offset;
}

/* True when [a, a + a_len) and [b, b + b_len) share a byte. Both must be valid ranges. */
static inline bool range_overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	if (a_len == 0 || b_len == 0)
		return false;
	return a < b ? b - a < a_len : a - b < b_len;
}

#endif
