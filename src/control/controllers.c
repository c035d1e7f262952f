/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting controllers. Control thread. */
#include "control/controllers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/log.h"

struct deletion {
	struct list link;
	char name[VHOST_NAME_MAX];
	void (*done)(void *arg);
	void *arg;
};

static struct {
	struct list under_way;
	void (*all_gone)(void *arg);
	void *all_gone_arg;
} deletions = {.under_way = {&deletions.under_way, &deletions.under_way}};

bool controllers_deleting(const char *name)
{
	list_for_each (node, &deletions.under_way) {
		if (strcmp(list_entry(node, struct deletion, link)->name, name) == 0)
			return true;
	}
	return false;
}

static void check_all_gone(void)
{
	void (*all_gone)(void *arg) = deletions.all_gone;

	if (all_gone == NULL || !list_empty(&deletions.under_way))
		return;
	deletions.all_gone = NULL;
	all_gone(deletions.all_gone_arg);
}

static void deletion_done(void *arg)
{
	struct deletion *deletion = arg;

	list_remove(&deletion->link);
	if (deletion->done != NULL)
		deletion->done(deletion->arg);
	free(deletion);
	check_all_gone();
}

int controllers_delete(struct vhost_controller *controller, void (*done)(void *arg), void *arg)
{
	struct deletion *deletion = calloc(1, sizeof(*deletion));

	if (deletion == NULL)
		return -ENOMEM;
	snprintf(deletion->name, sizeof(deletion->name), "%s", vhost_controller_name(controller));
	deletion->done = done;
	deletion->arg = arg;
	list_add_tail(&deletions.under_way, &deletion->link);
	vhost_controller_delete(controller, deletion_done, deletion);
	return 0;
}

/* Any controller that is not being deleted yet; the list may change with every deletion. */
static struct vhost_controller *next_to_delete(void)
{
	struct vhost_controller *controller = NULL;

	while ((controller = vhost_controller_next(controller)) != NULL) {
		if (!controllers_deleting(vhost_controller_name(controller)))
			return controller;
	}
	return NULL;
}

void controllers_delete_all(void (*done)(void *arg), void *arg)
{
	struct vhost_controller *controller;

	while ((controller = next_to_delete()) != NULL) {
		if (controllers_delete(controller, NULL, NULL) < 0) {
			log_error("no memory to delete a controller");
			break;
		}
	}
	deletions.all_gone = done;
	deletions.all_gone_arg = arg;
	check_all_gone();
}
