/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the file back-end.
 *
 *   bdev_file.c    constructor, limits, configuration          control thread
 *   file_open.c    opening, locking, geometry                  a worker
 *   file_resize.c  changes of size                            control thread
 *   file_ring.c    the io_uring of a reactor                   its reactor
 *   file_io.c      what becomes of one I/O                     its reactor
 *   file_prep.c    how a step of it is put to the kernel      its reactor
 *   file_bounce.c  aligned buffers for unaligned guests        its reactor
 *   file_discard.c BLKDISCARD, on a worker                     its reactor
 */
#ifndef SLUICE_BACKENDS_FILE_IMPL_H
#define SLUICE_BACKENDS_FILE_IMPL_H

#include <liburing.h>

#include "backends/file/bdev_file.h"
#include "base/compiler.h"
#include "base/log.h"
#include "reactor/worker.h"

struct file_bdev {
	struct bdev bdev;
	char *filename;
	int fd;
	enum bdev_file_dialect dialect;
	bool device;
	bool direct;
	bool buffered_wanted;
	bool migratable;       /* locked while active, not while open */
	bool cut_wanted;       /* the file is ours to cut when the disk has shrunk */
	uint32_t memory_align; /* of buffers; 1 when not direct */
	uint32_t offset_align; /* of offsets and lengths; 1 when not direct */

	/* Learnt by any reactor, relaxed. They only ever go from false to true. */
	bool flush_failed; /* the kernel tells only once that writes were lost: we remember */
	bool no_punch;
	bool no_zero_range;

	/* The disk's, not the channel's: a guest can make new channels at will. */
	struct log_limit log;
	bool log_busy; /* taken by the reactor that is using log */
};

static inline struct file_bdev *file_bdev(const struct bdev *bdev)
{
	return container_of((struct bdev *)(uintptr_t)bdev, struct file_bdev, bdev);
}

/* ---- opening ----------------------------------------------------------------------------- */

struct file_geometry {
	uint64_t size_bytes;
	uint32_t block_size_bytes;
	uint32_t physical_block_size_bytes;
	uint32_t optimal_io_bytes;
	uint64_t discard_max_bytes; /* 0: none */
	uint32_t discard_granularity_bytes;
	bool rotational;
};

/* Opens and locks the file named in options, and finds out what it is. Fills fd, device, direct and
 * the aligns of file. 0, or -errno with a sentence in error and nothing left open. */
int file_open(struct file_bdev *file, const struct bdev_file_options *options,
	      struct file_geometry *geometry, char *error, size_t error_bytes);

/* Takes the lock that keeps other owners out, shared for readers: 0, -EBUSY, or another -errno.
 * In-flight I/O keeps the open file, and so the lock, which is what lets a successor trust it. */
int file_lock(const struct file_bdev *file, bool read_only);

int file_reserve(struct bdev *bdev, uint64_t block_count);
void file_settle(struct bdev *bdev);

/* ---- bounce buffers ---------------------------------------------------------------------- */

#define FILE_BOUNCE_COUNT 32
#define FILE_BOUNCE_BYTES (128u << 10)

struct file_bounce {
	char *base; /* FILE_BOUNCE_COUNT buffers; pages are resident once touched */
	uint8_t free[FILE_BOUNCE_COUNT];
	unsigned int free_count;
	struct bdev_io *waiting_first;
	struct bdev_io **waiting_last;
};

int file_bounce_init(struct file_bounce *bounce);
void file_bounce_fini(struct file_bounce *bounce);
/* A buffer's number, or -1 with io in the queue for one. */
int file_bounce_get(struct file_bounce *bounce, struct bdev_io *io);
/* Gives a buffer back. Returns an I/O that waited for one and now owns this very buffer, or NULL.
 */
struct bdev_io *file_bounce_put(struct file_bounce *bounce, int index);
static inline char *file_bounce_buffer(const struct file_bounce *bounce, int index)
{
	return bounce->base + (size_t)index * FILE_BOUNCE_BYTES;
}

/* ---- the ring ---------------------------------------------------------------------------- */

/* In flight in the kernel at most; the completion queue has as many places, so that it cannot
 * overflow. What is more waits in the pending list. */
#define FILE_RING_INFLIGHT_MAX 4096
/* Prepared between two system calls. */
#define FILE_RING_SQ_COUNT 256
/* Registered files: channels beyond this use plain fds, which cost a little more. */
#define FILE_RING_FILE_COUNT 1024

/* One a reactor, shared by all its file disks, so that a hundred disks cost one ring and one
 * system call a batch. Lives from the reactor's first file channel to its last. */
struct file_ring {
	struct io_uring uring;
	struct reactor *reactor;
	struct poller poller;
	struct reactor_deferred submit;
	uint32_t inflight_count;
	uint32_t channel_count;
	struct bdev_io *pending_first;
	struct bdev_io **pending_last;
	bool issuing; /* those that waited are let in */
	struct file_bounce bounce;
	struct reactor_fd event; /* wakes the poller while it is parked */
	struct log_limit log;
	uint16_t *file_free; /* stack of free places in the registered table */
	uint32_t file_free_count;
};

/* Which kernel features a ring is made with: the first is the best, each other a fallback. */
enum file_ring_level {
	FILE_RING_DEFER, /* Linux 6.1: completions are run when we ask for them */
	FILE_RING_COOP,  /* Linux 5.19: without interrupting us */
	FILE_RING_PLAIN,
	FILE_RING_LEVEL_COUNT,
};
/* For tests: start at this level. Before the first channel of a reactor. */
extern enum file_ring_level file_ring_first_level;

/* The ring of the calling reactor, made if need be: 0 or -errno. */
int file_ring_get(struct reactor *reactor, struct file_ring **out);
void file_ring_put(struct file_ring *ring);
/* A place for fd in the table of registered files: its index, or -1 if there is none. */
int file_ring_add_file(struct file_ring *ring, int fd);
void file_ring_remove_file(struct file_ring *ring, int index);
/* A request to fill in, which will be submitted at the end of the iteration and end in
 * file_io_done(); or NULL: then io is in the pending list, and file_io_issue() will be called
 * again. */
struct io_uring_sqe *file_ring_sqe(struct file_ring *ring, struct bdev_io *io);

/* ---- I/O --------------------------------------------------------------------------------- */

struct file_channel {
	struct file_ring *ring;
	int sqe_fd; /* the fd, or its index with IOSQE_FIXED_FILE */
	uint8_t sqe_flags;
	uint32_t base_mask; /* bits that must not be set in an iov_base ... */
	uint32_t len_mask;  /* ... and in an iov_len, or the I/O is bounced */

	/* BLKDISCARD: one at a time. */
	struct worker_job discard_job;
	struct bdev_channel *channel;
	uint64_t discard_range[2];
	int discard_rc;
	struct bdev_io *discard_first; /* the one under way, then those that wait */
	struct bdev_io **discard_last;
};

enum file_step {
	FILE_STEP_PLAIN,      /* read or write the guest's own memory */
	FILE_STEP_BOUNCE,     /* ... through a bounce buffer */
	FILE_STEP_SYNC,       /* fdatasync */
	FILE_STEP_DISCARD,    /* make a hole, as advice */
	FILE_STEP_PUNCH_ZERO, /* zero by a hole */
	FILE_STEP_ZERO_RANGE, /* zero, and keep the space */
	FILE_STEP_ZERO_WRITE, /* zero by writing */
};

/* What backend_ctx holds: how far an I/O has come. */
struct file_io {
	uint64_t done_bytes;
	uint64_t iov_done_bytes; /* of iovs[iov_index] */
	uint32_t iov_index;
	int16_t bounce_index; /* -1: none */
	uint8_t step;
	uint8_t retry_count;
};
_Static_assert(sizeof(struct file_io) <= sizeof(((struct bdev_io *)0)->backend_ctx), "");

static inline struct file_io *file_io(struct bdev_io *io)
{
	return (struct file_io *)io->backend_ctx;
}

static inline struct file_channel *file_channel(const struct bdev_io *io)
{
	return (struct file_channel *)io->channel->ctx;
}

/* True when a line about this file may be logged now. Any reactor. */
bool file_log_pass(struct file_bdev *file);
void file_submit(struct bdev_channel *channel, struct bdev_io *io);
/* Asks the kernel for the next step of an I/O. */
void file_io_issue(struct bdev_io *io);
/* The kernel has answered: res as of the system call. */
void file_io_done(struct bdev_io *io, int res);

/* Fills a request for the step that the I/O is at. */
void file_io_prep(struct bdev_io *io, const struct file_io *state, struct io_uring_sqe *sqe,
		  int fd);
/* Moves the place in the iovecs on. */
void file_io_advance(struct bdev_io *io, struct file_io *state, uint64_t len_bytes);
/* Copies the next len_bytes between the iovecs and buf, as io's type says; the place stays. */
void file_io_copy(const struct bdev_io *io, const struct file_io *state, char *buf,
		  uint64_t len_bytes);

void file_discard_init(struct bdev_channel *channel);
void file_discard_device(struct bdev_io *io);

#endif
