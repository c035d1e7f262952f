/* SPDX-License-Identifier: Apache-2.0 */
/* Printing the result of a load run: see bench_report.h. Main thread. */
#include "cli/bench_report.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "base/clock.h"

struct summary {
	uint64_t runtime_ns;
	double iops;
	double bandwidth_bytes;
	double cycles_per_io; /* of the generator; 0 when unknown */
};

static struct summary summarise(const struct bench_setup *setup, const struct bench_stats *total)
{
	struct summary summary = {0};
	uint64_t ios = total->reads + total->writes;

	if (total->end_ticks > total->start_ticks)
		summary.runtime_ns = ticks_to_ns(total->end_ticks - total->start_ticks);
	if (summary.runtime_ns != 0)
		summary.iops = (double)ios * 1e9 / (double)summary.runtime_ns;
	summary.bandwidth_bytes = summary.iops * (double)setup->options->block_bytes;
	if (total->sampled_ios != 0)
		summary.cycles_per_io = (double)total->sampled_ticks / (double)total->sampled_ios;
	return summary;
}

static uint64_t percentile_ns(const struct histogram *h, uint32_t per_mille)
{
	return ticks_to_ns(histogram_percentile(h, per_mille));
}

static uint64_t mean_ns(const struct histogram *h)
{
	return ticks_to_ns((uint64_t)histogram_mean(h));
}

static json_t *latency_json(const struct histogram *h)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "mean", (json_int_t)mean_ns(h), "p50",
			 (json_int_t)percentile_ns(h, 500), "p99",
			 (json_int_t)percentile_ns(h, 990), "p999",
			 (json_int_t)percentile_ns(h, 999), "max", (json_int_t)ticks_to_ns(h->max));
}

static void add_int(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void add_parameters(json_t *object, const struct bench_setup *setup,
			   const struct bench_outcome *outcome)
{
	const struct bench_options *options = setup->options;

	json_object_set_new(object, "target", json_string(options->target));
	json_object_set_new(object, "rw", json_string(options->workload->name));
	add_int(object, "block_size", options->block_bytes);
	add_int(object, "iodepth", options->iodepth);
	add_int(object, "queues", options->queue_count);
	add_int(object, "threads", outcome->thread_count);
	json_object_set_new(object, "wait", json_string(options->sleep ? "sleep" : "poll"));
	json_object_set_new(object, "verify", json_boolean(options->verify));
	add_int(object, "seed", options->seed);
	add_int(object, "capacity_bytes", setup->client.capacity_bytes);
	add_int(object, "region_bytes", setup->region_bytes);
	add_int(object, "device_block_size", setup->client.block_size_bytes);
	json_object_set_new(object, "ring", json_string(options->packed ? "packed" : "split"));
	json_object_set_new(object, "event_idx", json_boolean(options->event_idx));
	json_object_set_new(object, "inflight", json_boolean(options->inflight));
	add_int(object, "think_us", options->think_ns / 1000);
	add_int(object, "ring_size", setup->plan.ring_size);
	json_object_set_new(object, "indirect", json_boolean(setup->plan.indirect));
}

static int print_json(const struct bench_setup *setup, const struct bench_stats *total,
		      const struct bench_outcome *outcome)
{
	struct summary summary = summarise(setup, total);
	json_t *object = json_object();

	json_object_set_new(object, "iops", json_real(summary.iops));
	add_int(object, "bandwidth_bytes", (uint64_t)summary.bandwidth_bytes);
	json_object_set_new(object, "latency_ns", latency_json(&total->latency));
	add_int(object, "errors", total->errors);
	add_int(object, "verify_errors", total->verify_errors);
	add_int(object, "longest_gap_ns", ticks_to_ns(total->longest_gap_ticks));
	add_int(object, "reads", total->reads);
	add_int(object, "writes", total->writes);
	add_int(object, "flushes", total->flushes);
	if (total->flush_latency.count != 0)
		json_object_set_new(object, "flush_latency_ns",
				    latency_json(&total->flush_latency));
	add_int(object, "runtime_ns", summary.runtime_ns);
	add_int(object, "lost_requests", total->lost);
	add_int(object, "verified_blocks", total->verified_blocks);
	add_int(object, "unverified_reads", total->unverified_reads);
	add_int(object, "kicks", total->kicks);
	json_object_set_new(object, "client_cycles_per_io", json_real(summary.cycles_per_io));
	json_object_set_new(object, "connection_lost", json_boolean(!outcome->connected));
	json_object_set_new(object, "interrupted", json_boolean(outcome->interrupted));
	add_parameters(object, setup, outcome);
	int rc = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
	json_decref(object);
	fputc('\n', stdout);
	return rc < 0 ? -EIO : 0;
}

static void print_count(const char *name, uint64_t value, const char *note)
{
	printf("  %-14s %llu%s\n", name, (unsigned long long)value, note);
}

static void print_latency(const char *name, const struct histogram *h)
{
	printf("  %-14s mean %.2f us, p50 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", name,
	       (double)mean_ns(h) / 1e3, (double)percentile_ns(h, 500) / 1e3,
	       (double)percentile_ns(h, 990) / 1e3, (double)percentile_ns(h, 999) / 1e3,
	       (double)ticks_to_ns(h->max) / 1e3);
}

static void print_table(const struct bench_setup *setup, const struct bench_stats *total)
{
	const struct bench_options *options = setup->options;
	struct summary summary = summarise(setup, total);

	printf("%s: %s, %llu bytes per I/O, %llu outstanding on each of %llu queues\n",
	       options->target, options->workload->name, (unsigned long long)options->block_bytes,
	       (unsigned long long)options->iodepth, (unsigned long long)options->queue_count);
	printf("  %-14s %.0f\n", "IOPS", summary.iops);
	printf("  %-14s %.1f MB/s\n", "bandwidth", summary.bandwidth_bytes / 1e6);
	print_latency("latency", &total->latency);
	if (total->flush_latency.count != 0)
		print_latency("flush latency", &total->flush_latency);
	printf("  %-14s %llu reads, %llu writes, %llu flushes in %.2f s\n", "completed",
	       (unsigned long long)total->reads, (unsigned long long)total->writes,
	       (unsigned long long)total->flushes, (double)summary.runtime_ns / 1e9);
	printf("  %-14s %.3f ms\n", "longest gap",
	       (double)ticks_to_ns(total->longest_gap_ticks) / 1e6);
	print_count("errors", total->errors, "");
	if (options->verify) {
		print_count("verified", total->verified_blocks, " blocks");
		print_count("verify errors", total->verify_errors, "");
	}
	printf("  %-14s %.0f cycles per I/O\n", "generator", summary.cycles_per_io);
}

static const char *type_name(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN ? "read" : type == VIRTIO_BLK_T_OUT ? "write" : "flush";
}

static const char *status_name(uint8_t status)
{
	return status == VIRTIO_BLK_S_IOERR    ? "IOERR"
	       : status == VIRTIO_BLK_S_UNSUPP ? "UNSUPP"
	       : status == BLK_STATUS_UNSET    ? "no status written"
					       : "a status that virtio does not know";
}

static void explain_errors(const struct bench_stats *total)
{
	const struct bench_failure *first = &total->first_failure;

	if (total->lost != 0)
		fprintf(stderr, "sluice bench: %llu requests never came back\n",
			(unsigned long long)total->lost);
	if (total->errors > total->lost)
		fprintf(stderr,
			"sluice bench: %llu requests failed; the first: %s at offset %llu: %s\n",
			(unsigned long long)(total->errors - total->lost), type_name(first->type),
			(unsigned long long)first->offset, status_name(first->status));
	if (total->verify_errors != 0)
		fprintf(stderr, "sluice bench: %llu blocks did not hold what was acknowledged\n",
			(unsigned long long)total->verify_errors);
}

int bench_report_print(const struct bench_setup *setup, const struct bench_stats *total,
		       const struct bench_outcome *outcome)
{
	int rc = 0;

	explain_errors(total);
	if (outcome->interrupted)
		fputs("sluice bench: interrupted: the result covers only what ran\n", stderr);
	if (setup->options->json)
		rc = print_json(setup, total, outcome);
	else
		print_table(setup, total);
	if (fflush(stdout) != 0)
		rc = -errno;
	return rc;
}
