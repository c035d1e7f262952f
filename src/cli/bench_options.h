/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `sluice bench`, checked as far as it can be without the disk. Pure but for
 * messages to stderr. */
#ifndef SLUICE_CLI_BENCH_OPTIONS_H
#define SLUICE_CLI_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define BENCH_CPU_WORDS 16u
#define BENCH_QUEUES_MAX 256u
#define BENCH_IODEPTH_MAX 1024u

struct bench_workload {
	const char *name;
	bool random;
	bool reads;
	bool writes;
};

struct bench_options {
	const char *target; /* as given: vhost-blk:SOCKET */
	const char *socket_path;
	const struct bench_workload *workload;
	uint64_t block_bytes;
	uint64_t iodepth; /* per queue */
	uint64_t queue_count;
	uint64_t runtime_ns; /* 0: until io_limit */
	uint64_t warmup_ns;
	uint64_t size_bytes; /* 0: the whole disk */
	uint64_t io_limit;   /* 0: until runtime_ns */
	uint64_t seed;
	uint64_t read_percent; /* of randrw */
	uint64_t flush_every;  /* 0: never */
	uint64_t think_ns;     /* pause between rounds of --iodepth I/Os; 0: none, and no rounds */
	uint64_t cpus[BENCH_CPU_WORDS];
	bool cpus_given;
	bool sleep;
	bool packed;
	bool event_idx;
	bool inflight;
	bool static_rings;
	bool verify;
	bool hugepages;
	bool json;
	bool help;
};

/* 0, or -EINVAL after a sentence on stderr. Strings point into argv. */
int bench_options_parse(struct bench_options *options, int argc, char **argv);

void bench_options_print_help(void);

#endif
