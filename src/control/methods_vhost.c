/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods of vhost controllers. Control thread. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/change.h"
#include "control/control.h"
#include "control/controllers.h"
#include "control/methods.h"
#include "control/objects.h"
#include "vhost/vhost.h"

/* ---- coalescing -------------------------------------------------------------------------- */

struct coalescing_args {
	const char *ctrlr; /* of vhost_controller_set_coalescing */
	uint32_t delay_base_us;
	uint32_t iops_threshold;
	bool adaptive;
};

static struct vhost_coalescing coalescing_of(const struct coalescing_args *args)
{
	if (args->adaptive)
		return (struct vhost_coalescing){.mode = VHOST_COALESCING_ADAPTIVE};
	return (struct vhost_coalescing){
		.mode = args->delay_base_us > 0 ? VHOST_COALESCING_FIXED : VHOST_COALESCING_NONE,
		.delay_base_us = args->delay_base_us,
		.iops_threshold = args->iops_threshold,
	};
}

/* What to go back to if the change cannot be saved: changes run one at a time. */
static struct vhost_coalescing coalescing_before;

static void coalescing_saved(struct rpc_request *request, const char *name, int rc)
{
	struct vhost_controller *controller = vhost_controller_find(name);

	if (rc == 0) {
		rpc_reply(request, json_true());
		return;
	}
	if (controller != NULL)
		vhost_controller_set_coalescing(controller, &coalescing_before);
	rpc_reply_unsaved(request, rc);
}

static void set_coalescing(struct rpc_request *request, const void *args)
{
	const struct coalescing_args *a = args;
	struct vhost_controller *controller = vhost_controller_find(a->ctrlr);
	const struct vhost_coalescing coalescing = coalescing_of(a);

	if (controller == NULL) {
		rpc_reply_error(request, -ENODEV, "ctrlr: there is no controller %s", a->ctrlr);
		return;
	}
	coalescing_before = *vhost_controller_coalescing(controller);
	vhost_controller_set_coalescing(controller, &coalescing);
	change_save(request, CHANGE_ADDED, OBJECTS_VHOST_BLK, a->ctrlr, coalescing_saved);
}

static const struct rpc_param coalescing_params[] = {
	{.name = "ctrlr",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct coalescing_args, ctrlr),
	 .min = 1,
	 .max = VHOST_NAME_MAX - 1,
	 .help = "Name of the controller."},
	{.name = "delay_base_us",
	 .type = RPC_TYPE_U32,
	 .required = true,
	 .offset = offsetof(struct coalescing_args, delay_base_us),
	 .max = VHOST_DELAY_MAX_US,
	 .help = "The longest distance between calls, in microseconds. 0: no call waits."},
	{.name = "iops_threshold",
	 .type = RPC_TYPE_U32,
	 .required = true,
	 .offset = offsetof(struct coalescing_args, iops_threshold),
	 .min = 1,
	 .max = INT32_MAX,
	 .help = "Requests a second of a queue above which calls keep a distance, the longest from "
		 "twice this rate on."},
	{.name = "adaptive",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct coalescing_args, adaptive),
	 .help = "Back to the default, which measures for itself; the numbers are then ignored."},
};

/* ---- vhost_create_blk_controller --------------------------------------------------------- */

struct create_args {
	const char *ctrlr;
	const char *dev_name;
	const char *serial;
	uint64_t cpumask[REACTOR_CPU_WORDS];
	uint32_t num_queues;
	bool readonly;
	bool packed_ring;
	bool writeback;
	struct coalescing_args coalescing;
};

static void undo_done(void *arg)
{
	struct rpc_request *request = arg;

	rpc_reply_unsaved(request, request->note);
}

static void created_saved(struct rpc_request *request, const char *name, int rc)
{
	if (rc == 0) {
		rpc_reply(request, json_true());
		return;
	}
	request->note = rc;
	if (controllers_delete(vhost_controller_find(name), undo_done, request) < 0)
		rpc_reply_error(request, rc, "the configuration could not be saved: %s",
				strerror(-rc));
}

static void create_blk(struct rpc_request *request, const void *args)
{
	const struct create_args *a = args;
	struct vhost_controller *controller;
	char error[RPC_ERROR_BYTES] = "";
	char path[PATH_MAX];

	if (vhost_controller_find(a->ctrlr) != NULL) {
		rpc_reply_error(request, -EEXIST, "ctrlr: there is a controller %s already",
				a->ctrlr);
		return;
	}
	if (bdev_find(a->dev_name) == NULL) {
		rpc_reply_error(request, -ENODEV, "dev_name: there is no bdev %s", a->dev_name);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s", request->control->options.run_dir, a->ctrlr);
	struct vhost_blk_options options = {
		.name = a->ctrlr,
		.socket_path = path,
		.bdev_name = a->dev_name,
		.serial = a->serial,
		.queue_count = a->num_queues,
		.read_only = a->readonly,
		.packed_ring = a->packed_ring,
		.writeback = a->writeback,
		.coalescing = coalescing_of(&a->coalescing),
	};
	memcpy(options.cpu_mask, a->cpumask, sizeof(options.cpu_mask));
	int rc = vhost_blk_create(&options, &controller, error, sizeof(error));
	if (rc < 0)
		rpc_reply_error(request, rc, "%s", error[0] != '\0' ? error : strerror(-rc));
	else
		change_save(request, CHANGE_ADDED, OBJECTS_VHOST_BLK, a->ctrlr, created_saved);
}

static const char *const transports[] = {"vhost_user_blk", NULL};
static const struct rpc_param create_params[] = {
	{.name = "ctrlr",
	 .type = RPC_TYPE_NAME,
	 .required = true,
	 .offset = offsetof(struct create_args, ctrlr),
	 .help = "Name of the new controller, and of its socket in the run directory."},
	{.name = "dev_name",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct create_args, dev_name),
	 .min = 1,
	 .max = BDEV_NAME_MAX - 1,
	 .help = "Name or UUID of the bdev to serve."},
	{.name = "cpumask",
	 .type = RPC_TYPE_CPUMASK,
	 .offset = offsetof(struct create_args, cpumask),
	 .help = "CPUs of the reactors over which the queues are spread. Absent: all reactors."},
	{.name = "readonly",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct create_args, readonly),
	 .help = "The guest may only read."},
	{.name = "packed_ring",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct create_args, packed_ring),
	 .fallback = true,
	 .help = "Offer packed rings; the driver chooses. Split rings are always served."},
	{.name = "transport",
	 .type = RPC_TYPE_CHOICE,
	 .offset = RPC_PARAM_IGNORED,
	 .choices = transports,
	 .help = "The only transport there is."},
	{.name = "num_queues",
	 .type = RPC_TYPE_U32,
	 .offset = offsetof(struct create_args, num_queues),
	 .min = 1,
	 .max = VHOST_QUEUE_MAX,
	 .help = "The most virtqueues that the guest may use. Absent: as many as there can be, "
		 "256."},
	{.name = "serial",
	 .type = RPC_TYPE_STRING,
	 .offset = offsetof(struct create_args, serial),
	 .min = 1,
	 .max = 20,
	 .help = "Serial number that the guest sees. Absent: made of the bdev's UUID."},
	{.name = "writeback",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct create_args, writeback),
	 .fallback = true,
	 .help = "Whether the guest starts with its write cache on."},
	{.name = "adaptive_coalescing",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct create_args, coalescing.adaptive),
	 .fallback = true,
	 .help = "Whether Sluice finds out by itself when to hold back calls to the driver. "
		 "Otherwise as vhost_controller_set_coalescing."},
	{.name = "delay_base_us",
	 .type = RPC_TYPE_U32,
	 .offset = offsetof(struct create_args, coalescing.delay_base_us),
	 .max = VHOST_DELAY_MAX_US,
	 .help = "Without adaptive_coalescing: as in vhost_controller_set_coalescing."},
	{.name = "iops_threshold",
	 .type = RPC_TYPE_U32,
	 .offset = offsetof(struct create_args, coalescing.iops_threshold),
	 .max = INT32_MAX,
	 .help = "Without adaptive_coalescing: as in vhost_controller_set_coalescing."},
};

/* ---- vhost_get_controllers --------------------------------------------------------------- */

struct name_args {
	const char *name;
};

static void get_controllers(struct rpc_request *request, const void *args)
{
	const char *name = ((const struct name_args *)args)->name;
	struct vhost_controller *controller = NULL;

	if (name != NULL) {
		controller = vhost_controller_find(name);
		if (controller == NULL)
			rpc_reply_error(request, -ENODEV, "name: there is no controller %s", name);
		else
			rpc_reply(request, json_pack("[o]", vhost_controller_describe(controller)));
		return;
	}
	json_t *array = json_array();
	while ((controller = vhost_controller_next(controller)) != NULL)
		json_array_append_new(array, vhost_controller_describe(controller));
	rpc_reply(request, array);
}

static const struct rpc_param get_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_STRING,
	 .offset = offsetof(struct name_args, name),
	 .min = 1,
	 .max = VHOST_NAME_MAX - 1,
	 .help = "Name of the controller. Absent: all."},
};

/* ---- vhost_delete_controller ------------------------------------------------------------- */

static void delete_done(void *arg)
{
	rpc_reply(arg, json_true());
}

static void delete_saved(struct rpc_request *request, const char *name, int rc)
{
	struct vhost_controller *controller = vhost_controller_find(name);

	if (rc < 0) {
		rpc_reply_unsaved(request, rc);
		return;
	}
	if (controller == NULL) { /* an entry that was only kept */
		rpc_reply(request, json_true());
		return;
	}
	/* A VM whose I/O hangs must not keep others from being configured. */
	struct rpc_changes *changes = rpc_change_detach(request);
	rc = controllers_delete(controller, delete_done, request);
	if (rc < 0)
		rpc_reply_error(request, rc, "controller %s: %s", name, strerror(-rc));
	rpc_changes_next(changes);
}

static void delete_controller(struct rpc_request *request, const void *args)
{
	const char *name = ((const struct name_args *)args)->name;

	if (controllers_deleting(name)) {
		rpc_reply_error(request, -EBUSY, "ctrlr: controller %s is being deleted", name);
		return;
	}
	if (vhost_controller_find(name) == NULL &&
	    !config_is_kept(&request->control->config, OBJECTS_VHOST_BLK, name)) {
		rpc_reply_error(request, -ENODEV, "ctrlr: there is no controller %s", name);
		return;
	}
	change_save(request, CHANGE_REMOVING, OBJECTS_VHOST_BLK, name, delete_saved);
}

static const struct rpc_param delete_params[] = {
	{.name = "ctrlr",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct name_args, name),
	 .min = 1,
	 .max = VHOST_NAME_MAX - 1,
	 .help = "Name of the controller."},
};

/* ---- table ------------------------------------------------------------------------------- */

static const struct rpc_method methods[] = {
	{.name = "vhost_create_blk_controller",
	 .help = "Serves a bdev to a VM as a vhost-user-blk disk, on a Unix socket.",
	 .result = "true",
	 RPC_PARAMS(create_params),
	 .args_bytes = sizeof(struct create_args),
	 .changes = true,
	 .handler = create_blk},
	{.name = "vhost_get_controllers",
	 .help = "Shows controllers and the sessions of the VMs connected to them.",
	 .result = "An array of controllers in order of creation.",
	 RPC_PARAMS(get_params),
	 .args_bytes = sizeof(struct name_args),
	 .handler = get_controllers},
	{.name = "vhost_controller_set_coalescing",
	 .help = "Sets when the calls (interrupts) of a controller's queues are held back to be "
		 "sent together. Completions themselves are always visible at once.",
	 .result = "true",
	 RPC_PARAMS(coalescing_params),
	 .args_bytes = sizeof(struct coalescing_args),
	 .changes = true,
	 .handler = set_coalescing},
	{.name = "vhost_delete_controller",
	 .help = "Ends the sessions of a controller, waits for their I/O, and deletes it. The "
		 "bdev stays.",
	 .result = "true",
	 RPC_PARAMS(delete_params),
	 .args_bytes = sizeof(struct name_args),
	 .changes = true,
	 .handler = delete_controller},
};

const struct rpc_method_list methods_vhost = {methods, ARRAY_COUNT(methods)};
