/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying out a configuration entry by entry. Control thread. */
#include "control/config_load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/config.h"
#include "control/control.h"
#include "control/openings.h"
#include "reactor/reactor.h"

#define RETRY_NS 50000000ull
/* What a file gets to open even when the others have used up the time. */
#define OPEN_NS_MIN 100000000ull

/* An entry under way. */
struct entry_call {
	struct config_load *load; /* NULL: left behind */
	struct control *control;
	const char *origin;
	char *subsystem;
	json_t *entry;
};

struct config_load {
	struct config_load_options options;
	struct config_load_result result;
	struct reactor_timer retry;
	struct reactor_timer slow;
	struct entry_call *call;
	uint64_t deadline_ns;
	uint64_t open_deadline_ns;
	size_t subsystem_index;
	size_t entry_index;
	bool waiting; /* for an outcome or for the timer */
	bool running; /* load_run() is on the stack */
};

/* SPDK writes its tuning into every configuration it saves. None of it has a meaning here, and
 * none of it is an object that would be missed. */
static const char *const tuning[] = {
	"accel_set_options",       "bdev_iscsi_set_options",  "bdev_nvme_set_hotplug",
	"bdev_nvme_set_options",   "bdev_raid_set_options",   "bdev_set_options",
	"framework_set_scheduler", "iobuf_set_options",       "iscsi_set_options",
	"nvmf_set_config",         "nvmf_set_max_subsystems", "sock_impl_set_options",
	"sock_set_default_impl",   "thread_set_options",      "vhost_set_options",
};

static bool is_tuning(const char *method)
{
	for (size_t i = 0; i < ARRAY_COUNT(tuning); i++) {
		if (strcmp(tuning[i], method) == 0)
			return true;
	}
	return false;
}

static void load_run(struct config_load *load);

static json_t *load_subsystem(struct config_load *load)
{
	return json_array_get(json_object_get(load->options.root, "subsystems"),
			      load->subsystem_index);
}

static const char *load_subsystem_name(struct config_load *load)
{
	return json_string_value(json_object_get(load_subsystem(load), "subsystem"));
}

static json_t *load_entry(struct config_load *load)
{
	return json_array_get(json_object_get(load_subsystem(load), "config"), load->entry_index);
}

/* ---- outcomes ---------------------------------------------------------------------------- */

static void retry_expired(struct reactor_timer *timer)
{
	struct config_load *load = container_of(timer, struct config_load, retry);

	load->waiting = false;
	load_run(load);
}

static bool retry_wanted(struct config_load *load, int code)
{
	return (code == -EBUSY || code == -EAGAIN) && clock_ns() < load->deadline_ns;
}

static void entry_failed(struct config_load *load, int code, const char *message)
{
	const struct config_load_options *options = &load->options;
	json_t *entry = load_entry(load);
	const char *name = config_entry_name(entry);

	if (load->result.failed_count++ == 0) {
		load->result.first_code = code;
		snprintf(load->result.first_error, sizeof(load->result.first_error),
			 "%.64s %.64s: %s", json_string_value(json_object_get(entry, "method")),
			 name != NULL ? name : "", message);
	}
	log_error("%s: %s %s failed: %s%s", options->origin,
		  json_string_value(json_object_get(entry, "method")), name != NULL ? name : "",
		  message, options->keep_failed ? " (the entry is kept)" : "");
	if (options->keep_failed)
		config_keep(&options->control->config, load_subsystem_name(load), entry, message);
}

static void entry_next(struct config_load *load)
{
	load->entry_index++;
	load->waiting = false;
	load_run(load);
}

static void entry_ended(struct config_load *load, json_t *result, int code, const char *message)
{
	reactor_timer_stop(&load->slow);
	if (result == NULL && retry_wanted(load, code)) {
		reactor_timer_start(load->options.control->reactors->control, &load->retry,
				    RETRY_NS);
		return;
	}
	if (result != NULL)
		load->result.done_count++;
	else if (code != -EEXIST || !load->options.skip_existing)
		entry_failed(load, code, message);
	entry_next(load);
}

/* ---- entries left behind ----------------------------------------------------------------- */

static void late_retried(void *arg, json_t *result, int code, const char *message)
{
}

static void late_ended(struct entry_call *call, json_t *result, int code, const char *message)
{
	struct control *control = call->control;
	const char *name = config_entry_name(call->entry);

	if (result != NULL) {
		log_info("%s: the file of %s is open at last", call->origin, name);
		/* Its controllers could not be made without it. */
		rpc_call(control, "sluice_retry_config", NULL, RPC_ORIGIN_CLIENT, late_retried,
			 NULL);
		return;
	}
	if (control->changes.closed || code == -ECANCELED)
		return;
	log_error("%s: %s failed: %s (the entry is kept)", call->origin, name, message);
	config_keep(&control->config, call->subsystem, call->entry, message);
}

static void slow_expired(struct reactor_timer *timer)
{
	struct config_load *load = container_of(timer, struct config_load, slow);
	const char *name = config_entry_name(load->call->entry);

	if (name == NULL || !opening_exists(name))
		return;
	if (!load->options.keep_failed) {
		(void)opening_cancel(name);
		return;
	}
	load->call->load = NULL;
	load->call = NULL;
	entry_failed(load, -ETIMEDOUT, "its file is still being opened");
	entry_next(load);
}

static void slow_start(struct config_load *load)
{
	uint64_t now_ns = clock_ns();
	uint64_t left_ns = load->open_deadline_ns > now_ns ? load->open_deadline_ns - now_ns : 0;

	reactor_timer_start(load->options.control->reactors->control, &load->slow,
			    MAX(left_ns, OPEN_NS_MIN));
}

/* ---- calls ------------------------------------------------------------------------------- */

static void call_free(struct entry_call *call)
{
	json_decref(call->entry);
	free(call->subsystem);
	free(call);
}

static void call_done(void *arg, json_t *result, int code, const char *message)
{
	struct entry_call *call = arg;
	struct config_load *load = call->load;

	if (load == NULL) {
		late_ended(call, result, code, message);
	} else {
		load->call = NULL;
		entry_ended(load, result, code, message);
	}
	call_free(call);
}

static struct entry_call *call_create(struct config_load *load, json_t *entry)
{
	struct entry_call *call = calloc(1, sizeof(*call));

	if (call == NULL || (call->subsystem = strdup(load_subsystem_name(load))) == NULL) {
		free(call);
		return NULL;
	}
	call->load = load;
	call->control = load->options.control;
	call->origin = load->options.origin;
	call->entry = json_incref(entry);
	return call;
}

/* ---- the walk ---------------------------------------------------------------------------- */

static void entry_run(struct config_load *load, json_t *entry)
{
	const char *method = json_string_value(json_object_get(entry, "method"));

	if (is_tuning(method)) {
		log_debug("%s: %s has no meaning here", load->options.origin, method);
		load->entry_index++;
		return;
	}
	struct entry_call *call = call_create(load, entry);
	if (call == NULL) {
		entry_failed(load, -ENOMEM, "out of memory");
		load->entry_index++;
		return;
	}
	load->waiting = true;
	load->call = call;
	rpc_call(load->options.control, method, json_object_get(entry, "params"), RPC_ORIGIN_CONFIG,
		 call_done, call);
	/* load_run() is on the stack, so the load is still there. */
	if (load->call != NULL)
		slow_start(load);
}

static void load_finish(struct config_load *load)
{
	json_decref(load->options.root);
	load->options.done(load->options.arg, &load->result);
	free(load);
}

static void load_run(struct config_load *load)
{
	if (load->running)
		return;
	load->running = true;
	while (!load->waiting && load_subsystem(load) != NULL) {
		json_t *entry = load_entry(load);
		if (entry != NULL) {
			entry_run(load, entry);
		} else {
			load->subsystem_index++;
			load->entry_index = 0;
		}
	}
	load->running = false;
	if (!load->waiting)
		load_finish(load);
}

int config_load_start(const struct config_load_options *options)
{
	struct config_load *load = calloc(1, sizeof(*load));

	if (load == NULL)
		return -ENOMEM;
	load->options = *options;
	load->retry.fn = retry_expired;
	load->slow.fn = slow_expired;
	load->deadline_ns = clock_ns() + options->patience_ms * 1000000ull;
	load->open_deadline_ns = clock_ns() + options->open_patience_ms * 1000000ull;
	json_incref(load->options.root);
	load_run(load);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the entry under way has it, or it is over */
	return 0;
}
