/* SPDX-License-Identifier: Apache-2.0 */
/* Starting, running and stopping the engine. Main thread, which becomes the control thread. */
#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"
#include "engine/engine_cores.h"
#include "engine/engine_images.h"
#include "engine/engine_signals.h"
#include "reactor/worker.h"
#include "sluice_config.h"
#include "vhost/vhost.h"

/* Opening files, mapping guests and saving the configuration may block at the same time. */
#define WORKER_COUNT 4

/* How long the end waits for files that were being opened. */
#define WORKERS_PATIENCE_NS 2000000000ull
#define WORKERS_STEP_NS 1000000ull

struct engine {
	const struct engine_options *options;
	struct reactor_set reactors;
	struct control *control;
	struct engine_signals signals;
	struct reactor_msg first; /* of the control reactor */
	struct reactor_timer workers_timer;
	uint64_t workers_deadline_ns;
	unsigned int started_count;
	bool workers;
	bool serving; /* the start has come to its end, well or not */
	bool stopping;
	int rc;
};

/* A disk needs a few fds a queue; the usual soft limit of 1024 is for programs that use select. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warn("the limit of open files stays as it is: %s", strerror(errno));
}

/* ---- stop -------------------------------------------------------------------------------- */

/* What is left on the workers is files that nobody waits for any more. One that sits on a dead
 * mount would be joined for ever. */
static void workers_check(struct reactor_timer *timer)
{
	struct engine *engine = container_of(timer, struct engine, workers_timer);

	if (worker_pending_count() == 0) {
		reactor_stop(engine->reactors.control);
		return;
	}
	if (clock_ns() > engine->workers_deadline_ns) {
		log_warn("the kernel still holds on to a file that was being opened: ending "
			 "without it");
		_exit(engine->rc < 0 ? 1 : 0);
	}
	reactor_timer_start(engine->reactors.control, timer, WORKERS_STEP_NS);
}

static void control_stopped(void *arg)
{
	struct engine *engine = arg;

	engine->workers_timer.fn = workers_check;
	engine->workers_deadline_ns = clock_ns() + WORKERS_PATIENCE_NS;
	workers_check(&engine->workers_timer);
}

static void engine_stop(struct engine *engine)
{
	/* Not in the middle of a start: it will look here when it is through. */
	if (engine->stopping && engine->serving)
		control_stop(engine->control, control_stopped, engine);
}

static void signal_stop(struct engine_signals *signals)
{
	struct engine *engine = container_of(signals, struct engine, signals);

	if (engine->stopping) /* the start failed */
		return;
	engine->stopping = true;
	engine_stop(engine);
}

/* ---- start, on the control reactor ------------------------------------------------------- */

static void start_done(void *arg, int rc)
{
	struct engine *engine = arg;
	const struct engine_options *options = engine->options;

	engine->serving = true;
	engine->rc = rc;
	if (rc < 0) {
		log_error("start: %s", strerror(-rc));
		engine->stopping = true;
	}
	if (rc == 0 && !engine->stopping) {
		log_info("sluice " SLUICE_VERSION " is ready, RPC on %s", options->rpc_socket);
		if (options->ready != NULL)
			options->ready(options);
	}
	engine_stop(engine);
}

static void images_done(void *arg, int rc)
{
	struct engine *engine = arg;

	if (rc == 0) {
		control_start(engine->control, &engine->reactors, start_done, engine);
		return;
	}
	engine->rc = rc;
	engine->serving = true;
	engine->stopping = true;
	engine_stop(engine);
}

static void start_first(struct reactor_msg *msg)
{
	struct engine *engine = container_of(msg, struct engine, first);

	engine_images_start(engine->options, images_done, engine);
}

/* ---- start, before any reactor runs ------------------------------------------------------ */

static json_t *status_options(const struct engine *engine)
{
	const struct engine_options *options = engine->options;
	json_t *cores = json_array();

	for (unsigned int i = 0; i < engine->reactors.data_count; i++)
		json_array_append_new(cores, json_integer(reactor_cpu(engine->reactors.data[i])));
	return json_pack("{s:s, s:s?, s:s, s:s, s:o}", "run_dir", options->run_dir, "state_dir",
			 options->state_dir, "rpc_socket", options->rpc_socket, "poll_mode",
			 reactor_poll_mode_name(options->poll_mode), "cores", cores);
}

static int control_open(struct engine *engine, json_t *status)
{
	const struct engine_options *options = engine->options;
	const struct control_options control = {
		.run_dir = options->run_dir,
		.state_dir = options->state_dir,
		.rpc_socket = options->rpc_socket,
		.config_file = options->config_file,
		.status = status,
	};
	char error[512];
	int rc = control_create(&control, &engine->control, error, sizeof(error));

	if (rc < 0)
		log_error("%s", error);
	return rc;
}

static int threads_start(struct engine *engine)
{
	struct reactor_set *reactors = &engine->reactors;
	int rc = worker_init(WORKER_COUNT);

	if (rc < 0)
		return rc;
	engine->workers = true;
	for (unsigned int i = 0; i < reactors->data_count; i++) {
		rc = reactor_start(reactors->data[i]);
		if (rc < 0)
			return rc;
		engine->started_count++;
	}
	return 0;
}

static int engine_start(struct engine *engine, json_t **status)
{
	const struct reactor_options control = {
		.name = "control",
		.cpu = -1,
		.mode = REACTOR_POLL_NEVER,
	};
	const struct engine_options *options = engine->options;
	int rc;

	rc = reactor_create(&control, &engine->reactors.control);
	if (rc < 0)
		return rc;
	rc = engine_cores_create(options->cores, options->poll_mode, &engine->reactors);
	if (rc < 0)
		return rc;
	*status = status_options(engine);
	rc = control_open(engine, *status);
	if (rc < 0)
		return rc;
	rc = engine_signals_init(&engine->signals, engine->reactors.control, signal_stop);
	if (rc < 0)
		return rc;
	rc = threads_start(engine);
	if (rc < 0)
		return rc;
	vhost_init(&engine->reactors);
	vhost_set_rebalance(options->rebalance);
	engine->first.fn = start_first;
	reactor_send(engine->reactors.control, &engine->first);
	return 0;
}

static void engine_fini(struct engine *engine)
{
	struct reactor_set *reactors = &engine->reactors;

	for (unsigned int i = 0; i < engine->started_count; i++)
		reactor_stop(reactors->data[i]);
	for (unsigned int i = 0; i < engine->started_count; i++)
		reactor_join(reactors->data[i]);
	if (engine->workers)
		worker_fini();
	engine_signals_fini(&engine->signals);
	control_destroy(engine->control);
	for (unsigned int i = 0; i < reactors->data_count; i++)
		reactor_destroy(reactors->data[i]);
	if (reactors->control != NULL)
		reactor_destroy(reactors->control);
}

int engine_run(const struct engine_options *options)
{
	struct engine engine = {.options = options};
	json_t *status = NULL;

	engine_signals_block();
	raise_file_limit();
	(void)ticks_hz(); /* measured here rather than under the first request */
	int rc = engine_start(&engine, &status);
	if (rc == 0) {
		reactor_run(engine.reactors.control);
		rc = engine.rc;
		log_info("stopped");
	} else {
		log_error("sluice could not start: %s", strerror(-rc));
	}
	engine_fini(&engine);
	json_decref(status);
	return rc;
}
