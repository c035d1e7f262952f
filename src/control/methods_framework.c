/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods about the process itself: reactors, version, methods, status. Control thread. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/control.h"
#include "control/methods.h"
#include "sluice_config.h"
#include "vhost/vhost.h"

/* ---- framework_get_reactors -------------------------------------------------------------- */

static void cpumask_text(int cpu, char *text, size_t text_bytes)
{
	/* The digit that holds the bit, then the zeroes below it. */
	if (cpu < 0)
		snprintf(text, text_bytes, "0x0");
	else
		snprintf(text, text_bytes, "0x%x%0*d", 1u << (cpu % 4), cpu / 4, 0);
	if (cpu >= 0 && cpu < 4)
		text[3] = '\0';
}

static bool in_interrupt(const struct reactor *reactor, const struct reactor_stats *stats)
{
	if (reactor_mode(reactor) == REACTOR_POLL_ALWAYS)
		return false;
	return reactor_mode(reactor) == REACTOR_POLL_NEVER || stats->active_poller_count == 0;
}

static json_t *reactor_describe(const struct reactor *reactor, int id)
{
	struct reactor_stats stats;
	char mask[REACTOR_CPU_MAX / 4 + 4];

	reactor_get_stats(reactor, &stats);
	uint64_t elapsed_ticks = stats.busy_ticks + stats.idle_ticks;
	cpumask_text(reactor_cpu(reactor), mask, sizeof(mask));
	return json_pack(
		"{s:i, s:s, s:s, s:I, s:I, s:b, s:[{s:s, s:i, s:s, s:I}], s:I, s:I, s:I, s:I, s:I,"
		" s:I}",
		"lcore", reactor_cpu(reactor), "name", reactor_name(reactor), "poll_mode",
		reactor_poll_mode_name(reactor_mode(reactor)), "busy", (json_int_t)stats.busy_ticks,
		"idle", (json_int_t)stats.idle_ticks, "in_interrupt", in_interrupt(reactor, &stats),
		"lw_threads", "name", reactor_name(reactor), "id", id, "cpumask", mask, "elapsed",
		(json_int_t)elapsed_ticks, "sleep", (json_int_t)stats.sleep_ticks, "iterations",
		(json_int_t)stats.iteration_count, "sleeps", (json_int_t)stats.sleep_count,
		"messages", (json_int_t)stats.message_count, "pollers",
		(json_int_t)stats.poller_count, "active_pollers",
		(json_int_t)stats.active_poller_count);
}

static void add_moves(json_t *reactor, unsigned int index)
{
	uint64_t in, out;

	vhost_get_reactor_moves(index, &in, &out);
	json_object_set_new(reactor, "moves_in", json_integer((json_int_t)in));
	json_object_set_new(reactor, "moves_out", json_integer((json_int_t)out));
}

static void get_reactors(struct rpc_request *request, const void *args)
{
	const struct reactor_set *set = request->control->reactors;
	json_t *array = json_array();
	struct vhost_move_counts moves;

	for (unsigned int i = 0; i < set->data_count; i++) {
		json_t *reactor = reactor_describe(set->data[i], (int)i + 1);
		add_moves(reactor, i);
		json_array_append_new(array, reactor);
	}
	vhost_get_move_counts(&moves);
	rpc_reply(request,
		  json_pack("{s:I, s:i, s:o, s:o, s:{s:b, s:I, s:I}}", "tick_rate",
			    (json_int_t)ticks_hz(), "pid", (int)getpid(), "reactors", array,
			    "control", reactor_describe(set->control, 0), "rebalance", "enabled",
			    vhost_rebalance(), "moves", (json_int_t)moves.balanced, "moves_total",
			    (json_int_t)moves.total));
}

/* ---- rpc_get_methods --------------------------------------------------------------------- */

struct methods_args {
	bool current;
	bool include_aliases;
};

static void get_methods(struct rpc_request *request, const void *args)
{
	const struct methods_args *a = args;
	const struct rpc_method *method = NULL;
	json_t *array = json_array();

	while ((method = rpc_method_next(method)) != NULL) {
		json_array_append_new(array, json_string(method->name));
		if (a->include_aliases && method->alias != NULL)
			json_array_append_new(array, json_string(method->alias));
	}
	rpc_reply(request, array);
}

static const struct rpc_param methods_params[] = {
	{.name = "current",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct methods_args, current),
	 .help = "Only methods that can be called now: that is all of them."},
	{.name = "include_aliases",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct methods_args, include_aliases),
	 .help = "Include older names."},
};

/* ---- spdk_get_version -------------------------------------------------------------------- */

static void get_version(struct rpc_request *request, const void *args)
{
	int major = 0, minor = 0, patch = 0, suffix = 0;

	sscanf(SLUICE_VERSION, "%d.%d.%d%n", &major, &minor, &patch, &suffix);
	rpc_reply(request, json_pack("{s:s, s:{s:i, s:i, s:i, s:s}}", "version",
				     "Sluice v" SLUICE_VERSION, "fields", "major", major, "minor",
				     minor, "patch", patch, "suffix", &SLUICE_VERSION[suffix]));
}

/* ---- sluice_get_status ------------------------------------------------------------------- */

static json_t *kept_describe(const struct config *config)
{
	json_t *array = json_array();

	list_for_each (node, &config->kept) {
		const struct config_kept *kept = list_entry(node, struct config_kept, link);
		json_array_append_new(
			array, json_pack("{s:s, s:O, s:s?, s:s?}", "subsystem", kept->subsystem,
					 "method", json_object_get(kept->entry, "method"), "name",
					 config_entry_name(kept->entry), "error", kept->error));
	}
	return array;
}

static void get_status(struct rpc_request *request, const void *args)
{
	const struct control *control = request->control;
	struct vhost_controller *c = NULL;
	int bdev_count = 0, controller_count = 0, session_count = 0;

	for (struct bdev *b = bdev_next(NULL); b != NULL; b = bdev_next(b))
		bdev_count++;
	while ((c = vhost_controller_next(c)) != NULL) {
		json_t *description = vhost_controller_describe(c);
		controller_count++;
		session_count += (int)json_array_size(json_object_get(description, "sessions"));
		json_decref(description);
	}
	json_t *status = json_pack("{s:s, s:i, s:I, s:i, s:i, s:i, s:s?, s:o}", "version",
				   SLUICE_VERSION, "engine_pid", (int)getpid(), "uptime_seconds",
				   (json_int_t)((clock_ns() - control->start_ns) / 1000000000u),
				   "bdevs", bdev_count, "controllers", controller_count, "sessions",
				   session_count, "config_file", control->config.path,
				   "failed_entries", kept_describe(&control->config));
	json_object_update_missing(status, control->options.status);
	rpc_reply(request, status);
}

/* ---- what SPDK's clients ask for at start ------------------------------------------------ */

static void reply_true(struct rpc_request *request, const void *args)
{
	rpc_reply(request, json_true());
}

static const struct rpc_method methods[] = {
	{.name = "framework_get_reactors",
	 .help = "Shows the data reactors and the control reactor; times are in ticks since start.",
	 .result = "An object with tick_rate, pid, an array reactors, an object control, and an "
		   "object "
		   "rebalance about moves of queues.",
	 .handler = get_reactors},
	{.name = "framework_start_init",
	 .alias = "start_subsystem_init",
	 .help = "For SPDK's clients: initialisation is over when the socket answers.",
	 .result = "true",
	 .handler = reply_true},
	{.name = "framework_wait_init",
	 .alias = "wait_subsystem_init",
	 .help = "For SPDK's clients: initialisation is over when the socket answers.",
	 .result = "true",
	 .handler = reply_true},
	{.name = "rpc_get_methods",
	 .alias = "get_rpc_methods",
	 .help = "Shows the names of all methods.",
	 .result = "An array of names.",
	 RPC_PARAMS(methods_params),
	 .args_bytes = sizeof(struct methods_args),
	 .handler = get_methods},
	{.name = "spdk_get_version",
	 .alias = "get_spdk_version",
	 .help = "Shows the version of Sluice in SPDK's form.",
	 .result = "An object with version and fields.",
	 .handler = get_version},
	{.name = "sluice_get_status",
	 .help = "Shows version, pid, uptime, options, how much there is of everything, and the "
		 "entries of the configuration that could not be carried out at start.",
	 .result = "An object.",
	 .handler = get_status},
};

const struct rpc_method_list methods_framework = {methods, ARRAY_COUNT(methods)};
