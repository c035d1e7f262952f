/* SPDX-License-Identifier: Apache-2.0 */
/* The result of a load run, for people or as one JSON object on stdout. Main thread. */
#ifndef SLUICE_CLI_BENCH_REPORT_H
#define SLUICE_CLI_BENCH_REPORT_H

#include "cli/bench_run.h"
#include "cli/bench_setup.h"
#include "cli/bench_stats.h"

/* 0, or -errno when stdout cannot be written. */
int bench_report_print(const struct bench_setup *setup, const struct bench_stats *total,
		       const struct bench_outcome *outcome);

#endif
