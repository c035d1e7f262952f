/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DISCARD of a block device: an ioctl that blocks, so a worker does it, one at a time a channel.
 * All but run() on the channel's reactor.
 */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "bdev/bdev_io.h"

static void run(struct worker_job *job)
{
	struct file_channel *ctx = container_of(job, struct file_channel, discard_job);
	const struct file_bdev *file = file_bdev(ctx->channel->bdev);

	ctx->discard_rc = ioctl(file->fd, BLKDISCARD, ctx->discard_range) < 0 ? -errno : 0;
}

static void start_first(struct file_channel *ctx)
{
	ensure(ctx->discard_first != NULL);
	ctx->discard_range[0] = ctx->discard_first->offset_bytes;
	ctx->discard_range[1] = ctx->discard_first->len_bytes;
	worker_submit(&ctx->discard_job);
}

static void done(struct worker_job *job)
{
	struct file_channel *ctx = container_of(job, struct file_channel, discard_job);
	struct bdev_io *io = ctx->discard_first;
	struct file_bdev *file = file_bdev(ctx->channel->bdev);
	/* DISCARD is advice: a device that cannot take it has done nothing wrong. */
	int rc = ctx->discard_rc == -EOPNOTSUPP ? 0 : ctx->discard_rc;

	ctx->discard_first = io->next;
	if (ctx->discard_first == NULL)
		ctx->discard_last = &ctx->discard_first;
	else
		start_first(ctx);
	if (rc < 0 && file_log_pass(file))
		log_error("'%s': discard failed: %s", file->filename, strerror(-rc));
	bdev_io_complete(io, bdev_status_from_errno(rc));
}

void file_discard_init(struct bdev_channel *channel)
{
	struct file_channel *ctx = (struct file_channel *)channel->ctx;

	ctx->channel = channel;
	ctx->discard_job.run = run;
	ctx->discard_job.done = done;
	ctx->discard_last = &ctx->discard_first;
}

void file_discard_device(struct bdev_io *io)
{
	struct file_channel *ctx = file_channel(io);
	bool idle = ctx->discard_first == NULL;

	io->next = NULL;
	*ctx->discard_last = io;
	ctx->discard_last = &io->next;
	if (idle)
		start_first(ctx);
}
