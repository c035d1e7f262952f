/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods that delete bdevs. Control thread. */
#include <errno.h>
#include <string.h>

#include "backends/file/bdev_file.h"
#include "control/change.h"
#include "control/control.h"
#include "control/methods.h"
#include "control/objects.h"
#include "control/openings.h"

struct delete_args {
	const char *name;
};

const char *bdev_kind(const struct bdev *bdev)
{
	if (bdev_is_file(bdev, BDEV_FILE_URING))
		return "uring";
	if (bdev_is_file(bdev, BDEV_FILE_AIO))
		return "aio";
	return strcmp(bdev->ops->driver, "memory") == 0 ? "malloc" : bdev->ops->driver;
}

/* The first that has it open; NULL. */
static const char *bdev_holder(const struct bdev *bdev)
{
	if (list_empty(&bdev->opens))
		return NULL;
	return list_entry(bdev->opens.next, struct bdev_open, link)->owner;
}

static void deleted(void *arg)
{
	rpc_reply(arg, json_true());
}

static void deleted_saved(struct rpc_request *request, const char *name, int rc)
{
	struct bdev *bdev = bdev_find(name);

	if (rc < 0) {
		rpc_reply_unsaved(request, rc);
		return;
	}
	if (bdev == NULL) { /* an entry that was only kept */
		deleted(request);
		return;
	}
	/* Nobody can have opened it meanwhile: changes run one at a time. Closing the file may take
	 * its time, and the others need not wait for that. */
	struct rpc_changes *changes = rpc_change_detach(request);
	rc = bdev_destroy_start(bdev, deleted, request);
	if (rc < 0)
		rpc_reply_error(request, rc, "name: bdev %s: %s", name, strerror(-rc));
	rpc_changes_next(changes);
}

/* kind NULL: any. */
static void delete_kind(struct rpc_request *request, const char *name, const char *kind)
{
	const struct bdev *bdev = bdev_find(name);
	bool cancelled = opening_cancel(name);

	if (bdev == NULL && config_is_kept(&request->control->config, OBJECTS_BDEV, name)) {
		change_save(request, CHANGE_REMOVING, OBJECTS_BDEV, name, deleted_saved);
		return;
	}
	if (bdev == NULL && cancelled) {
		deleted(request);
		return;
	}
	if (bdev == NULL) {
		rpc_reply_error(request, -ENODEV, "name: there is no bdev %s", name);
		return;
	}
	if (kind != NULL && strcmp(bdev_kind(bdev), kind) != 0) {
		rpc_reply_error(request, -ENODEV,
				"name: bdev %s is of another kind; bdev_%s_delete deletes it",
				bdev->name, bdev_kind(bdev));
		return;
	}
	if (bdev_holder(bdev) != NULL) {
		rpc_reply_error(request, -EBUSY, "name: bdev %s is in use by %s", bdev->name,
				bdev_holder(bdev));
		return;
	}
	change_save(request, CHANGE_REMOVING, OBJECTS_BDEV, bdev->name, deleted_saved);
}

#define DEFINE_DELETE(function, kind)                                                 \
	static void function(struct rpc_request *request, const void *args)           \
	{                                                                             \
		delete_kind(request, ((const struct delete_args *)args)->name, kind); \
	}
DEFINE_DELETE(null_delete, "null")
DEFINE_DELETE(malloc_delete, "malloc")
DEFINE_DELETE(uring_delete, "uring")
DEFINE_DELETE(aio_delete, "aio")
DEFINE_DELETE(any_delete, NULL)

static const struct rpc_param delete_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct delete_args, name),
	 .min = 1,
	 .max = BDEV_NAME_MAX - 1,
	 .help = "Name or UUID of the bdev. It must not be in use. One whose file is still being "
		 "opened is given up."},
};

#define METHOD_DELETE(method_name, text, function)                                              \
	{                                                                                       \
		.name = method_name, .help = text, .result = "true", RPC_PARAMS(delete_params), \
		.args_bytes = sizeof(struct delete_args), .changes = true, .handler = function  \
	}

static const struct rpc_method methods[] = {
	METHOD_DELETE("bdev_null_delete", "Deletes a null bdev.", null_delete),
	METHOD_DELETE("bdev_malloc_delete", "Deletes a memory bdev and its contents.",
		      malloc_delete),
	METHOD_DELETE("bdev_uring_delete",
		      "Lets go of a file made a disk by bdev_uring_create. The file stays.",
		      uring_delete),
	METHOD_DELETE("bdev_aio_delete",
		      "Lets go of a file made a disk by bdev_aio_create. The file stays.",
		      aio_delete),
	METHOD_DELETE("sluice_bdev_delete", "Deletes a bdev of any kind.", any_delete),
};

const struct rpc_method_list methods_bdev_delete = {methods, ARRAY_COUNT(methods)};
