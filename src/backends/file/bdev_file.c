/* SPDX-License-Identifier: Apache-2.0 */
/* The file back-end: making and destroying a disk, its channels, limits and configuration. Control
 * thread, but for channel_get and channel_put, which run on the channel's reactor, and what may
 * block, which runs on a worker. */
#include "backends/file/bdev_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "backends/file/file_impl.h"
#include "base/fd.h"

/* Zeroing may come down to writing: no guest should wait long for one request of it. */
#define FILE_WRITE_ZEROES_MAX_BYTES (128ull << 20)

static void file_release(struct bdev *bdev)
{
	struct file_bdev *file = file_bdev(bdev);

	/* A reactor's ring may hold the open file for a moment longer; the lock must not wait. */
	flock(file->fd, LOCK_UN);
	fd_close(&file->fd);
}

static void file_destroy(struct bdev *bdev)
{
	struct file_bdev *file = file_bdev(bdev);

	free(file->filename);
	free(file);
}

static int file_channel_get(struct bdev_channel *channel)
{
	struct file_channel *ctx = (struct file_channel *)channel->ctx;
	const struct file_bdev *file = file_bdev(channel->bdev);
	int rc = file_ring_get(channel->reactor, &ctx->ring);

	if (rc < 0)
		return rc;
	int index = file_ring_add_file(ctx->ring, file->fd);
	ctx->sqe_fd = index >= 0 ? index : file->fd;
	ctx->sqe_flags = index >= 0 ? IOSQE_FIXED_FILE : 0;
	ctx->base_mask = file->memory_align - 1;
	ctx->len_mask = file->offset_align - 1;
	file_discard_init(channel);
	return 0;
}

static void file_channel_put(struct bdev_channel *channel)
{
	struct file_channel *ctx = (struct file_channel *)channel->ctx;

	if ((ctx->sqe_flags & IOSQE_FIXED_FILE) != 0)
		file_ring_remove_file(ctx->ring, ctx->sqe_fd);
	file_ring_put(ctx->ring);
}

static int file_activate(struct bdev *bdev)
{
	const struct file_bdev *file = file_bdev(bdev);

	return file->migratable ? file_lock(file, bdev->limits.read_only) : 0;
}

static void file_deactivate(struct bdev *bdev)
{
	if (file_bdev(bdev)->migratable)
		flock(file_bdev(bdev)->fd, LOCK_UN);
}

static json_t *file_describe(const struct bdev *bdev)
{
	const struct file_bdev *file = file_bdev(bdev);

	return json_pack("{s:{s:s, s:b, s:b, s:b, s:b}}",
			 file->dialect == BDEV_FILE_AIO ? "aio" : "uring", "filename",
			 file->filename, "readonly", bdev->limits.read_only, "direct", file->direct,
			 "block_device", file->device, "migratable", file->migratable);
}

static json_t *file_config(const struct bdev *bdev, const char **method)
{
	const struct file_bdev *file = file_bdev(bdev);
	bool aio = file->dialect == BDEV_FILE_AIO;

	*method = aio ? "bdev_aio_create" : "bdev_uring_create";
	json_t *params = json_pack("{s:s, s:I}", "filename", file->filename, "block_size",
				   (json_int_t)bdev->limits.block_size_bytes);
	if (aio || bdev->limits.read_only)
		json_object_set_new(params, "readonly", json_boolean(bdev->limits.read_only));
	if (file->buffered_wanted)
		json_object_set_new(params, "buffered", json_true());
	if (file->migratable)
		json_object_set_new(params, "migratable", json_true());
	return params;
}

static const struct bdev_ops file_ops = {
	.driver = "file",
	.release = file_release,
	.destroy = file_destroy,
	.channel_get = file_channel_get,
	.channel_put = file_channel_put,
	.activate = file_activate,
	.deactivate = file_deactivate,
	.submit = file_submit,
	.describe = file_describe,
	.config = file_config,
	.reserve = file_reserve,
	.settle = file_settle,
};

bool bdev_is_file(const struct bdev *bdev, enum bdev_file_dialect dialect)
{
	return bdev->ops == &file_ops && file_bdev(bdev)->dialect == dialect;
}

static void set_limits(struct bdev *bdev, const struct file_geometry *geometry, bool read_only)
{
	bdev->block_count = geometry->size_bytes / geometry->block_size_bytes;
	bdev->limits = (struct bdev_limits){
		.block_size_bytes = geometry->block_size_bytes,
		.physical_block_size_bytes = geometry->physical_block_size_bytes,
		.optimal_io_bytes = geometry->optimal_io_bytes,
		.discard_max_bytes = geometry->discard_max_bytes,
		.discard_granularity_bytes = geometry->discard_granularity_bytes,
		.write_zeroes_max_bytes = FILE_WRITE_ZEROES_MAX_BYTES,
		.write_zeroes_unmap = geometry->discard_max_bytes > 0,
		.read_only = read_only,
		.volatile_write_cache = true,
		.rotational = geometry->rotational,
	};
}

/* Tells at creation, not at the first guest, that there is no io_uring. Any thread. */
static int check_io_uring(char *error, size_t error_bytes)
{
	static bool usable;
	struct io_uring uring;

	if (load_relaxed(&usable))
		return 0;
	int rc = io_uring_queue_init(1, &uring, 0);
	if (rc < 0) {
		snprintf(error, error_bytes, "the kernel gives no io_uring: %s%s", strerror(-rc),
			 rc == -EPERM ? " (see sysctl kernel.io_uring_disabled)" : "");
		return rc;
	}
	io_uring_queue_exit(&uring);
	store_relaxed(&usable, true);
	return 0;
}

/* Keeps the name, which must be fit for JSON, where it will be saved and shown. */
static int set_filename(struct file_bdev *file, const char *filename, char *error,
			size_t error_bytes)
{
	json_t *text = json_string(filename);

	if (text == NULL) {
		snprintf(error, error_bytes, "the file name is not UTF-8");
		return -EINVAL;
	}
	json_decref(text);
	file->filename = strdup(filename);
	if (file->filename == NULL) {
		snprintf(error, error_bytes, "out of memory");
		return -ENOMEM;
	}
	return 0;
}

int bdev_file_open(const struct bdev_file_options *options, struct bdev **out, char *error,
		   size_t error_bytes)
{
	struct file_geometry geometry = {0};
	int rc = check_io_uring(error, error_bytes);

	if (rc < 0)
		return rc;
	struct file_bdev *file = bdev_alloc(sizeof(*file));
	if (file == NULL) {
		snprintf(error, error_bytes, "out of memory");
		return -ENOMEM;
	}
	struct bdev *bdev = &file->bdev;
	rc = bdev_set_identity(bdev, options->name, options->uuid);
	if (rc < 0) {
		snprintf(error, error_bytes, "the name or the uuid is not well formed");
		goto free_file;
	}
	bdev->product = options->dialect == BDEV_FILE_AIO ? "AIO disk" : "URING bdev";
	bdev->ops = &file_ops;
	bdev->channel_ctx_bytes = sizeof(struct file_channel);
	file->dialect = options->dialect;
	file->buffered_wanted = options->buffered;
	file->migratable = options->migratable;
	rc = set_filename(file, options->filename, error, error_bytes);
	if (rc < 0)
		goto free_file;
	rc = file_open(file, options, &geometry, error, error_bytes);
	if (rc < 0)
		goto free_name;
	set_limits(bdev, &geometry, options->read_only);
	*out = bdev;
	return 0;

free_name:
	free(file->filename);
free_file:
	free(file);
	return rc;
}

int bdev_file_register(struct bdev *bdev, char *error, size_t error_bytes)
{
	int rc = bdev_register(bdev);

	if (rc == -EEXIST)
		snprintf(error, error_bytes, "a bdev named '%s', or with the same uuid, exists",
			 bdev->name);
	else if (rc < 0)
		snprintf(error, error_bytes, "the file cannot be used as a disk");
	return rc;
}

void bdev_file_abandon(struct bdev *bdev)
{
	file_release(bdev);
	file_destroy(bdev);
}

int bdev_file_create(const struct bdev_file_options *options, struct bdev **out, char *error,
		     size_t error_bytes)
{
	struct bdev *bdev;
	int rc = bdev_file_open(options, &bdev, error, error_bytes);

	if (rc < 0)
		return rc;
	rc = bdev_file_register(bdev, error, error_bytes);
	if (rc < 0)
		bdev_file_abandon(bdev);
	else
		*out = bdev;
	return rc;
}
