/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How each step of an I/O is put to the kernel, and where in the guest's buffers an I/O that takes
 * several steps has come to. On the thread of the channel's reactor.
 */
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "backends/file/file_impl.h"
#include "memory/guest_memory.h"

/* A single read or write takes less than 2 GiB; the rest is asked for next. */
#define PIECE_MAX_BYTES (1u << 30)
#define ZERO_BYTES (1u << 20)

#define PUNCH_MODE (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_MODE (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* Written from, never to. */
static char zero_buffer[ZERO_BYTES] __attribute__((aligned(4096)));

/* ---- the place in the iovecs ------------------------------------------------------------- */

void file_io_advance(struct bdev_io *io, struct file_io *state, uint64_t len_bytes)
{
	state->done_bytes += len_bytes;
	while (len_bytes > 0) {
		uint64_t left = io->iovs[state->iov_index].iov_len - state->iov_done_bytes;
		uint64_t n = MIN(left, len_bytes);

		len_bytes -= n;
		state->iov_done_bytes += n;
		if (n == left) {
			state->iov_index++;
			state->iov_done_bytes = 0;
		}
	}
}

/* Copies the next len_bytes between the iovecs and buf; the place stays. */
void file_io_copy(const struct bdev_io *io, const struct file_io *state, char *buf,
		  uint64_t len_bytes)
{
	const struct iovec *iov = &io->iovs[state->iov_index];
	uint64_t skip = state->iov_done_bytes;

	for (; len_bytes > 0; iov++, skip = 0) {
		uint64_t n = MIN(iov->iov_len - skip, len_bytes);
		char *guest = (char *)iov->iov_base + skip;

		if (io->type == BDEV_IO_READ)
			guest_copy(guest, buf, n);
		else
			guest_copy(buf, guest, n);
		buf += n;
		len_bytes -= n;
	}
}

/* ---- steps ------------------------------------------------------------------------------- */

/* The rest of the iovecs, or what is left of one of which a part is done. */
static void prep_plain(struct bdev_io *io, const struct file_io *state, struct io_uring_sqe *sqe,
		       int fd)
{
	const struct iovec *iov = &io->iovs[state->iov_index];
	uint32_t count = io->iov_count - state->iov_index;
	uint64_t offset = io->offset_bytes + state->done_bytes;
	bool read = io->type == BDEV_IO_READ;

	if (likely(count == 1 || state->iov_done_bytes > 0)) {
		void *base = (char *)iov->iov_base + state->iov_done_bytes;
		uint64_t len = MIN(iov->iov_len - state->iov_done_bytes, PIECE_MAX_BYTES);

		if (read)
			io_uring_prep_read(sqe, fd, base, (unsigned int)len, offset);
		else
			io_uring_prep_write(sqe, fd, base, (unsigned int)len, offset);
	} else {
		count = MIN(count, IOV_MAX);
		if (read)
			io_uring_prep_readv(sqe, fd, iov, count, offset);
		else
			io_uring_prep_writev(sqe, fd, iov, count, offset);
	}
}

static void prep_bounce(struct bdev_io *io, const struct file_io *state, struct io_uring_sqe *sqe,
			int fd)
{
	char *buf = file_bounce_buffer(&file_channel(io)->ring->bounce, state->bounce_index);
	uint64_t offset = io->offset_bytes + state->done_bytes;
	uint64_t len = MIN(io->len_bytes - state->done_bytes, FILE_BOUNCE_BYTES);

	if (io->type == BDEV_IO_READ) {
		io_uring_prep_read(sqe, fd, buf, (unsigned int)len, offset);
	} else {
		file_io_copy(io, state, buf, len);
		io_uring_prep_write(sqe, fd, buf, (unsigned int)len, offset);
	}
}

void file_io_prep(struct bdev_io *io, const struct file_io *state, struct io_uring_sqe *sqe, int fd)
{
	uint64_t offset = io->offset_bytes + state->done_bytes;
	uint64_t left = io->len_bytes - state->done_bytes;

	switch ((enum file_step)state->step) {
	case FILE_STEP_PLAIN:
		prep_plain(io, state, sqe, fd);
		break;
	case FILE_STEP_BOUNCE:
		prep_bounce(io, state, sqe, fd);
		break;
	case FILE_STEP_SYNC:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case FILE_STEP_DISCARD:
	case FILE_STEP_PUNCH_ZERO:
		io_uring_prep_fallocate(sqe, fd, PUNCH_MODE, (off_t)offset, (off_t)left);
		break;
	case FILE_STEP_ZERO_RANGE:
		io_uring_prep_fallocate(sqe, fd, ZERO_MODE, (off_t)offset, (off_t)left);
		break;
	case FILE_STEP_ZERO_WRITE:
		io_uring_prep_write(sqe, fd, zero_buffer, (unsigned int)MIN(left, ZERO_BYTES),
				    offset);
		break;
	}
}
