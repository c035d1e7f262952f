/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phases of a load run, and the watch over them: the clock, the connection, a target that
 * hangs, the user's Ctrl-C. Main thread.
 */
#ifndef SLUICE_CLI_BENCH_RUN_H
#define SLUICE_CLI_BENCH_RUN_H

#include <stdbool.h>

#include "cli/bench_setup.h"
#include "cli/bench_stats.h"

/* A target from which nothing has come for so long, when nothing but its answers is waited for,
 * is given up. */
#define BENCH_STALL_S 30

struct bench_outcome {
	enum bench_exit code;
	bool connected;   /* at the end */
	bool interrupted; /* by a signal; what was not reached is left out */
	unsigned int thread_count;
};

/* Runs all phases on a set-up and adds up into *total. Problems are told on stderr. */
void bench_run(struct bench_setup *setup, struct bench_stats *total, struct bench_outcome *outcome);

#endif
