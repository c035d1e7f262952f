/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files on their way to be disks. Opening one may take for ever (a network mount that is dead), so
 * it happens on a worker and outside the queue of changes; only what follows, registering and
 * saving, is a change. Until then the name is taken. Control thread.
 */
#ifndef SLUICE_CONTROL_OPENINGS_H
#define SLUICE_CONTROL_OPENINGS_H

#include "backends/file/bdev_file.h"
#include "control/rpc.h"

/* Opens a file for a request that creates a bdev, which gives up its turn meanwhile. opened is
 * called in the request's turn with the registered bdev; errors are replied here. The strings of
 * options must live as long as the request's params. */
void opening_start(struct rpc_request *request, const struct bdev_file_options *options,
		   void (*opened)(struct rpc_request *request, const struct bdev *bdev));

/* True while a bdev of that name is being made. */
bool opening_exists(const char *name);
/* Ends an opening without waiting for it: whoever asked for it is told. False: there is none. */
bool opening_cancel(const char *name);
void opening_cancel_all(void);

#endif
