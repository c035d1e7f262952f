/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O on a memory disk. Short ones are done inside submit; those over a slice go into a queue of
 * which a poller does one slice an iteration, so that a long discard or copy holds the reactor for
 * some tens of microseconds at most. On the thread of the channel's reactor; channels of other
 * reactors work on the same memory without a lock, as concurrent requests of a disk may.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "backends/memory/memory_impl.h"
#include "base/assert.h"
#include "bdev/bdev_io.h"
#include "memory/guest_memory.h"

#define SLICE_BYTES (256u << 10)

/* What backend_ctx holds of a long I/O. */
struct memory_io {
	uint64_t done_bytes;
	uint64_t iov_index;
	uint64_t iov_done_bytes; /* of iovs[iov_index] */
};
_Static_assert(sizeof(struct memory_io) <= sizeof(((struct bdev_io *)0)->backend_ctx), "");

static void copy(struct bdev_io *io, void *guest, char *disk, uint64_t len_bytes)
{
	if (io->type == BDEV_IO_READ)
		guest_copy(guest, disk, len_bytes);
	else
		guest_copy(disk, guest, len_bytes);
}

/* The next len_bytes of a READ or WRITE. */
static void copy_slice(struct bdev_io *io, struct memory_io *state, char *disk, uint64_t len_bytes)
{
	while (len_bytes > 0) {
		ensure(state->iov_index < io->iov_count);
		const struct iovec *iov = &io->iovs[state->iov_index];
		uint64_t n = MIN(iov->iov_len - state->iov_done_bytes, len_bytes);

		copy(io, (char *)iov->iov_base + state->iov_done_bytes, disk, n);
		disk += n;
		len_bytes -= n;
		state->iov_done_bytes += n;
		if (state->iov_done_bytes == iov->iov_len) {
			state->iov_index++;
			state->iov_done_bytes = 0;
		}
	}
}

/* Gives the whole pages of a range back; false if the kernel would not. */
static bool punch(const struct memory_bdev *memory, uint64_t begin, uint64_t end)
{
	return fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin,
			 (off_t)(end - begin)) == 0;
}

/* Releases the whole pages in the range. With zero_edges the rest of it is zeroed too. */
static void unmap(const struct memory_channel *ctx, uint64_t offset, uint64_t len, bool zero_edges)
{
	const struct memory_bdev *memory = ctx->memory;
	uint64_t mask = memory->page_bytes - 1;
	uint64_t end = offset + len;
	uint64_t page_begin = (offset + mask) & ~mask;
	uint64_t page_end = end & ~mask;
	bool punched = page_begin < page_end && punch(memory, page_begin, page_end);

	if (!zero_edges)
		return;
	if (!punched) {
		memset(ctx->base + offset, 0, len);
		return;
	}
	memset(ctx->base + offset, 0, page_begin - offset);
	memset(ctx->base + page_end, 0, end - page_end);
}

/* Does the part [done_bytes, done_bytes + len_bytes) of an I/O. */
static void do_slice(const struct memory_channel *ctx, struct bdev_io *io, struct memory_io *state,
		     uint64_t len_bytes)
{
	uint64_t offset = io->offset_bytes + state->done_bytes;

	switch (io->type) {
	case BDEV_IO_READ:
	case BDEV_IO_WRITE:
		copy_slice(io, state, ctx->base + offset, len_bytes);
		break;
	case BDEV_IO_DISCARD:
		unmap(ctx, offset, len_bytes, false);
		break;
	case BDEV_IO_WRITE_ZEROES:
		if ((io->flags & BDEV_IO_UNMAP) != 0 && !ctx->memory->hugetlb)
			unmap(ctx, offset, len_bytes, true);
		else
			memset(ctx->base + offset, 0, len_bytes);
		break;
	default: /* FLUSH: there is nothing more stable to bring it to */
		break;
	}
	state->done_bytes += len_bytes;
}

/* ---- long ones --------------------------------------------------------------------------- */

/* A slice's length: slices but the first begin at multiples of SLICE_BYTES of the disk, so that
 * no page is cut in two and escapes being released. */
static uint64_t slice_len(const struct bdev_io *io, const struct memory_io *state)
{
	uint64_t offset = io->offset_bytes + state->done_bytes;
	uint64_t to_boundary = SLICE_BYTES - offset % SLICE_BYTES;

	return MIN(to_boundary, io->len_bytes - state->done_bytes);
}

static unsigned int long_poll(struct poller *poller)
{
	struct memory_channel *ctx = container_of(poller, struct memory_channel, poller);
	struct bdev_io *io = ctx->long_first;
	struct memory_io *state = (struct memory_io *)io->backend_ctx;

	do_slice(ctx, io, state, slice_len(io, state));
	if (state->done_bytes < io->len_bytes)
		return 1;
	ctx->long_first = io->next;
	if (ctx->long_first == NULL) {
		ctx->long_last = &ctx->long_first;
		poller_stop(poller);
	}
	bdev_io_complete(io, BDEV_STATUS_OK);
	return 1;
}

static void long_begin(struct bdev_channel *channel, struct bdev_io *io)
{
	struct memory_channel *ctx = (struct memory_channel *)channel->ctx;

	memset(io->backend_ctx, 0, sizeof(io->backend_ctx));
	if (ctx->long_first == NULL)
		poller_start(channel->reactor, &ctx->poller);
	io->next = NULL;
	*ctx->long_last = io;
	ctx->long_last = &io->next;
}

/* ---- the channel ------------------------------------------------------------------------- */

int memory_channel_get(struct bdev_channel *channel)
{
	struct memory_channel *ctx = (struct memory_channel *)channel->ctx;

	ctx->poller.poll = long_poll;
	ctx->channel = channel;
	ctx->memory = memory_bdev(channel->bdev);
	ctx->base = load_relaxed(&ctx->memory->base);
	ctx->long_last = &ctx->long_first;
	return 0;
}

void memory_channel_put(struct bdev_channel *channel)
{
	struct memory_channel *ctx = (struct memory_channel *)channel->ctx;

	ensure(ctx->long_first == NULL);
}

/* Both mappings show the same memory until all channels have gone over. */
void memory_channel_resize(struct bdev_channel *channel)
{
	struct memory_channel *ctx = (struct memory_channel *)channel->ctx;

	ctx->base = load_relaxed(&ctx->memory->base);
}

void memory_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	const struct memory_channel *ctx = (const struct memory_channel *)channel->ctx;

	if (unlikely(io->len_bytes > SLICE_BYTES && io->type != BDEV_IO_FLUSH)) {
		long_begin(channel, io);
		return;
	}
	/* The common case: one buffer. */
	if (likely(io->type <= BDEV_IO_WRITE && io->iov_count == 1)) {
		ensure(io->iovs[0].iov_len >= io->len_bytes);
		copy(io, io->iovs[0].iov_base, ctx->base + io->offset_bytes, io->len_bytes);
	} else {
		struct memory_io state = {0};
		do_slice(ctx, io, &state, io->len_bytes);
	}
	bdev_io_complete(io, BDEV_STATUS_OK);
}
