/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `sluice bench`: see bench_options.h. Main thread. */
#include "cli/bench_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/text.h"

#define BLOCK_BYTES_MAX (16ull << 20)
#define SECONDS_MAX (30.0 * 86400.0)
#define THINK_US_MAX 5000000u
#define TARGET_PREFIX "vhost-blk:"

static const struct bench_workload workloads[] = {
	{"randread", true, true, false}, {"randwrite", true, false, true},
	{"randrw", true, true, true},    {"read", false, true, false},
	{"write", false, false, true},
};

void bench_options_print_help(void)
{
	fputs("Usage: sluice bench vhost-blk:SOCKET [options]\n"
	      "\n"
	      "Loads a vhost-user-blk target as a front-end of its own, without a VM.\n"
	      "\n"
	      "  --rw KIND         randread (default), randwrite, randrw, read, write\n"
	      "  --rwmix PCT       share of reads in randrw (default 50)\n"
	      "  --bs SIZE         bytes per I/O (default 4k)\n"
	      "  --iodepth N       I/Os outstanding per queue, 1 to 1024 (default 32)\n"
	      "  --queues N        virtqueues, 1 to 256 (default 1)\n"
	      "  --runtime S       seconds measured (default 10; none with --ios)\n"
	      "  --warmup S        seconds before that are not measured (default 0.2;\n"
	      "                    0 with --ios or --verify)\n"
	      "  --ios N           stop after N I/Os\n"
	      "  --size BYTES      use only the first BYTES of the disk\n"
	      "  --flush-every N   one FLUSH for every N writes of a queue, at most one at a time\n"
	      "  --verify          write stamped blocks and prove every read against them; the\n"
	      "                    CONTENT of the first --size bytes (default 1G) IS OVERWRITTEN\n"
	      "  --seed N          of offsets and stamps (default 1)\n"
	      "  --cpu LIST        one pinned thread per CPU, queues spread over them (default:\n"
	      "                    one thread, not pinned)\n"
	      "  --poll            poll the rings (default)\n"
	      "  --sleep           wait for the target's call eventfds instead\n"
	      "  --think-us N      submit --iodepth I/Os at once, wait for all, pause for N us,\n"
	      "                    and so on: latency of a target that has gone quiet\n"
	      "  --ring KIND       format of the virtqueues: split (default) or packed\n"
	      "  --event-idx       negotiate EVENT_IDX: kicks and calls by index\n"
	      "  --static-rings    write descriptors once, not for every request as drivers do\n"
	      "  --inflight        keep the target's inflight journal, as VMMs do\n"
	      "  --hugepages       share explicit huge pages with the target\n"
	      "  --json            print one JSON object\n"
	      "  --help            this text\n"
	      "\n"
	      "Exit code: 0 all went well, 1 I/O or verify errors, 2 wrong usage, 3 no "
	      "connection,\n"
	      "no agreement with the target, or the connection was lost.\n",
	      stdout);
}

PRINTF_LIKE(1, 2)
static int complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("sluice bench: ", stderr);
	vfprintf(stderr, fmt, args);
	fputs(" (see sluice bench --help)\n", stderr);
	va_end(args);
	return -EINVAL;
}

static int parse_count(const char *option, const char *text, uint64_t min, uint64_t max,
		       uint64_t *out)
{
	if (text_parse_u64(text, max, out) < 0 || *out < min)
		return complain("--%s must be a number from %llu to %llu, not \"%s\"", option,
				(unsigned long long)min, (unsigned long long)max, text);
	return 0;
}

static int parse_seconds(const char *option, const char *text, uint64_t *out_ns)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end != '\0' || !(seconds >= 0.0) || seconds > SECONDS_MAX)
		return complain("--%s must be seconds from 0 to 30 days, not \"%s\"", option, text);
	*out_ns = (uint64_t)(seconds * 1e9);
	return 0;
}

static int parse_bytes(const char *option, const char *text, uint64_t max, uint64_t *out)
{
	if (text_parse_size(text, out) < 0 || *out == 0 || *out > max)
		return complain("--%s must be a size such as 4k or 1G, at most %llu, not \"%s\"",
				option, (unsigned long long)max, text);
	if (*out % 512 != 0)
		return complain("--%s must be a multiple of 512, not %s", option, text);
	return 0;
}

static int parse_workload(const char *text, const struct bench_workload **out)
{
	for (size_t i = 0; i < ARRAY_COUNT(workloads); i++) {
		if (strcmp(text, workloads[i].name) == 0) {
			*out = &workloads[i];
			return 0;
		}
	}
	return complain("--rw must be randread, randwrite, randrw, read or write, not \"%s\"",
			text);
}

static int parse_target(struct bench_options *options, int argc, char **argv, int first)
{
	if (first >= argc)
		return complain("which target? Say vhost-blk:SOCKET");
	if (first + 1 < argc)
		return complain("one target only; \"%s\" is a second one", argv[first + 1]);
	options->target = argv[first];
	if (strncmp(options->target, TARGET_PREFIX, strlen(TARGET_PREFIX)) != 0 ||
	    options->target[strlen(TARGET_PREFIX)] == '\0')
		return complain("the target must be vhost-blk:SOCKET, not \"%s\"", options->target);
	options->socket_path = options->target + strlen(TARGET_PREFIX);
	return 0;
}

enum option_id {
	OPT_RW = 256,
	OPT_RWMIX,
	OPT_BS,
	OPT_IODEPTH,
	OPT_QUEUES,
	OPT_RUNTIME,
	OPT_WARMUP,
	OPT_IOS,
	OPT_SIZE,
	OPT_FLUSH_EVERY,
	OPT_VERIFY,
	OPT_SEED,
	OPT_CPU,
	OPT_POLL,
	OPT_SLEEP,
	OPT_THINK_US,
	OPT_RING,
	OPT_EVENT_IDX,
	OPT_INFLIGHT,
	OPT_STATIC_RINGS,
	OPT_HUGEPAGES,
	OPT_JSON,
	OPT_HELP,
};

static const struct option long_options[] = {
	{"rw", required_argument, NULL, OPT_RW},
	{"rwmix", required_argument, NULL, OPT_RWMIX},
	{"bs", required_argument, NULL, OPT_BS},
	{"iodepth", required_argument, NULL, OPT_IODEPTH},
	{"queues", required_argument, NULL, OPT_QUEUES},
	{"runtime", required_argument, NULL, OPT_RUNTIME},
	{"warmup", required_argument, NULL, OPT_WARMUP},
	{"ios", required_argument, NULL, OPT_IOS},
	{"size", required_argument, NULL, OPT_SIZE},
	{"flush-every", required_argument, NULL, OPT_FLUSH_EVERY},
	{"verify", no_argument, NULL, OPT_VERIFY},
	{"seed", required_argument, NULL, OPT_SEED},
	{"cpu", required_argument, NULL, OPT_CPU},
	{"poll", no_argument, NULL, OPT_POLL},
	{"sleep", no_argument, NULL, OPT_SLEEP},
	{"think-us", required_argument, NULL, OPT_THINK_US},
	{"ring", required_argument, NULL, OPT_RING},
	{"event-idx", no_argument, NULL, OPT_EVENT_IDX},
	{"inflight", no_argument, NULL, OPT_INFLIGHT},
	{"static-rings", no_argument, NULL, OPT_STATIC_RINGS},
	{"hugepages", no_argument, NULL, OPT_HUGEPAGES},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

#define UNSET UINT64_MAX

/* Options without a value: what each sets. */
static bool *flag_of(struct bench_options *options, int id)
{
	switch (id) {
	case OPT_VERIFY:
		return &options->verify;
	case OPT_POLL:
	case OPT_SLEEP:
		return &options->sleep;
	case OPT_EVENT_IDX:
		return &options->event_idx;
	case OPT_INFLIGHT:
		return &options->inflight;
	case OPT_STATIC_RINGS:
		return &options->static_rings;
	case OPT_HUGEPAGES:
		return &options->hugepages;
	case OPT_JSON:
		return &options->json;
	default:
		return &options->help;
	}
}

static int parse_ring(const char *text, bool *out_packed)
{
	*out_packed = strcmp(text, "packed") == 0;
	if (!*out_packed && strcmp(text, "split") != 0)
		return complain("--ring must be split or packed, not \"%s\"", text);
	return 0;
}

static int parse_option(struct bench_options *options, int id, const char *arg)
{
	switch (id) {
	case OPT_RW:
		return parse_workload(arg, &options->workload);
	case OPT_RWMIX:
		return parse_count("rwmix", arg, 0, 100, &options->read_percent);
	case OPT_BS:
		return parse_bytes("bs", arg, BLOCK_BYTES_MAX, &options->block_bytes);
	case OPT_IODEPTH:
		return parse_count("iodepth", arg, 1, BENCH_IODEPTH_MAX, &options->iodepth);
	case OPT_QUEUES:
		return parse_count("queues", arg, 1, BENCH_QUEUES_MAX, &options->queue_count);
	case OPT_RUNTIME:
		return parse_seconds("runtime", arg, &options->runtime_ns);
	case OPT_WARMUP:
		return parse_seconds("warmup", arg, &options->warmup_ns);
	case OPT_IOS:
		return parse_count("ios", arg, 1, UINT64_MAX / 2, &options->io_limit);
	case OPT_SIZE:
		return parse_bytes("size", arg, INT64_MAX, &options->size_bytes);
	case OPT_FLUSH_EVERY:
		return parse_count("flush-every", arg, 1, UINT32_MAX, &options->flush_every);
	case OPT_SEED:
		return parse_count("seed", arg, 0, UINT64_MAX, &options->seed);
	case OPT_CPU:
		options->cpus_given = true;
		if (text_parse_cpus(arg, options->cpus, BENCH_CPU_WORDS) < 0)
			return complain("--cpu must be a list such as 0,2-3, not \"%s\"", arg);
		return 0;
	case OPT_RING:
		return parse_ring(arg, &options->packed);
	case OPT_THINK_US:
		if (parse_count("think-us", arg, 1, THINK_US_MAX, &options->think_ns) < 0)
			return -EINVAL;
		options->think_ns *= 1000;
		return 0;
	default:
		*flag_of(options, id) = id != OPT_POLL;
		return 0;
	}
}

/* Defaults that depend on other options, and options that exclude each other. */
static int settle(struct bench_options *options)
{
	if (options->runtime_ns == UNSET)
		options->runtime_ns = options->io_limit != 0 ? 0 : 10000000000ull;
	else if (options->runtime_ns == 0 && options->io_limit == 0)
		return complain("--runtime 0 would measure nothing");
	if (options->warmup_ns == UNSET)
		options->warmup_ns = options->io_limit != 0 || options->verify ? 0 : 200000000ull;
	if (options->size_bytes != 0 && options->size_bytes < options->block_bytes)
		return complain("--size is smaller than --bs");
	if (options->flush_every != 0 && !options->workload->writes)
		return complain("--flush-every needs a workload that writes, which %s is not",
				options->workload->name);
	return 0;
}

int bench_options_parse(struct bench_options *options, int argc, char **argv)
{
	*options = (struct bench_options){
		.workload = &workloads[0],
		.block_bytes = 4096,
		.iodepth = 32,
		.queue_count = 1,
		.runtime_ns = UNSET,
		.warmup_ns = UNSET,
		.seed = 1,
		.read_percent = 50,
	};
	int id;
	optind = 0; /* whoever parsed before us used the same globals */
	opterr = 0;
	while ((id = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (id == ':')
			return complain("%s needs a value", argv[optind - 1]);
		if (id == '?')
			return complain("there is no option \"%s\"", argv[optind - 1]);
		int rc = parse_option(options, id == 'h' ? OPT_HELP : id, optarg);
		if (rc < 0)
			return rc;
	}
	if (options->help)
		return 0;
	int rc = parse_target(options, argc, argv, optind);
	return rc < 0 ? rc : settle(options);
}
