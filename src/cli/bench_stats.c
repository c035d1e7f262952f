/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of what generator threads counted: see bench_stats.h, also for who owns them. */
#include "cli/bench_stats.h"

#include <string.h>

void bench_stats_init(struct bench_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	histogram_reset(&stats->latency);
	histogram_reset(&stats->flush_latency);
}

void bench_stats_begin(struct bench_stats *stats, uint64_t now_ticks)
{
	stats->reads = 0;
	stats->writes = 0;
	stats->flushes = 0;
	stats->sampled_ticks = 0;
	stats->sampled_ios = 0;
	stats->start_ticks = now_ticks;
	stats->end_ticks = 0;
	histogram_reset(&stats->latency);
	histogram_reset(&stats->flush_latency);
}

static void add_measured(struct bench_stats *total, const struct bench_stats *part)
{
	total->reads += part->reads;
	total->writes += part->writes;
	total->flushes += part->flushes;
	total->sampled_ticks += part->sampled_ticks;
	total->sampled_ios += part->sampled_ios;
	total->kicks += part->kicks;
	if (total->start_ticks == 0 || part->start_ticks < total->start_ticks)
		total->start_ticks = part->start_ticks;
	total->end_ticks = MAX(total->end_ticks, part->end_ticks);
	histogram_merge(&total->latency, &part->latency);
	histogram_merge(&total->flush_latency, &part->flush_latency);
}

void bench_stats_add(struct bench_stats *total, const struct bench_stats *part, bool errors_only)
{
	if (total->errors == total->lost && part->errors > part->lost)
		total->first_failure = part->first_failure;
	total->progress += part->progress;
	total->errors += part->errors;
	total->lost += part->lost;
	total->verify_errors += part->verify_errors;
	total->verified_blocks += part->verified_blocks;
	total->unverified_reads += part->unverified_reads;
	total->longest_gap_ticks = MAX(total->longest_gap_ticks, part->longest_gap_ticks);
	if (!errors_only)
		add_measured(total, part);
}
