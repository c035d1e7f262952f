/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane: JSON-RPC, the method table and the durable configuration, over the bdevs and
 * controllers of this process. Control thread unless it says otherwise.
 */
#ifndef SLUICE_CONTROL_CONTROL_H
#define SLUICE_CONTROL_CONTROL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "control/config.h"
#include "control/rpc.h"
#include "reactor/reactor.h"

struct rpc_server;

struct control_options {
	const char *run_dir;   /* where controllers get their sockets */
	const char *state_dir; /* NULL: nothing is kept */
	const char *rpc_socket;
	const char *config_file; /* carried out if nothing is kept yet; may be NULL */
	json_t *status;          /* what sluice_get_status shows of the options; borrowed */
};

struct control {
	const struct reactor_set *reactors;
	struct control_options options;
	struct config config;
	struct rpc_changes changes;
	struct rpc_server *server;
	json_t *initial; /* what was found in state_dir */
	json_t *seed;    /* what was found in config_file; NULL with initial */
	int lock_fd;
	uint64_t start_ns;
	unsigned int load_count; /* at start: files still to be carried out */
	void (*done)(void *arg, int rc);
	void (*stopped)(void *arg);
	void *arg;
};

/* Before any reactor runs: takes the state directory, reads the configuration files, binds the RPC
 * socket. The strings of options must outlive the control plane. 0, or -errno with a sentence. */
int control_create(const struct control_options *options, struct control **out, char *error,
		   size_t error_bytes);
/* Carries out the configuration, then begins to answer RPC and calls done. */
void control_start(struct control *control, const struct reactor_set *reactors,
		   void (*done)(void *arg, int rc), void *arg);
/* Ends RPC, deletes all controllers (waiting for their I/O) and bdevs, then calls stopped. The
 * configuration on disk stays. */
void control_stop(struct control *control, void (*stopped)(void *arg), void *arg);
/* After it has stopped, or was never started. May be NULL. */
void control_destroy(struct control *control);

#endif
