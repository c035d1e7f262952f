/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: puts reactors, workers, vhost and control together, runs them until a signal asks it
 * to stop, and takes them apart again. Main thread, which becomes the control thread.
 */
#ifndef SLUICE_ENGINE_ENGINE_H
#define SLUICE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reactor/reactor.h"

/* For guests of a few virtual CPUs. */
#define ENGINE_IMAGE_QUEUES_DEFAULT 4

/* A disk served without any configuration. */
struct engine_image {
	char *path; /* absolute */
	char *socket_path;
	char name[64]; /* of bdev and controller */
};

struct engine_options {
	const char *run_dir;
	const char *state_dir; /* NULL: nothing is kept */
	const char *rpc_socket;
	const char *config_file;           /* NULL: none */
	uint64_t cores[REACTOR_CPU_WORDS]; /* all zero: engine_default_core() */
	enum reactor_poll_mode poll_mode;
	bool rebalance; /* move queues from hot reactors to others */

	const struct engine_image *images;
	size_t image_count;
	uint32_t queue_count; /* of images, 1 to VHOST_QUEUE_MAX */
	bool read_only;

	/* Called once everything is served, on the control thread. May be NULL. */
	void (*ready)(const struct engine_options *options);
};

/* Serves until SIGTERM or SIGINT: 0 after a clean stop, or -errno if the start failed (a log line
 * says why). */
int engine_run(const struct engine_options *options);

#endif
