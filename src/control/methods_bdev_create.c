/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods that create bdevs. Control thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backends/file/bdev_file.h"
#include "backends/memory/bdev_memory.h"
#include "backends/null/bdev_null.h"
#include "base/assert.h"
#include "control/change.h"
#include "control/methods.h"
#include "control/objects.h"
#include "control/openings.h"

/* So that every size in bytes fits a signed 64-bit number, which is what JSON has here. */
#define BLOCK_COUNT_MAX (INT64_MAX / 4096)

/* ---- shared ------------------------------------------------------------------------------ */

struct geometry {
	uint64_t num_blocks;
	uint64_t size;
	uint32_t block_size;
	uint32_t physical_block_size;
};

static bool block_size_check(struct rpc_request *request, uint32_t block_size)
{
	if (block_size == 512 || block_size == 4096)
		return true;
	rpc_reply_error(request, RPC_CODE_INVALID_PARAMS, "block_size: must be 512 or 4096");
	return false;
}

static bool physical_check(struct rpc_request *request, const struct geometry *geometry)
{
	uint32_t physical = geometry->physical_block_size;

	if (physical == 0 || (physical >= geometry->block_size && (physical & (physical - 1)) == 0))
		return true;
	rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
			"physical_block_size: must be a power of two of at least block_size (%u)",
			geometry->block_size);
	return false;
}

/* Works out num_blocks from size if that was given. False: replied. */
static bool geometry_check(struct rpc_request *request, struct geometry *geometry)
{
	if (!block_size_check(request, geometry->block_size) || !physical_check(request, geometry))
		return false;
	if (geometry->num_blocks != 0 && geometry->size != 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"size: cannot be given together with num_blocks");
		return false;
	}
	if (geometry->num_blocks == 0 && geometry->size == 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"num_blocks: is required (or size, in bytes)");
		return false;
	}
	if (geometry->size % geometry->block_size != 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"size: must be a multiple of block_size (%u)",
				geometry->block_size);
		return false;
	}
	if (geometry->size != 0)
		geometry->num_blocks = geometry->size / geometry->block_size;
	return true;
}

/* False: replied. */
static bool identity_check(struct rpc_request *request, const char *name, const char *uuid)
{
	if (opening_exists(name)) {
		rpc_reply_error(request, -EBUSY,
				"name: bdev %s is being created: its file is not open yet", name);
		return false;
	}
	if (bdev_find(name) != NULL) {
		rpc_reply_error(request, -EEXIST, "name: there is a bdev %s already", name);
		return false;
	}
	if (uuid != NULL && bdev_find(uuid) != NULL) {
		rpc_reply_error(request, -EEXIST, "uuid: there is a bdev with %s already", uuid);
		return false;
	}
	return true;
}

static void undo_done(void *arg)
{
	struct rpc_request *request = arg;

	rpc_reply_unsaved(request, request->note);
}

static void created_saved(struct rpc_request *request, const char *name, int rc)
{
	if (rc == 0) {
		rpc_reply(request, json_string(name));
		return;
	}
	request->note = rc;
	rc = bdev_destroy_start(bdev_find(name), undo_done, request);
	ensure(rc == 0); /* nobody can have opened it: this is still its turn */
}

static void created(struct rpc_request *request, const struct bdev *bdev)
{
	change_save(request, CHANGE_ADDED, OBJECTS_BDEV, bdev->name, created_saved);
}

#define PARAM_UUID(args_type)                                                               \
	{                                                                                   \
		.name = "uuid", .type = RPC_TYPE_UUID, .offset = offsetof(args_type, uuid), \
		.help = "Identity of the disk. Absent: made anew."                          \
	}
#define PARAMS_GEOMETRY(args_type)                                                              \
	{.name = "num_blocks",                                                                  \
	 .type = RPC_TYPE_U64,                                                                  \
	 .offset = offsetof(args_type, geometry.num_blocks),                                    \
	 .min = 1,                                                                              \
	 .max = BLOCK_COUNT_MAX,                                                                \
	 .help = "Size in blocks."},                                                            \
		{.name = "size",                                                                \
		 .type = RPC_TYPE_SIZE,                                                         \
		 .offset = offsetof(args_type, geometry.size),                                  \
		 .min = 512,                                                                    \
		 .max = INT64_MAX,                                                              \
		 .help = "Size in bytes, instead of num_blocks."},                              \
		{.name = "block_size",                                                          \
		 .type = RPC_TYPE_U32,                                                          \
		 .offset = offsetof(args_type, geometry.block_size),                            \
		 .min = 512,                                                                    \
		 .max = 4096,                                                                   \
		 .fallback = 512,                                                               \
		 .help = "Logical block size in bytes: 512 or 4096."},                          \
	{                                                                                       \
		.name = "physical_block_size", .type = RPC_TYPE_U32,                            \
		.offset = offsetof(args_type, geometry.physical_block_size), .min = 512,        \
		.max = 1u << 20, .help = "Physical block size in bytes. Absent: as block_size." \
	}
/* Protection information: what SPDK's clients send when they do not want any. */
#define PARAM_ZERO(param_name)                                                         \
	{                                                                              \
		.name = param_name, .type = RPC_TYPE_U32, .offset = RPC_PARAM_IGNORED, \
		.help = "Accepted for SPDK's clients; there is no metadata."           \
	}
#define PARAM_IGNORED_BOOL(param_name, text)                                            \
	{                                                                               \
		.name = param_name, .type = RPC_TYPE_BOOL, .offset = RPC_PARAM_IGNORED, \
		.help = text                                                            \
	}
#define PARAMS_DIF                                                                  \
	PARAM_ZERO("md_size"), PARAM_ZERO("dif_type"), PARAM_ZERO("dif_pi_format"), \
		PARAM_IGNORED_BOOL("dif_is_head_of_md",                             \
				   "Accepted for SPDK's clients; there is no metadata.")

/* ---- bdev_null_create -------------------------------------------------------------------- */

struct null_args {
	const char *name;
	const char *uuid;
	struct geometry geometry;
};

static void null_create(struct rpc_request *request, const void *args)
{
	struct null_args a = *(const struct null_args *)args;
	struct bdev *bdev;

	if (!identity_check(request, a.name, a.uuid) || !geometry_check(request, &a.geometry))
		return;
	const struct bdev_null_options options = {
		.name = a.name,
		.uuid = a.uuid,
		.block_count = a.geometry.num_blocks,
		.block_size_bytes = a.geometry.block_size,
		.physical_block_size_bytes = a.geometry.physical_block_size,
	};
	int rc = bdev_null_create(&options, &bdev);
	if (rc < 0)
		rpc_reply_error(request, rc, "null bdev %s: %s", a.name, strerror(-rc));
	else
		created(request, bdev);
}

static const struct rpc_param null_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_NAME,
	 .required = true,
	 .offset = offsetof(struct null_args, name),
	 .help = "Name of the new bdev."},
	PARAMS_GEOMETRY(struct null_args),
	PARAM_UUID(struct null_args),
	PARAMS_DIF,
};

/* ---- bdev_malloc_create ------------------------------------------------------------------ */

struct malloc_args {
	const char *name;
	const char *uuid;
	struct geometry geometry;
	bool hugetlb;
};

/* SPDK's automatic names: the first of Malloc0, Malloc1, ... that is free. */
static const char *malloc_name(const char *given, char *text, size_t text_bytes)
{
	if (given != NULL)
		return given;
	for (unsigned int i = 0;; i++) {
		snprintf(text, text_bytes, "Malloc%u", i);
		if (bdev_find(text) == NULL)
			return text;
	}
}

static void malloc_create(struct rpc_request *request, const void *args)
{
	struct malloc_args a = *(const struct malloc_args *)args;
	char automatic[32];
	struct bdev *bdev;

	a.name = malloc_name(a.name, automatic, sizeof(automatic));
	if (!identity_check(request, a.name, a.uuid) || !geometry_check(request, &a.geometry))
		return;
	const struct bdev_memory_options options = {
		.name = a.name,
		.uuid = a.uuid,
		.block_count = a.geometry.num_blocks,
		.block_size_bytes = a.geometry.block_size,
		.physical_block_size_bytes = a.geometry.physical_block_size,
		.hugetlb = a.hugetlb,
	};
	int rc = bdev_memory_create(&options, &bdev);
	if (rc < 0)
		rpc_reply_error(request, rc, "memory bdev %s of %llu blocks: %s", a.name,
				(unsigned long long)a.geometry.num_blocks, strerror(-rc));
	else
		created(request, bdev);
}

static const struct rpc_param malloc_params[] = {
	PARAMS_GEOMETRY(struct malloc_args),
	{.name = "name",
	 .type = RPC_TYPE_NAME,
	 .offset = offsetof(struct malloc_args, name),
	 .help = "Name of the new bdev. Absent: the first free one of Malloc0, Malloc1, ..."},
	PARAM_UUID(struct malloc_args),
	{.name = "hugetlb",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct malloc_args, hugetlb),
	 .help = "Try hugetlb pages first. Without them, plain pages are used."},
	{.name = "optimal_io_boundary",
	 .type = RPC_TYPE_U32,
	 .offset = RPC_PARAM_IGNORED,
	 .max = UINT32_MAX,
	 .help = "Accepted for SPDK's clients and ignored."},
	PARAM_IGNORED_BOOL("md_interleave", "Accepted for SPDK's clients; there is no metadata."),
	PARAMS_DIF,
};

/* ---- bdev_uring_create and bdev_aio_create ----------------------------------------------- */

struct file_args {
	const char *name;
	const char *filename;
	const char *uuid;
	uint32_t block_size;
	bool readonly;
	bool buffered;
	bool migratable;
};

static void file_create(struct rpc_request *request, const struct file_args *a,
			enum bdev_file_dialect dialect)
{
	if (!identity_check(request, a->name, a->uuid) ||
	    (a->block_size != 0 && !block_size_check(request, a->block_size)))
		return;
	const struct bdev_file_options options = {
		.name = a->name,
		.uuid = a->uuid,
		.filename = a->filename,
		.block_size_bytes = a->block_size,
		.read_only = a->readonly,
		.buffered = a->buffered,
		.migratable = a->migratable,
		.dialect = dialect,
	};
	opening_start(request, &options, created);
}

static void uring_create(struct rpc_request *request, const void *args)
{
	file_create(request, args, BDEV_FILE_URING);
}

static void aio_create(struct rpc_request *request, const void *args)
{
	file_create(request, args, BDEV_FILE_AIO);
}

#define PARAMS_FILE                                                                                \
	{.name = "name",                                                                           \
	 .type = RPC_TYPE_NAME,                                                                    \
	 .required = true,                                                                         \
	 .offset = offsetof(struct file_args, name),                                               \
	 .help = "Name of the new bdev."},                                                         \
		{.name = "filename",                                                               \
		 .type = RPC_TYPE_STRING,                                                          \
		 .required = true,                                                                 \
		 .offset = offsetof(struct file_args, filename),                                   \
		 .min = 1,                                                                         \
		 .help = "Path of the regular file or block device."},                             \
		{.name = "block_size",                                                             \
		 .type = RPC_TYPE_U32,                                                             \
		 .offset = offsetof(struct file_args, block_size),                                 \
		 .max = 4096,                                                                      \
		 .help = "Logical block size in bytes: 512 or 4096. Absent or 0: what the "        \
			 "storage has."},                                                          \
		PARAM_UUID(struct file_args),                                                      \
		{.name = "readonly",                                                               \
		 .type = RPC_TYPE_BOOL,                                                            \
		 .offset = offsetof(struct file_args, readonly),                                   \
		 .help = "Open the storage for reading only."},                                    \
		{.name = "buffered",                                                               \
		 .type = RPC_TYPE_BOOL,                                                            \
		 .offset = offsetof(struct file_args, buffered),                                   \
		 .help = "Go through the page cache even where O_DIRECT works."},                  \
	{                                                                                          \
		.name = "migratable", .type = RPC_TYPE_BOOL,                                       \
		.offset = offsetof(struct file_args, migratable),                                  \
		.help = "Hold the lock on the file only while a guest is being served, so that a " \
			"second "                                                                  \
			"daemon can open it for a live migration."                                 \
	}

static const struct rpc_param uring_params[] = {PARAMS_FILE};
static const struct rpc_param aio_params[] = {
	PARAMS_FILE,
	PARAM_IGNORED_BOOL("fallocate",
			   "Accepted for SPDK's clients: discard and write-zeroes are always "
			   "served where the file system has them."),
};

/* ---- table ------------------------------------------------------------------------------- */

static const struct rpc_method methods[] = {
	{.name = "bdev_null_create",
	 .help = "Creates a disk that ends every I/O at once and stores nothing.",
	 .result = "The name of the bdev.",
	 RPC_PARAMS(null_params),
	 .args_bytes = sizeof(struct null_args),
	 .changes = true,
	 .handler = null_create},
	{.name = "bdev_malloc_create",
	 .help = "Creates a disk in memory. Its contents end with the process.",
	 .result = "The name of the bdev.",
	 RPC_PARAMS(malloc_params),
	 .args_bytes = sizeof(struct malloc_args),
	 .changes = true,
	 .handler = malloc_create},
	{.name = "bdev_uring_create",
	 .help = "Makes a disk of a file or block device. I/O goes through io_uring.",
	 .result = "The name of the bdev.",
	 RPC_PARAMS(uring_params),
	 .args_bytes = sizeof(struct file_args),
	 .changes = true,
	 .handler = uring_create},
	{.name = "bdev_aio_create",
	 .help = "Makes a disk of a file or block device. The same as bdev_uring_create, for "
		 "clients that know only this name.",
	 .result = "The name of the bdev.",
	 RPC_PARAMS(aio_params),
	 .args_bytes = sizeof(struct file_args),
	 .changes = true,
	 .handler = aio_create},
};

const struct rpc_method_list methods_bdev_create = {methods, ARRAY_COUNT(methods)};
