/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods that look at bdevs. Control thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "control/control.h"
#include "control/methods.h"

/* ---- bdev_get_bdevs ---------------------------------------------------------------------- */

#define WAIT_STEP_NS 20000000ull

static bool io_always(const struct bdev *bdev)
{
	return true;
}

static bool io_never(const struct bdev *bdev)
{
	return false;
}

static bool io_write(const struct bdev *bdev)
{
	return !bdev->limits.read_only;
}

static bool io_unmap(const struct bdev *bdev)
{
	return !bdev->limits.read_only && bdev->limits.discard_max_bytes > 0;
}

static bool io_write_zeroes(const struct bdev *bdev)
{
	return !bdev->limits.read_only && bdev->limits.write_zeroes_max_bytes > 0;
}

/* SPDK's names, the ones that we do not have included: clients look them up. */
static const struct {
	const char *name;
	bool (*supported)(const struct bdev *bdev);
} io_types[] = {
	{"read", io_always},       {"write", io_write},         {"unmap", io_unmap},
	{"flush", io_always},      {"reset", io_never},         {"nvme_admin", io_never},
	{"nvme_io", io_never},     {"nvme_io_md", io_never},    {"write_zeroes", io_write_zeroes},
	{"zcopy", io_never},       {"get_zone_info", io_never}, {"zone_management", io_never},
	{"zone_append", io_never}, {"compare", io_never},       {"compare_and_write", io_never},
	{"abort", io_never},       {"seek_hole", io_never},     {"seek_data", io_never},
	{"copy", io_never},        {"nvme_iov_md", io_never},
};

static json_t *io_types_describe(const struct bdev *bdev)
{
	json_t *object = json_object();

	for (size_t i = 0; i < ARRAY_COUNT(io_types); i++)
		json_object_set_new(object, io_types[i].name,
				    json_boolean(io_types[i].supported(bdev)));
	return object;
}

static json_t *owners_describe(const struct bdev *bdev)
{
	json_t *array = json_array();

	list_for_each (node, &bdev->opens)
		json_array_append_new(array,
				      json_string(list_entry(node, struct bdev_open, link)->owner));
	return array;
}

static json_t *bdev_describe(const struct bdev *bdev)
{
	const struct bdev_limits *limits = &bdev->limits;
	char uuid[RPC_UUID_TEXT_BYTES + 1];

	uuid_unparse_lower(bdev->uuid, uuid);
	return json_pack(
		"{s:s, s:[s], s:s, s:I, s:I, s:I, s:s, s:i, s:{s:i, s:i, s:i, s:i}, s:b, s:b, s:o,"
		" s:b, s:o, s:o}",
		"name", bdev->name, "aliases", uuid, "product_name", bdev->product, "block_size",
		(json_int_t)limits->block_size_bytes, "num_blocks", (json_int_t)bdev->block_count,
		"physical_block_size", (json_int_t)limits->physical_block_size_bytes, "uuid", uuid,
		"numa_id", -1, "assigned_rate_limits", "rw_ios_per_sec", 0, "rw_mbytes_per_sec", 0,
		"r_mbytes_per_sec", 0, "w_mbytes_per_sec", 0, "claimed", !list_empty(&bdev->opens),
		"zoned", 0, "supported_io_types", io_types_describe(bdev), "read_only",
		limits->read_only, "owners", owners_describe(bdev), "driver_specific",
		bdev->ops->describe(bdev));
}

struct get_bdevs_args {
	const char *name;
	uint64_t timeout;
};

/* Waiting for a bdev to appear. */
struct bdev_wait {
	struct rpc_request *request;
	struct reactor_timer timer;
	uint64_t deadline_ns;
	char name[BDEV_NAME_MAX];
};

static void reply_bdev(struct rpc_request *request, const char *name)
{
	const struct bdev *bdev = bdev_find(name);

	if (bdev == NULL)
		rpc_reply_error(request, -ENODEV, "name: there is no bdev %s", name);
	else
		rpc_reply(request, json_pack("[o]", bdev_describe(bdev)));
}

static void wait_step(struct reactor_timer *timer)
{
	struct bdev_wait *wait = container_of(timer, struct bdev_wait, timer);

	if (bdev_find(wait->name) == NULL && clock_ns() < wait->deadline_ns &&
	    !wait->request->control->changes.closed) {
		reactor_timer_start(wait->request->control->reactors->control, timer, WAIT_STEP_NS);
		return;
	}
	reply_bdev(wait->request, wait->name);
	free(wait);
}

static void wait_start(struct rpc_request *request, const struct get_bdevs_args *a)
{
	struct bdev_wait *wait = calloc(1, sizeof(*wait));

	if (wait == NULL) {
		rpc_reply_error(request, -ENOMEM, "out of memory");
		return;
	}
	wait->request = request;
	wait->timer.fn = wait_step;
	wait->deadline_ns = clock_ns() + a->timeout * 1000000;
	snprintf(wait->name, sizeof(wait->name), "%s", a->name);
	wait_step(&wait->timer);
}

static void get_bdevs(struct rpc_request *request, const void *args)
{
	const struct get_bdevs_args *a = args;

	if (a->name != NULL && a->timeout > 0) {
		wait_start(request, a);
		return;
	}
	if (a->name != NULL) {
		reply_bdev(request, a->name);
		return;
	}
	json_t *array = json_array();
	for (struct bdev *b = bdev_next(NULL); b != NULL; b = bdev_next(b))
		json_array_append_new(array, bdev_describe(b));
	rpc_reply(request, array);
}

/* ---- bdev_get_iostat --------------------------------------------------------------------- */

/* SPDK's names of the counters of each type of I/O. */
static const struct {
	const char *bytes;
	const char *ops;
	const char *ticks;
	const char *max_ticks;
} counters[BDEV_IO_TYPE_COUNT] = {
	[BDEV_IO_READ] = {"bytes_read", "num_read_ops", "read_latency_ticks",
			  "max_read_latency_ticks"},
	[BDEV_IO_WRITE] = {"bytes_written", "num_write_ops", "write_latency_ticks",
			   "max_write_latency_ticks"},
	[BDEV_IO_FLUSH] = {NULL, "num_flush_ops", "flush_latency_ticks", "max_flush_latency_ticks"},
	[BDEV_IO_DISCARD] = {"bytes_unmapped", "num_unmap_ops", "unmap_latency_ticks",
			     "max_unmap_latency_ticks"},
	[BDEV_IO_WRITE_ZEROES] = {"bytes_write_zeroes", "num_write_zeroes_ops",
				  "write_zeroes_latency_ticks", "max_write_zeroes_latency_ticks"},
};

static void set_count(json_t *object, const char *key, const uint64_t *counter)
{
	if (key != NULL)
		json_object_set_new(object, key, json_integer((json_int_t)load_relaxed(counter)));
}

static void stats_describe(json_t *object, const struct bdev_stats *stats)
{
	uint64_t error_count = 0;

	for (size_t i = 0; i < BDEV_IO_TYPE_COUNT; i++) {
		const struct bdev_type_stats *type = &stats->types[i];
		set_count(object, counters[i].bytes, &type->bytes);
		set_count(object, counters[i].ops, &type->op_count);
		set_count(object, counters[i].ticks, &type->ticks);
		set_count(object, counters[i].max_ticks, &type->max_ticks);
		error_count += load_relaxed(&type->error_count);
	}
	set_count(object, "num_errors", &error_count);
}

static json_t *bdev_iostat(const struct bdev *bdev)
{
	json_t *object = json_pack("{s:s}", "name", bdev->name);
	struct bdev_stats stats;

	bdev_get_stats(bdev, &stats);
	stats_describe(object, &stats);
	return object;
}

static json_t *bdev_iostat_channels(const struct bdev *bdev)
{
	json_t *array = json_array();

	list_for_each (node, &bdev->channels) {
		const struct bdev_channel *channel = list_entry(node, struct bdev_channel, link);
		json_t *object = json_pack("{s:s, s:i}", "thread", reactor_name(channel->reactor),
					   "lcore", reactor_cpu(channel->reactor));
		stats_describe(object, &channel->stats);
		json_array_append_new(array, object);
	}
	return json_pack("{s:s, s:o}", "name", bdev->name, "channels", array);
}

struct iostat_args {
	const char *name;
	bool per_channel;
};

static void get_iostat(struct rpc_request *request, const void *args)
{
	const struct iostat_args *a = args;
	const struct bdev *bdev = a->name != NULL ? bdev_find(a->name) : NULL;

	if (a->name != NULL && bdev == NULL) {
		rpc_reply_error(request, -ENODEV, "name: there is no bdev %s", a->name);
		return;
	}
	if (a->per_channel && bdev == NULL) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"name: is required with per_channel");
		return;
	}
	json_t *array = json_array();
	for (struct bdev *b = bdev_next(NULL); b != NULL; b = bdev_next(b)) {
		if (bdev == NULL || bdev == b)
			json_array_append_new(array, a->per_channel ? bdev_iostat_channels(b)
								    : bdev_iostat(b));
	}
	rpc_reply(request, json_pack("{s:I, s:I, s:o}", "tick_rate", (json_int_t)ticks_hz(),
				     "ticks", (json_int_t)ticks_now(), "bdevs", array));
}

/* ---- table ------------------------------------------------------------------------------- */

static const struct rpc_param get_bdevs_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_STRING,
	 .offset = offsetof(struct get_bdevs_args, name),
	 .min = 1,
	 .max = BDEV_NAME_MAX - 1,
	 .help = "Name or UUID of the bdev. Absent: all."},
	{.name = "timeout",
	 .type = RPC_TYPE_U64,
	 .offset = offsetof(struct get_bdevs_args, timeout),
	 .max = 3600000,
	 .help = "How long to wait for the bdev of that name to appear, in milliseconds."},
};

static const char *const reset_modes[] = {"none", NULL};
static const struct rpc_param iostat_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_STRING,
	 .offset = offsetof(struct iostat_args, name),
	 .min = 1,
	 .max = BDEV_NAME_MAX - 1,
	 .help = "Name or UUID of the bdev. Absent: all."},
	{.name = "per_channel",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct iostat_args, per_channel),
	 .help = "Show the counters of each channel instead of their sum."},
	{.name = "reset_mode",
	 .type = RPC_TYPE_CHOICE,
	 .offset = RPC_PARAM_IGNORED,
	 .choices = reset_modes,
	 .help = "Counters are never reset."},
};

static void wait_for_examine(struct rpc_request *request, const void *args)
{
	rpc_reply(request, json_true());
}

static const struct rpc_method methods[] = {
	{.name = "bdev_get_bdevs",
	 .alias = "get_bdevs",
	 .help = "Shows bdevs.",
	 .result = "An array of bdevs in order of creation.",
	 RPC_PARAMS(get_bdevs_params),
	 .args_bytes = sizeof(struct get_bdevs_args),
	 .handler = get_bdevs},
	{.name = "bdev_get_iostat",
	 .alias = "get_bdevs_iostat",
	 .help = "Shows the I/O counters of bdevs since their creation. Latencies are sums, in "
		 "ticks.",
	 .result = "An object with tick_rate, ticks and an array bdevs.",
	 RPC_PARAMS(iostat_params),
	 .args_bytes = sizeof(struct iostat_args),
	 .handler = get_iostat},
	{.name = "bdev_wait_for_examine",
	 .help = "For SPDK's clients: a bdev is ready when the call that creates it returns.",
	 .result = "true",
	 .handler = wait_for_examine},
};

const struct rpc_method_list methods_bdev = {methods, ARRAY_COUNT(methods)};
