/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small, fast, seeded generator (SplitMix64 by Steele, Lea and Flood): its state is a counter,
 * so that consecutive numbers do not wait for each other in the pipeline. Not for secrets. Owned
 * by one thread.
 */
#ifndef SLUICE_BASE_RANDOM_H
#define SLUICE_BASE_RANDOM_H

#include <stdint.h>

/* A bijection of 64-bit words in which every input bit changes about half of the output bits. */
static inline uint64_t random_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline uint64_t random_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return random_mix(*state);
}

/* Maps 64 random bits onto [0, limit) by multiplication; the high bits decide. */
static inline uint64_t random_scale(uint64_t bits, uint64_t limit)
{
	return (uint64_t)(((unsigned __int128)bits * limit) >> 64);
}

#endif
