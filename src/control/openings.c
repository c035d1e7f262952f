/* SPDX-License-Identifier: Apache-2.0 */
/* Files on their way to be disks; see openings.h. Control thread, but for the two functions that
 * run on a worker. */
#include "control/openings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "control/control.h"
#include "reactor/worker.h"

struct opening {
	struct list link;
	struct worker_job job;
	struct rpc_request *request;
	json_t *params; /* what the strings of options belong to: the request may end before us */
	struct bdev_file_options options;
	struct bdev *bdev;
	void (*opened)(struct rpc_request *request, const struct bdev *bdev);
	bool listed;
	bool waiting; /* opened, and in the queue of changes */
	bool cancelled;
	int rc;
	char error[RPC_ERROR_BYTES];
};

static struct list openings = {&openings, &openings};

static struct opening *opening_find(const char *name)
{
	list_for_each (node, &openings) {
		struct opening *opening = list_entry(node, struct opening, link);
		if (strcmp(opening->options.name, name) == 0)
			return opening;
	}
	return NULL;
}

bool opening_exists(const char *name)
{
	return opening_find(name) != NULL;
}

/* ---- end --------------------------------------------------------------------------------- */

static void opening_unlist(struct opening *opening)
{
	if (opening->listed)
		list_remove(&opening->link);
	opening->listed = false;
}

static void opening_free(struct worker_job *job)
{
	struct opening *opening = container_of(job, struct opening, job);

	opening_unlist(opening);
	json_decref(opening->params);
	free(opening);
}

static void abandon_run(struct worker_job *job)
{
	bdev_file_abandon(container_of(job, struct opening, job)->bdev);
}

/* Lets go of the file, if it is open, on a worker: closing may block as well. */
static void opening_end(struct opening *opening)
{
	if (opening->rc < 0) {
		opening_free(&opening->job);
		return;
	}
	opening->job.run = abandon_run;
	opening->job.done = opening_free;
	worker_submit(&opening->job);
}

/* ---- cancelling -------------------------------------------------------------------------- */

static void reply_cancelled(struct rpc_request *request, const char *name)
{
	if (request->control->changes.closed)
		rpc_reply_error(request, -ESHUTDOWN, "sluice is shutting down");
	else
		rpc_reply_error(request, -ECANCELED, "bdev %s was deleted before its file was open",
				name);
}

static void cancel(struct opening *opening)
{
	struct rpc_request *request = opening->request;

	opening->cancelled = true;
	opening_unlist(opening);
	/* In the queue of changes it has to wait for its turn. */
	if (opening->waiting)
		return;
	opening->request = NULL;
	reply_cancelled(request, opening->options.name);
}

bool opening_cancel(const char *name)
{
	struct opening *opening = opening_find(name);

	if (opening != NULL)
		cancel(opening);
	return opening != NULL;
}

void opening_cancel_all(void)
{
	while (!list_empty(&openings))
		cancel(list_entry(openings.next, struct opening, link));
}

/* ---- opening ----------------------------------------------------------------------------- */

/* The request's turn has come. */
static void opening_register(struct rpc_request *request, void *arg)
{
	struct opening *opening = arg;
	struct bdev *bdev = opening->bdev;
	char error[RPC_ERROR_BYTES];

	if (opening->cancelled) {
		reply_cancelled(request, opening->options.name);
		opening_end(opening);
		return;
	}
	opening_unlist(opening);
	int rc = bdev_file_register(bdev, error, sizeof(error));
	if (rc < 0) {
		opening_end(opening);
		rpc_reply_error(request, rc, "%s", error);
		return;
	}
	void (*opened)(struct rpc_request * request, const struct bdev *bdev) = opening->opened;
	opening_free(&opening->job);
	opened(request, bdev);
}

static void opening_run(struct worker_job *job)
{
	struct opening *opening = container_of(job, struct opening, job);

	opening->rc = bdev_file_open(&opening->options, &opening->bdev, opening->error,
				     sizeof(opening->error));
}

static void opening_done(struct worker_job *job)
{
	struct opening *opening = container_of(job, struct opening, job);
	struct rpc_request *request = opening->request;

	if (opening->cancelled) {
		opening_end(opening);
	} else if (opening->rc < 0) {
		/* The name is free before anybody hears of it. */
		opening_unlist(opening);
		rpc_reply_error(request, opening->rc, "%s",
				opening->error[0] != '\0' ? opening->error
							  : strerror(-opening->rc));
		opening_end(opening);
	} else {
		opening->waiting = true;
		rpc_change_attach(request, opening_register, opening);
	}
}

void opening_start(struct rpc_request *request, const struct bdev_file_options *options,
		   void (*opened)(struct rpc_request *request, const struct bdev *bdev))
{
	if (request->control->changes.closed) { /* in the middle of a configuration */
		rpc_reply_error(request, -ESHUTDOWN, "sluice is shutting down");
		return;
	}
	struct opening *opening = calloc(1, sizeof(*opening));
	if (opening == NULL) {
		rpc_reply_error(request, -ENOMEM, "out of memory");
		return;
	}
	opening->request = request;
	opening->params = json_incref(request->params);
	opening->options = *options;
	opening->opened = opened;
	opening->job.run = opening_run;
	opening->job.done = opening_done;
	opening->listed = true;
	list_add_tail(&openings, &opening->link);
	worker_submit(&opening->job);
	/* Last: other changes run in here. */
	rpc_changes_next(rpc_change_detach(request));
}
