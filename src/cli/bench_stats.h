/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a generator thread counts, and the sums over threads and phases. A thread owns its own; the
 * main thread reads `progress` while it runs and everything after joining it.
 */
#ifndef SLUICE_CLI_BENCH_STATS_H
#define SLUICE_CLI_BENCH_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/histogram.h"

/* The first request that failed, for the message at the end. */
struct bench_failure {
	uint64_t offset;
	uint32_t type;
	uint8_t status;
};

struct bench_stats {
	uint64_t progress; /* completions of all kinds since the phase began */
	uint64_t last_completion_ticks;
	uint64_t longest_gap_ticks;
	/* Since the measured time began. */
	uint64_t reads;
	uint64_t writes;
	uint64_t flushes;
	uint64_t start_ticks;
	uint64_t end_ticks;
	/* A sample of the time spent on completing and submitting. */
	uint64_t sampled_ticks;
	uint64_t sampled_ios;
	/* Never reset during a phase: an error counts whenever it happens. */
	uint64_t errors;
	uint64_t lost; /* of these, requests that never came back */
	uint64_t verify_errors;
	uint64_t verified_blocks;
	uint64_t unverified_reads;
	uint64_t kicks;
	struct bench_failure first_failure; /* valid when errors > lost */
	struct histogram latency;           /* ticks; reads and writes */
	struct histogram flush_latency;
} CACHE_ALIGNED;

void bench_stats_init(struct bench_stats *stats);

/* Forgets what belongs to the warm-up. */
void bench_stats_begin(struct bench_stats *stats, uint64_t now_ticks);

/* Adds a thread's part. With errors_only its I/Os are left out of the result: those of filling
 * and reading back. */
void bench_stats_add(struct bench_stats *total, const struct bench_stats *part, bool errors_only);

#endif
