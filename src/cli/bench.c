/* SPDX-License-Identifier: Apache-2.0 */
/* `sluice bench` from its command line to its exit code. Main thread. */
#include "cli/bench.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench_options.h"
#include "cli/bench_report.h"
#include "cli/bench_run.h"
#include "cli/bench_setup.h"
#include "cli/bench_stats.h"

static enum bench_exit run(struct bench_setup *setup)
{
	static struct bench_stats total; /* 60 KiB of histograms */
	struct bench_outcome outcome;

	bench_run(setup, &total, &outcome);
	if (outcome.code != BENCH_EXIT_USAGE) {
		int rc = bench_report_print(setup, &total, &outcome);
		if (rc < 0) {
			fprintf(stderr, "sluice bench: cannot print the result: %s\n",
				strerror(-rc));
			outcome.code = BENCH_EXIT_IO;
		}
	}
	bench_setup_close(setup, outcome.connected && total.lost == 0);
	return outcome.code;
}

int bench_main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_setup setup;

	if (bench_options_parse(&options, argc, argv) < 0)
		return BENCH_EXIT_USAGE;
	if (options.help) {
		bench_options_print_help();
		return BENCH_EXIT_OK;
	}
	(void)ticks_hz(); /* measured now, not between two phases */
	enum bench_exit code = bench_setup_open(&setup, &options);
	if (code != BENCH_EXIT_OK) {
		bench_setup_close(&setup, false);
		return code;
	}
	return run(&setup);
}
