/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One I/O on a file: which system calls it takes, one after the other, and what their results
 * mean. A step is asked for by file_io_issue() and answered by file_io_done(); most I/Os have one.
 * On the thread of the channel's reactor.
 */
#include <errno.h>
#include <string.h>

#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "bdev/bdev_io.h"

/* EINTR and EAGAIN in a row, after which the file is called broken. */
#define RETRY_MAX 32

static struct file_bdev *io_file(const struct bdev_io *io)
{
	return file_bdev(io->channel->bdev);
}

void file_io_issue(struct bdev_io *io)
{
	struct file_channel *ctx = file_channel(io);
	struct io_uring_sqe *sqe = file_ring_sqe(ctx->ring, io);

	if (unlikely(sqe == NULL))
		return;
	file_io_prep(io, file_io(io), sqe, ctx->sqe_fd);
	sqe->flags |= ctx->sqe_flags;
	io_uring_sqe_set_data(sqe, io);
}

/* ---- the end ----------------------------------------------------------------------------- */

static void begin_bounce(struct bdev_io *io)
{
	struct file_io *state = file_io(io);

	state->step = FILE_STEP_BOUNCE;
	state->bounce_index = (int16_t)file_bounce_get(&file_channel(io)->ring->bounce, io);
	if (state->bounce_index >= 0)
		file_io_issue(io);
}

/* Everything that the I/O holds is given back before its submitter hears of it. */
static void end(struct bdev_io *io, enum bdev_status status)
{
	struct file_io *state = file_io(io);

	if (unlikely(state->bounce_index >= 0)) {
		int index = state->bounce_index;
		struct bdev_io *next = file_bounce_put(&file_channel(io)->ring->bounce, index);

		if (next != NULL) {
			file_io(next)->bounce_index = (int16_t)index;
			file_io_issue(next);
		}
	}
	bdev_io_complete(io, status);
}

bool file_log_pass(struct file_bdev *file)
{
	/* If another reactor is here, the file is being written about anyway. */
	if (__atomic_exchange_n(&file->log_busy, true, __ATOMIC_ACQUIRE))
		return false;
	bool pass = log_limit_pass(&file->log);
	store_release(&file->log_busy, false);
	return pass;
}

__attribute__((cold)) static void end_failed(struct bdev_io *io, int rc)
{
	struct file_bdev *file = io_file(io);

	if (file_log_pass(file))
		log_error("'%s': %s of %llu bytes at %llu failed: %s", file->filename,
			  bdev_io_type_name(io->type), (unsigned long long)io->len_bytes,
			  (unsigned long long)io->offset_bytes, strerror(-rc));
	end(io, bdev_status_from_errno(rc));
}

/* Nothing came although the disk goes on: somebody cut the file short. */
__attribute__((cold)) static void end_short(struct bdev_io *io)
{
	struct file_bdev *file = io_file(io);

	if (file_log_pass(file))
		log_error("'%s': %s at %llu is beyond the end of the file, which has shrunk",
			  file->filename, bdev_io_type_name(io->type),
			  (unsigned long long)(io->offset_bytes + file_io(io)->done_bytes));
	end(io, BDEV_STATUS_IO_ERROR);
}

/* ---- answers ----------------------------------------------------------------------------- */

static void done_rw(struct bdev_io *io, struct file_io *state, int res)
{
	const struct file_bdev *file = io_file(io);

	if (unlikely(res == -EINVAL && state->step == FILE_STEP_PLAIN && file->direct &&
		     io->type != BDEV_IO_WRITE_ZEROES)) {
		/* The buffers were aligned as far as we knew. */
		begin_bounce(io);
		return;
	}
	if (unlikely(res < 0)) {
		end_failed(io, res);
		return;
	}
	/* Direct I/O can only go on from an aligned place. */
	uint64_t len = (uint64_t)res & ~(uint64_t)(file->offset_align - 1);
	if (unlikely(len == 0)) {
		end_short(io);
		return;
	}
	if (state->step == FILE_STEP_BOUNCE && io->type == BDEV_IO_READ)
		file_io_copy(
			io, state,
			file_bounce_buffer(&file_channel(io)->ring->bounce, state->bounce_index),
			len);
	if (likely(state->done_bytes + len == io->len_bytes)) {
		end(io, BDEV_STATUS_OK);
		return;
	}
	if (state->step == FILE_STEP_ZERO_WRITE)
		state->done_bytes += len;
	else
		file_io_advance(io, state, len);
	state->retry_count = 0;
	file_io_issue(io);
}

/* After a failed fdatasync the kernel forgets what it could not write, and the next one would
 * succeed. No FLUSH of this disk may: the guest would believe data safe that is gone. */
static void done_sync(struct bdev_io *io, int res)
{
	if (likely(res >= 0)) {
		end(io, BDEV_STATUS_OK);
		return;
	}
	store_relaxed(&io_file(io)->flush_failed, true);
	end_failed(io, res);
}

/* Takes the next best way to zero a range, which works everywhere in the end. */
static void begin_zero(struct bdev_io *io)
{
	const struct file_bdev *file = io_file(io);
	struct file_io *state = file_io(io);

	if ((io->flags & BDEV_IO_UNMAP) != 0 && !load_relaxed(&file->no_punch))
		state->step = FILE_STEP_PUNCH_ZERO;
	else if (!load_relaxed(&file->no_zero_range))
		state->step = FILE_STEP_ZERO_RANGE;
	else
		state->step = FILE_STEP_ZERO_WRITE;
	file_io_issue(io);
}

static void done_fallocate(struct bdev_io *io, const struct file_io *state, int res)
{
	struct file_bdev *file = io_file(io);

	if (likely(res >= 0)) {
		end(io, BDEV_STATUS_OK);
		return;
	}
	if (res != -EOPNOTSUPP && res != -ENOSYS) {
		end_failed(io, res);
		return;
	}
	store_relaxed(state->step == FILE_STEP_ZERO_RANGE ? &file->no_zero_range : &file->no_punch,
		      true);
	if (state->step == FILE_STEP_DISCARD)
		end(io, BDEV_STATUS_OK); /* advice not taken */
	else
		begin_zero(io);
}

void file_io_done(struct bdev_io *io, int res)
{
	struct file_io *state = file_io(io);

	if (unlikely(res == -EAGAIN || res == -EINTR) && state->retry_count < RETRY_MAX) {
		state->retry_count++;
		file_io_issue(io);
		return;
	}
	switch ((enum file_step)state->step) {
	case FILE_STEP_PLAIN:
	case FILE_STEP_BOUNCE:
	case FILE_STEP_ZERO_WRITE:
		done_rw(io, state, res);
		break;
	case FILE_STEP_SYNC:
		done_sync(io, res);
		break;
	case FILE_STEP_DISCARD:
	case FILE_STEP_PUNCH_ZERO:
	case FILE_STEP_ZERO_RANGE:
		done_fallocate(io, state, res);
		break;
	}
}

/* ---- the beginning ----------------------------------------------------------------------- */

/* True when direct I/O can use the guest's memory as it is. */
static bool iovs_aligned(const struct file_channel *ctx, const struct bdev_io *io)
{
	uint64_t bits = 0, len_bytes = 0;

	for (uint32_t i = 0; i < io->iov_count; i++) {
		const struct iovec *iov = &io->iovs[i];

		bits |= ((uintptr_t)iov->iov_base & ctx->base_mask) |
			(iov->iov_len & ctx->len_mask);
		len_bytes += iov->iov_len;
	}
	/* More would be written than bdev_submit() has checked. */
	ensure(len_bytes == io->len_bytes);
	return bits == 0;
}

static void begin_flush(struct bdev_io *io)
{
	const struct file_bdev *file = io_file(io);

	if (file->bdev.limits.read_only) {
		end(io, BDEV_STATUS_OK);
	} else if (unlikely(load_relaxed(&file->flush_failed))) {
		end(io, BDEV_STATUS_IO_ERROR);
	} else {
		file_io(io)->step = FILE_STEP_SYNC;
		file_io_issue(io);
	}
}

static void begin_discard(struct bdev_io *io)
{
	const struct file_bdev *file = io_file(io);

	if (file->device) {
		file_discard_device(io);
	} else if (load_relaxed(&file->no_punch)) {
		end(io, BDEV_STATUS_OK);
	} else {
		file_io(io)->step = FILE_STEP_DISCARD;
		file_io_issue(io);
	}
}

void file_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	const struct file_channel *ctx = (const struct file_channel *)channel->ctx;

	*file_io(io) = (struct file_io){.bounce_index = -1};
	switch (io->type) {
	case BDEV_IO_READ:
	case BDEV_IO_WRITE:
		if (likely(iovs_aligned(ctx, io)))
			file_io_issue(io);
		else
			begin_bounce(io);
		break;
	case BDEV_IO_FLUSH:
		begin_flush(io);
		break;
	case BDEV_IO_DISCARD:
		begin_discard(io);
		break;
	default:
		begin_zero(io);
		break;
	}
}
