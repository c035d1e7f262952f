/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: one a reactor and open, with their counters. Allocated, linked, summed and freed by
 * the control thread; started, used and stopped on their reactor, whose counters are read across
 * threads with relaxed loads.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "bdev/bdev.h"
#include "bdev/bdev_io.h"

static uint32_t type_mask(const struct bdev_open *open)
{
	const struct bdev_limits *limits = &open->bdev->limits;
	uint32_t mask = 1u << BDEV_IO_READ | 1u << BDEV_IO_FLUSH;

	if (!open->writable)
		return mask;
	mask |= 1u << BDEV_IO_WRITE;
	if (limits->discard_max_bytes > 0)
		mask |= 1u << BDEV_IO_DISCARD;
	if (limits->write_zeroes_max_bytes > 0)
		mask |= 1u << BDEV_IO_WRITE_ZEROES;
	return mask;
}

static struct bdev_channel *channel_memory(struct reactor *reactor, size_t ctx_bytes)
{
	size_t size = sizeof(struct bdev_channel) + ctx_bytes;

	size = (size + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
	struct bdev_channel *channel = aligned_alloc(CACHE_LINE_BYTES, size);
	if (channel == NULL)
		return NULL;
	memset(channel, 0, size);
	channel->reactor = reactor;
	list_init(&channel->link);
	return channel;
}

int bdev_channel_alloc(struct bdev_open *open, struct reactor *reactor, struct bdev_channel **out)
{
	struct bdev *bdev = open != NULL ? open->bdev : NULL;
	struct bdev_channel *channel =
		channel_memory(reactor, bdev != NULL ? bdev->channel_ctx_bytes : 0);

	if (channel == NULL)
		return -ENOMEM;
	*out = channel;
	channel->gone = bdev == NULL;
	if (channel->gone)
		return 0;
	channel->submit = bdev->ops->submit;
	/* A change of size under way reaches only the channels that were there when it began. */
	channel->size_bytes = bdev->change.busy
				      ? bdev->change.block_count * bdev->limits.block_size_bytes
				      : bdev_size_bytes(bdev);
	channel->block_mask = bdev->limits.block_size_bytes - 1;
	channel->type_mask = type_mask(open);
	channel->bdev = bdev;
	channel->open = open;
	open->channel_count++;
	list_add_tail(&bdev->channels, &channel->link);
	return 0;
}

int bdev_channel_start(struct bdev_channel *channel)
{
	int rc = 0;

	ensure(!channel->started);
	if (channel->gone)
		return 0;
	const struct bdev_ops *ops = channel->bdev->ops;
	if (ops->channel_get != NULL)
		rc = ops->channel_get(channel);
	channel->started = rc == 0;
	return rc;
}

void bdev_channel_stop(struct bdev_channel *channel)
{
	ensure(channel->inflight_count == 0);
	/* Of a disk that is gone: put already, or never started. */
	if (channel->gone && !channel->started)
		return;
	ensure(channel->started);
	const struct bdev_ops *ops = channel->bdev->ops;
	if (ops->channel_put != NULL)
		ops->channel_put(channel);
	channel->started = false;
}

static void stats_add(struct bdev_stats *sum, const struct bdev_stats *stats)
{
	for (int i = 0; i < BDEV_IO_TYPE_COUNT; i++) {
		struct bdev_type_stats *to = &sum->types[i];
		const struct bdev_type_stats *from = &stats->types[i];
		uint64_t max_ticks = load_relaxed(&from->max_ticks);

		to->op_count += load_relaxed(&from->op_count);
		to->bytes += load_relaxed(&from->bytes);
		to->ticks += load_relaxed(&from->ticks);
		to->max_ticks = MAX(to->max_ticks, max_ticks);
		to->error_count += load_relaxed(&from->error_count);
	}
}

void bdev_channel_free(struct bdev_channel *channel)
{
	if (channel->open != NULL) {
		stats_add(&channel->bdev->stats_retired, &channel->stats);
		channel->open->channel_count--;
		list_remove(&channel->link);
		channel->open = NULL;
	}
	/* A notice is on its way to or from the reactor: its memory goes with the answer. */
	channel->notice.freed = channel->notice.busy;
	if (!channel->notice.busy)
		free(channel);
}

void bdev_get_stats(const struct bdev *bdev, struct bdev_stats *out)
{
	*out = bdev->stats_retired;
	list_for_each (node, &bdev->channels)
		stats_add(out, &list_entry(node, struct bdev_channel, link)->stats);
}

static bool type_writes(enum bdev_io_type type)
{
	return type == BDEV_IO_WRITE || type == BDEV_IO_DISCARD || type == BDEV_IO_WRITE_ZEROES;
}

enum bdev_status bdev_io_check(const struct bdev_channel *channel, const struct bdev_io *io)
{
	ensure(io->type < BDEV_IO_TYPE_COUNT);
	if (channel->gone)
		return BDEV_STATUS_ABORTED;
	if (type_writes(io->type) && !channel->open->writable)
		return BDEV_STATUS_READ_ONLY;
	if (((channel->type_mask >> io->type) & 1) == 0)
		return BDEV_STATUS_UNSUPPORTED;
	if (((io->offset_bytes | io->len_bytes) & channel->block_mask) != 0)
		return BDEV_STATUS_MISALIGNED;
	if (!range_within(io->offset_bytes, io->len_bytes, channel->size_bytes))
		return BDEV_STATUS_OUT_OF_RANGE;
	return BDEV_STATUS_OK;
}

void bdev_io_refuse(struct bdev_channel *channel, struct bdev_io *io)
{
	enum bdev_status status = bdev_io_check(channel, io);

	if (status != BDEV_STATUS_OK)
		counter_add(&channel->stats.types[io->type].error_count, 1);
	io->complete(io, status);
}
