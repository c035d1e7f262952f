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
	bool force;
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

struct bdev *bdev_of_kind(struct rpc_request *request, const char *name, const char *kind,
			  const char *verb)
{
	struct bdev *bdev = bdev_find(name);

	if (bdev == NULL) {
		rpc_reply_error(request, -ENODEV, "name: there is no bdev %s", name);
	} else if (kind != NULL && strcmp(bdev_kind(bdev), kind) != 0) {
		rpc_reply_error(request, -ENODEV,
				"name: bdev %s is of another kind; bdev_%s_%s would be its method",
				bdev->name, bdev_kind(bdev), verb);
		bdev = NULL;
	} else if (bdev_is_changing(bdev)) {
		rpc_reply_error(request, -EBUSY, "name: bdev %s is changing its size", bdev->name);
		bdev = NULL;
	}
	return bdev;
}

static void deleted(void *arg)
{
	rpc_reply(arg, json_true());
}

static void deleted_saved(struct rpc_request *request, const char *name, int rc)
{
	struct bdev *bdev = bdev_find(name);

	if (rc < 0 || bdev == NULL) { /* NULL: an entry that was only kept */
		if (bdev != NULL)
			bdev->removing = false;
		if (rc < 0)
			rpc_reply_unsaved(request, rc);
		else
			rpc_reply(request, json_true());
		return;
	}
	/* A guest whose I/O hangs, or a file that is slow to close, must not keep others from being
	 * configured. */
	struct rpc_changes *changes = rpc_change_detach(request);
	rc = bdev_remove(bdev, deleted, request);
	if (rc < 0) {
		bdev->removing = false;
		rpc_reply_error(request, rc, "name: bdev %s: %s", name, strerror(-rc));
	}
	rpc_changes_next(changes);
}

/* kind NULL: any. */
static void delete_kind(struct rpc_request *request, const char *name, const char *kind, bool force)
{
	bool cancelled = opening_cancel(name);

	if (bdev_find(name) == NULL &&
	    config_is_kept(&request->control->config, OBJECTS_BDEV, name)) {
		change_save(request, CHANGE_REMOVING, OBJECTS_BDEV, name, deleted_saved);
		return;
	}
	if (bdev_find(name) == NULL && cancelled) {
		deleted(request);
		return;
	}
	struct bdev *bdev = bdev_of_kind(request, name, kind, "delete");
	if (bdev == NULL)
		return;
	if (!force && bdev_holder(bdev) != NULL) {
		rpc_reply_error(request, -EBUSY, "name: bdev %s is in use by %s", bdev->name,
				bdev_holder(bdev));
		return;
	}
	/* What is saved has neither the bdev nor the controllers that serve it. */
	bdev->removing = true;
	change_save(request, CHANGE_REMOVING, OBJECTS_BDEV, bdev->name, deleted_saved);
}

#define DEFINE_DELETE(function, kind)                                                       \
	static void function(struct rpc_request *request, const void *args)                 \
	{                                                                                   \
		delete_kind(request, ((const struct delete_args *)args)->name, kind, true); \
	}
DEFINE_DELETE(null_delete, "null")
DEFINE_DELETE(malloc_delete, "malloc")
DEFINE_DELETE(uring_delete, "uring")
DEFINE_DELETE(aio_delete, "aio")

static void any_delete(struct rpc_request *request, const void *args)
{
	const struct delete_args *a = args;

	delete_kind(request, a->name, NULL, a->force);
}

#define PARAM_NAME                                                                                 \
	{                                                                                          \
		.name = "name", .type = RPC_TYPE_STRING, .required = true,                         \
		.offset = offsetof(struct delete_args, name), .min = 1, .max = BDEV_NAME_MAX - 1,  \
		.help = "Name or UUID of the bdev. One whose file is still being opened is given " \
			"up."                                                                      \
	}

static const struct rpc_param delete_params[] = {PARAM_NAME};
static const struct rpc_param any_params[] = {
	PARAM_NAME,
	{.name = "force",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct delete_args, force),
	 .help = "Also if it is in use."},
};

/* As SPDK has it. */
#define IN_USE                                                                                \
	" If controllers serve it, their guests' I/O fails from then on, and neither it nor " \
	"they are part of the configuration any more; the controllers themselves stay until " \
	"they are deleted. The reply comes when the I/O under way has ended."

#define METHOD_DELETE(method_name, text, function)                                   \
	{                                                                            \
		.name = method_name, .help = text IN_USE, .result = "true",          \
		RPC_PARAMS(delete_params), .args_bytes = sizeof(struct delete_args), \
		.changes = true, .handler = function                                 \
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
	{.name = "sluice_bdev_delete",
	 .help = "Deletes a bdev of any kind that is not in use, or, by force, one that is." IN_USE,
	 .result = "true",
	 RPC_PARAMS(any_params),
	 .args_bytes = sizeof(struct delete_args),
	 .changes = true,
	 .handler = any_delete},
};

const struct rpc_method_list methods_bdev_delete = {methods, ARRAY_COUNT(methods)};
