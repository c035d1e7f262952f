/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bdev behind a controller: opening it, and what becomes of the controller when it changes its
 * size or goes away. Control thread.
 *
 * A controller whose bdev was removed lives on: its sessions and rings stay, every I/O ends with an
 * error (the channels that the queues have refuse it, and new queues get such channels), and a
 * front-end that asks anew sees a disk without blocks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vhost/session.h"

static void become_orphan(struct vhost_controller *controller)
{
	const struct bdev *bdev = controller->open->bdev;
	struct bdev *ghost = controller->ghost;

	memcpy(ghost->name, bdev->name, sizeof(ghost->name));
	ghost->limits = bdev->limits;
	ghost->block_count = 0;
	controller->open = NULL;
	log_warn("%s: its bdev %s was removed: every I/O fails from now on", controller->name,
		 ghost->name);
}

static void on_event(struct bdev_open *open, enum bdev_event event, void *arg)
{
	struct vhost_controller *controller = arg;

	if (event == BDEV_EVENT_REMOVE) {
		/* The front-end is not told: a disk that shrinks to nothing under a running guest
		 * is more than some drivers stand, and errors say the same. */
		become_orphan(controller);
		return;
	}
	list_for_each (node, &controller->sessions)
		session_config_changed(list_entry(node, struct vhost_session, link));
}

static int open_either(struct vhost_controller *controller, const struct vhost_blk_options *options,
		       const char **who)
{
	int rc = bdev_open(options->bdev_name, options->name, !options->read_only,
			   &controller->open, who);

	if (rc != -EROFS)
		return rc;
	/* A disk that cannot be written is served as what it is. */
	controller->read_only = true;
	return bdev_open(options->bdev_name, options->name, false, &controller->open, who);
}

int controller_bdev_open(struct vhost_controller *controller,
			 const struct vhost_blk_options *options, char *error, size_t error_bytes)
{
	const char *who = NULL;
	int rc = -ENOMEM;

	controller->ghost = bdev_alloc(sizeof(*controller->ghost));
	if (controller->ghost != NULL)
		rc = open_either(controller, options, &who);
	if (rc == 0)
		bdev_open_watch(controller->open, on_event, controller);
	else if (rc == -ENODEV)
		snprintf(error, error_bytes, "there is no bdev \"%s\"", options->bdev_name);
	else if (rc == -EBUSY)
		snprintf(error, error_bytes, "bdev \"%s\" is in use by \"%s\"", options->bdev_name,
			 who != NULL ? who : "another");
	else
		snprintf(error, error_bytes, "bdev \"%s\" cannot be opened: %s", options->bdev_name,
			 strerror(-rc));
	return rc;
}

void controller_bdev_close(struct vhost_controller *controller)
{
	if (controller->open != NULL)
		bdev_close(controller->open);
	controller->open = NULL;
	free(controller->ghost);
	controller->ghost = NULL;
}

bool vhost_controller_is_orphan(const struct vhost_controller *controller)
{
	return controller->open == NULL || controller->open->bdev->removing;
}
