/* SPDX-License-Identifier: Apache-2.0 */
/* Controllers on their way out: deleting one waits for its I/O, and until then its name is taken,
 * but it is no part of the configuration. Control thread. */
#ifndef SLUICE_CONTROL_CONTROLLERS_H
#define SLUICE_CONTROL_CONTROLLERS_H

#include <stdbool.h>

#include "vhost/vhost.h"

/* Begins to delete; done is called when the controller is gone, maybe at once. 0, -ENOMEM. */
int controllers_delete(struct vhost_controller *controller, void (*done)(void *arg), void *arg);
bool controllers_deleting(const char *name);
/* Deletes all there are; done is called when none is left, maybe at once. */
void controllers_delete_all(void (*done)(void *arg), void *arg);

#endif
