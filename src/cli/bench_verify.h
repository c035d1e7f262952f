/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that prove where and when they were written. A block is filled whole from seed, offset
 * and generation: a stamp of 32 bytes, then a pattern that each of them changes. Reading it back
 * tells a lost write (an older generation), a misplaced one, a torn one and plain garbage apart.
 * Pure; any thread.
 */
#ifndef SLUICE_CLI_BENCH_VERIFY_H
#define SLUICE_CLI_BENCH_VERIFY_H

#include <stdint.h>

#define BENCH_STAMP_BYTES 32u

enum bench_verdict {
	BENCH_VERDICT_OK,
	BENCH_VERDICT_OTHER_GENERATION, /* whole, but not what was last acknowledged */
	BENCH_VERDICT_OTHER_OFFSET,     /* whole, but belongs elsewhere */
	BENCH_VERDICT_OTHER_RUN,        /* whole, but of another seed */
	BENCH_VERDICT_TORN,             /* a good stamp, and bytes that do not belong to it */
	BENCH_VERDICT_ZEROES,
	BENCH_VERDICT_GARBAGE,
};

struct bench_finding {
	enum bench_verdict verdict;
	uint32_t generation; /* found, where there is a good stamp */
	uint64_t offset;     /* found, likewise */
	uint32_t bad_byte;   /* of a torn block: the first word that is wrong */
};

/* block: block_bytes (a multiple of 8, at least BENCH_STAMP_BYTES) at an address aligned to 8. */
void bench_verify_fill(void *block, uint32_t block_bytes, uint64_t seed, uint64_t offset,
		       uint32_t generation);

/* Fills in *out; BENCH_VERDICT_OK only if every byte is as bench_verify_fill() makes it. */
enum bench_verdict bench_verify_check(const void *block, uint32_t block_bytes, uint64_t seed,
				      uint64_t offset, uint32_t generation,
				      struct bench_finding *out);

/* Such as "an older or newer generation". */
const char *bench_verdict_name(enum bench_verdict verdict);

#endif
