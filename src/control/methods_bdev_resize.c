/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RPC methods that change the size of bdevs, in use or not: storage is found, the configuration is
 * saved, and then the change takes place; the reply comes when all of it is done. Control thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/file/bdev_file.h"
#include "control/change.h"
#include "control/methods.h"
#include "control/objects.h"

#define MIB (1ull << 20)

struct resize_args {
	const char *name;
	uint64_t size; /* in the unit of the method */
	bool rescan;
};

static void resized(void *arg)
{
	rpc_reply(arg, json_true());
}

static void undone(void *arg)
{
	struct rpc_request *request = arg;

	rpc_reply_unsaved(request, request->note);
}

static void resize_saved(struct rpc_request *request, const char *name, int rc)
{
	/* It cannot have gone: a bdev that is changing is not deleted. */
	struct bdev *bdev = bdev_find(name);
	struct rpc_changes *changes = rpc_change_detach(request);

	request->note = rc;
	/* A guest whose I/O hangs must not keep others from being configured. */
	if (rc < 0)
		bdev_resize(bdev, bdev->block_count, true, undone, request);
	else
		bdev_resize(bdev, bdev->block_count_next, true, resized, request);
	rpc_changes_next(changes);
}

static void resize_to(struct rpc_request *request, struct bdev *bdev, uint64_t size_bytes)
{
	uint32_t block_size = bdev->limits.block_size_bytes;

	if (size_bytes == 0 || size_bytes % block_size != 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"size: must be a multiple of the block size (%u)", block_size);
		return;
	}
	int rc = bdev_reserve(bdev, size_bytes / block_size);
	if (rc < 0)
		rpc_reply_error(request, rc, "bdev %s cannot have %llu bytes: %s", bdev->name,
				(unsigned long long)size_bytes, strerror(-rc));
	else
		change_save(request, CHANGE_ADDED, OBJECTS_BDEV, bdev->name, resize_saved);
}

/* The size of a file is no part of the configuration. */
static void rescan(struct rpc_request *request, struct bdev *bdev)
{
	char error[RPC_ERROR_BYTES];
	uint64_t block_count;

	if (!bdev_is_file(bdev, BDEV_FILE_URING) && !bdev_is_file(bdev, BDEV_FILE_AIO)) {
		rpc_reply_error(request, -EOPNOTSUPP, "name: bdev %s is no file or block device",
				bdev->name);
		return;
	}
	int rc = bdev_file_block_count(bdev, &block_count, error, sizeof(error));
	if (rc < 0) {
		rpc_reply_error(request, rc, "%s", error);
		return;
	}
	struct rpc_changes *changes = rpc_change_detach(request);
	bdev_resize(bdev, block_count, false, resized, request);
	rpc_changes_next(changes);
}

static void null_resize(struct rpc_request *request, const void *args)
{
	const struct resize_args *a = args;
	struct bdev *bdev = bdev_of_kind(request, a->name, "null", "resize");

	if (bdev != NULL)
		resize_to(request, bdev, a->size * MIB);
}

static void uring_rescan(struct rpc_request *request, const void *args)
{
	const struct resize_args *a = args;
	struct bdev *bdev = bdev_of_kind(request, a->name, "uring", "rescan");

	if (bdev != NULL)
		rescan(request, bdev);
}

static void aio_rescan(struct rpc_request *request, const void *args)
{
	const struct resize_args *a = args;
	struct bdev *bdev = bdev_of_kind(request, a->name, "aio", "rescan");

	if (bdev != NULL)
		rescan(request, bdev);
}

static void any_resize(struct rpc_request *request, const void *args)
{
	const struct resize_args *a = args;
	struct bdev *bdev = bdev_of_kind(request, a->name, NULL, "resize");

	if (bdev == NULL)
		return;
	if (a->rescan == (a->size != 0)) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				a->rescan ? "size: cannot be given together with rescan"
					  : "size: is required (or rescan)");
		return;
	}
	if (a->rescan)
		rescan(request, bdev);
	else
		resize_to(request, bdev, a->size);
}

/* ---- table ------------------------------------------------------------------------------- */

#define PARAM_NAME                                                                                \
	{                                                                                         \
		.name = "name", .type = RPC_TYPE_STRING, .required = true,                        \
		.offset = offsetof(struct resize_args, name), .min = 1, .max = BDEV_NAME_MAX - 1, \
		.help = "Name or UUID of the bdev."                                               \
	}

static const struct rpc_param null_params[] = {
	PARAM_NAME,
	{.name = "new_size",
	 .type = RPC_TYPE_U64,
	 .required = true,
	 .offset = offsetof(struct resize_args, size),
	 .min = 1,
	 .max = INT64_MAX / MIB,
	 .help = "New size in MiB."},
};
static const struct rpc_param rescan_params[] = {PARAM_NAME};
static const struct rpc_param any_params[] = {
	PARAM_NAME,
	{.name = "size",
	 .type = RPC_TYPE_SIZE,
	 .offset = offsetof(struct resize_args, size),
	 .min = 512,
	 .max = INT64_MAX,
	 .help = "New size in bytes."},
	{.name = "rescan",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct resize_args, rescan),
	 .help = "Take the size that the file or block device has by now."},
};

/* What all of them have in common. */
#define IN_USE                                                                            \
	" A disk in use goes on: its guests are told of the new size, and I/O beyond it " \
	"fails. What lies beyond a smaller size is lost."
#define METHOD(method_name, text, table, function)                                             \
	{                                                                                      \
		.name = method_name, .help = text IN_USE, .result = "true", RPC_PARAMS(table), \
		.args_bytes = sizeof(struct resize_args), .changes = true, .handler = function \
	}

static const struct rpc_method methods[] = {
	METHOD("bdev_null_resize", "Gives a null bdev another size, larger or smaller.",
	       null_params, null_resize),
	METHOD("bdev_uring_rescan",
	       "Takes notice that the file or block device of a bdev has another size.",
	       rescan_params, uring_rescan),
	METHOD("bdev_aio_rescan",
	       "Takes notice that the file or block device of a bdev has another size.",
	       rescan_params, aio_rescan),
	METHOD("sluice_bdev_resize",
	       "Gives a bdev of any kind another size, larger or smaller: a disk in memory, a "
	       "null disk, a file (which grows or is cut). Block devices can only be rescanned.",
	       any_params, any_resize),
};

const struct rpc_method_list methods_bdev_resize = {methods, ARRAY_COUNT(methods)};
