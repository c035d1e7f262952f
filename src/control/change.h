/* SPDX-License-Identifier: Apache-2.0 */
/* What every method that changes the configuration does between the change and its reply: the new
 * configuration goes to disk. Control thread. */
#ifndef SLUICE_CONTROL_CHANGE_H
#define SLUICE_CONTROL_CHANGE_H

#include <stdbool.h>

#include "control/rpc.h"

enum change_kind {
	CHANGE_ADDED,    /* the object exists: on failure, undo that */
	CHANGE_REMOVING, /* saved without the object, which is there until it is saved */
};

/* Replies. rc is 0 or the -errno of the save (rpc_reply_unsaved() has a sentence for that). */
typedef void (*change_saved_fn)(struct rpc_request *request, const char *name, int rc);

/* Saves the configuration, then calls saved; at once when a configuration is being loaded. */
void change_save(struct rpc_request *request, enum change_kind kind, const char *subsystem,
		 const char *name, change_saved_fn saved);

/* The reply to a change that could not be saved, and is not in effect. */
void rpc_reply_unsaved(struct rpc_request *request, int rc);

#endif
