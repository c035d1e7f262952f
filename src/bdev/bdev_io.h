/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submitting and ending an I/O: the part of the block device layer that every request runs
 * through, inlined into front-ends and back-ends. On the thread of the channel's reactor.
 *
 * A request costs one compare a check, one line of counters and two indirect calls: the
 * back-end's submit and the front-end's complete.
 */
#ifndef SLUICE_BDEV_BDEV_IO_H
#define SLUICE_BDEV_BDEV_IO_H

#include "base/compiler.h"
#include "base/range.h"
#include "bdev/bdev.h"

/* Ends an I/O that fails a check, or that has nothing to do, without troubling the back-end. */
__attribute__((cold)) void bdev_io_refuse(struct bdev_channel *channel, struct bdev_io *io);

/* Why an I/O is refused; OK when it may go to the back-end or is empty. Pure. */
enum bdev_status bdev_io_check(const struct bdev_channel *channel, const struct bdev_io *io);

static inline bool bdev_io_acceptable(const struct bdev_channel *channel, const struct bdev_io *io)
{
	return io->type < BDEV_IO_TYPE_COUNT && ((channel->type_mask >> io->type) & 1) != 0 &&
	       ((io->offset_bytes | io->len_bytes) & channel->block_mask) == 0 &&
	       range_within(io->offset_bytes, io->len_bytes, channel->size_bytes) &&
	       (io->len_bytes != 0 || io->type == BDEV_IO_FLUSH);
}

/* Begins an I/O, which ends by io->complete(), maybe before this returns. An empty READ, WRITE,
 * DISCARD or WRITE_ZEROES ends well at once; FLUSH is for the whole disk whatever its range, which
 * must be valid all the same (0 and 0 will do). */
static inline void bdev_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	io->channel = channel;
	io->submit_ticks = reactor_now_ticks(channel->reactor);
	if (unlikely(!bdev_io_acceptable(channel, io))) {
		bdev_io_refuse(channel, io);
		return;
	}
	channel->inflight_count++;
	channel->submit(channel, io);
}

/* For back-ends: ends an I/O exactly once, on its reactor. The I/O is the submitter's again. */
static inline void bdev_io_complete(struct bdev_io *io, enum bdev_status status)
{
	struct bdev_channel *channel = io->channel;
	struct bdev_type_stats *stats = &channel->stats.types[io->type];
	uint64_t ticks = reactor_now_ticks(channel->reactor) - io->submit_ticks;

	counter_add(&stats->op_count, 1);
	counter_add(&stats->ticks, ticks);
	if (ticks > load_relaxed(&stats->max_ticks))
		store_relaxed(&stats->max_ticks, ticks);
	if (likely(status == BDEV_STATUS_OK))
		counter_add(&stats->bytes, io->len_bytes);
	else
		counter_add(&stats->error_count, 1);
	channel->inflight_count--;
	io->complete(io, status);
}

#endif
