/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping the control plane. Control thread. */
#include "control/control.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "bdev/bdev.h"
#include "control/config_file.h"
#include "control/config_load.h"
#include "control/controllers.h"
#include "control/objects.h"
#include "control/openings.h"
#include "control/rpc_server.h"

/* How long entries of the configuration may wait for storage that a predecessor still holds. */
#define START_PATIENCE_MS 2000

/* ---- creation ---------------------------------------------------------------------------- */

static int state_open(struct control *control, char *error, size_t error_bytes)
{
	const char *dir = control->options.state_dir;
	char path[PATH_MAX];
	pid_t holder;

	if (dir == NULL)
		return config_init(&control->config, object_sources, object_source_count, NULL);
	control->lock_fd = config_dir_lock(dir, &holder);
	if (control->lock_fd == -EBUSY) {
		snprintf(error, error_bytes,
			 "the state directory %s is used by another sluice (pid %d)", dir,
			 (int)holder);
		return -EBUSY;
	}
	if (control->lock_fd < 0) {
		snprintf(error, error_bytes, "the state directory %s: %s", dir,
			 strerror(-control->lock_fd));
		return control->lock_fd;
	}
	if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	int rc = config_init(&control->config, object_sources, object_source_count, path);
	if (rc < 0)
		return rc;
	rc = config_file_read(path, &control->initial, error, error_bytes);
	return rc == -ENOENT ? 0 : rc;
}

/* Imported once: at the next start it would bring back what was deleted, and make what it does not
 * name a second time. */
static int seed_read(struct control *control, char *error, size_t error_bytes)
{
	const char *path = control->options.config_file;

	if (control->initial == NULL)
		return config_file_read(path, &control->seed, error, error_bytes);
	log_info("--config %s: not read, for there is a configuration in %s already "
		 "(`sluice rpc load_config - < FILE` adds to it)",
		 path, control->config.path);
	return 0;
}

static int listen_open(struct control *control, char *error, size_t error_bytes)
{
	const char *path = control->options.rpc_socket;
	int rc = rpc_server_create(control, path, &control->server);

	if (rc == -EADDRINUSE)
		snprintf(error, error_bytes,
			 "the RPC socket %s is in use: another sluice is serving there", path);
	else if (rc == -EEXIST)
		snprintf(error, error_bytes, "the RPC socket %s exists and is not a socket", path);
	else if (rc < 0)
		snprintf(error, error_bytes, "the RPC socket %s: %s", path, strerror(-rc));
	return rc;
}

int control_create(const struct control_options *options, struct control **out, char *error,
		   size_t error_bytes)
{
	struct control *control = calloc(1, sizeof(*control));
	int rc;

	snprintf(error, error_bytes, "out of memory");
	if (control == NULL)
		return -ENOMEM;
	control->options = *options;
	control->lock_fd = -1;
	control->start_ns = clock_ns();
	list_init(&control->config.kept);
	rpc_changes_init(&control->changes);
	rc = state_open(control, error, error_bytes);
	if (rc == 0 && options->config_file != NULL)
		rc = seed_read(control, error, error_bytes);
	if (rc == 0)
		rc = listen_open(control, error, error_bytes);
	if (rc < 0) {
		control_destroy(control);
		return rc;
	}
	*out = control;
	return 0;
}

void control_destroy(struct control *control)
{
	if (control == NULL)
		return;
	rpc_server_destroy(control->server);
	json_decref(control->initial);
	json_decref(control->seed);
	config_fini(&control->config);
	fd_close(&control->lock_fd);
	free(control);
}

/* ---- start ------------------------------------------------------------------------------- */

struct start_save {
	struct config_save save;
	struct control *control;
};

static void start_end(struct control *control, int rc)
{
	if (rc == 0)
		rc = rpc_server_start(control->server, control->reactors->control);
	control->done(control->arg, rc);
}

static void start_saved(struct config_save *save, int rc)
{
	struct start_save *start = container_of(save, struct start_save, save);
	struct control *control = start->control;

	if (rc < 0)
		log_error("the configuration could not be saved to %s: %s", control->config.path,
			  strerror(-rc));
	free(start);
	start_end(control, rc);
}

static void start_seeded(void *arg, const struct config_load_result *result)
{
	struct start_save *start = calloc(1, sizeof(*start));

	if (start == NULL) {
		start_end(arg, -ENOMEM);
		return;
	}
	start->control = arg;
	start->save.done = start_saved;
	config_save_start(&start->control->config, NULL, NULL, &start->save);
}

static void start_load(struct control *control, json_t *root, const char *origin,
		       void (*done)(void *arg, const struct config_load_result *result))
{
	const struct config_load_options options = {
		.control = control,
		.root = root,
		.origin = origin,
		.keep_failed = true,
		/* An IMAGE of the command line may have the name of an entry. */
		.skip_existing = true,
		.patience_ms = START_PATIENCE_MS,
		.open_patience_ms = START_PATIENCE_MS,
		.done = done,
		.arg = control,
	};
	int rc = config_load_start(&options);

	if (rc < 0)
		start_end(control, rc);
}

static void start_restored(void *arg, const struct config_load_result *result)
{
	struct control *control = arg;

	log_info("configuration %s: %u entries restored, %u failed", control->config.path,
		 result->done_count, result->failed_count);
	start_end(control, 0);
}

void control_start(struct control *control, const struct reactor_set *reactors,
		   void (*done)(void *arg, int rc), void *arg)
{
	control->reactors = reactors;
	control->done = done;
	control->arg = arg;
	if (control->initial != NULL)
		start_load(control, control->initial, control->config.path, start_restored);
	else if (control->seed != NULL)
		start_load(control, control->seed, control->options.config_file, start_seeded);
	else
		start_end(control, 0);
}

/* ---- stop -------------------------------------------------------------------------------- */

static void stop_server_done(void *arg)
{
	struct control *control = arg;

	control->stopped(control->arg);
}

/* All controllers are gone. Bdevs go one after the other; those whose end may block, on a worker.
 */
static void stop_next_bdev(void *arg)
{
	struct control *control = arg;
	struct bdev *bdev;

	while ((bdev = bdev_next(NULL)) != NULL) {
		bool blocks = bdev->ops->release != NULL;
		int rc = blocks ? bdev_destroy_start(bdev, stop_next_bdev, control)
				: bdev_destroy(bdev);
		ensure(rc == 0);
		if (blocks)
			return;
	}
	/* Last: calls under way, such as deletions, have ended by now, and were answered. */
	rpc_server_stop(control->server, stop_server_done, control);
}

/* Removals and changes of size wait for I/O, all of which has ended by now. */
static void stop_controllers_gone(void *arg)
{
	bdev_changes_wait(stop_next_bdev, arg);
}

static void stop_changes_idle(void *arg)
{
	/* While those who wait for them can still be told. */
	opening_cancel_all();
	controllers_delete_all(stop_controllers_gone, arg);
}

void control_stop(struct control *control, void (*stopped)(void *arg), void *arg)
{
	control->stopped = stopped;
	control->arg = arg;
	rpc_changes_close(&control->changes, stop_changes_idle, control);
	/* A change under way, loading a configuration, may wait for one. */
	opening_cancel_all();
}
