/* SPDX-License-Identifier: Apache-2.0 */
/* Saving the configuration between a change and its reply. Control thread. */
#include "control/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "control/control.h"

struct change {
	struct config_save save;
	struct rpc_request *request;
	const char *subsystem;
	char name[RPC_ERROR_BYTES]; /* or what the reply will say */
	change_saved_fn saved;
};

static void change_end(struct rpc_request *request, const char *subsystem, const char *name,
		       change_saved_fn saved, int rc)
{
	/* Made anew or deleted: either way the entry that was kept under this name is history. */
	if (rc == 0)
		config_forget(&request->control->config, subsystem, name);
	saved(request, name, rc);
}

static void change_saved(struct config_save *save, int rc)
{
	struct change *change = container_of(save, struct change, save);

	change_end(change->request, change->subsystem, change->name, change->saved, rc);
	free(change);
}

void change_save(struct rpc_request *request, enum change_kind kind, const char *subsystem,
		 const char *name, change_saved_fn saved)
{
	if (request->origin == RPC_ORIGIN_CONFIG) {
		change_end(request, subsystem, name, saved, 0);
		return;
	}
	struct change *change = calloc(1, sizeof(*change));
	if (change == NULL) {
		change_end(request, subsystem, name, saved, -ENOMEM);
		return;
	}
	change->request = request;
	change->subsystem = subsystem;
	change->saved = saved;
	change->save.done = change_saved;
	snprintf(change->name, sizeof(change->name), "%s", name);
	config_save_start(&request->control->config, subsystem,
			  kind == CHANGE_REMOVING ? change->name : NULL, &change->save);
}

void rpc_reply_unsaved(struct rpc_request *request, int rc)
{
	rpc_reply_error(request, rc,
			"the configuration could not be saved (%s: %s); nothing was changed",
			request->control->config.path, strerror(-rc));
}
