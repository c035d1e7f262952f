/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block device contract: what a back-end implements and what a front-end may ask of it.
 *
 * Life: the control thread creates a bdev (through a back-end's own constructor), opens it for a
 * front-end, and destroys it. A front-end takes one channel a reactor, on that reactor's thread,
 * and submits I/O through it; an I/O begins and ends on the reactor of its channel. Nothing on
 * that path locks or allocates.
 *
 * Addresses are bytes from the start of the device and multiples of block_size_bytes.
 * bdev_submit() (bdev_io.h) checks range, alignment, direction and support, so that back-ends need
 * not. It does not check lengths against discard_max_bytes and write_zeroes_max_bytes: those are
 * what a guest is told to stay within, and a back-end must take any length up to the whole disk.
 */
#ifndef SLUICE_BDEV_BDEV_H
#define SLUICE_BDEV_BDEV_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/list.h"
#include "reactor/reactor.h"
#include "reactor/worker.h"

enum bdev_io_type {
	BDEV_IO_READ,
	BDEV_IO_WRITE,
	BDEV_IO_FLUSH,        /* ends when every write that ended before it is on stable storage */
	BDEV_IO_DISCARD,      /* contents become undefined; space may be released */
	BDEV_IO_WRITE_ZEROES, /* reads as zeroes afterwards */
	BDEV_IO_TYPE_COUNT,
};
const char *bdev_io_type_name(enum bdev_io_type type);

/* The one vocabulary of outcomes. Front-ends map each value once to their own. */
enum bdev_status {
	BDEV_STATUS_OK,
	BDEV_STATUS_IO_ERROR, /* the medium, or what stands for it, failed */
	BDEV_STATUS_NO_SPACE, /* thin storage is full */
	BDEV_STATUS_OUT_OF_RANGE,
	BDEV_STATUS_MISALIGNED, /* offset or length is not a multiple of the block size */
	BDEV_STATUS_READ_ONLY,
	BDEV_STATUS_UNSUPPORTED,
	BDEV_STATUS_ABORTED, /* the device went away */
	BDEV_STATUS_COUNT,
};
const char *bdev_status_name(enum bdev_status status);
/* From the negative errno of a system call. */
enum bdev_status bdev_status_from_errno(int rc);

struct bdev;
struct bdev_channel;

/* WRITE_ZEROES only: the back-end may release the space (reads must still give zeroes). */
#define BDEV_IO_UNMAP 0x1u

/*
 * One request. The submitter owns the memory, fills the first group, and must leave all of it,
 * iovs and buffers included, alone until complete() is called; complete() may be called before
 * bdev_submit() returns.
 */
struct bdev_io {
	enum bdev_io_type type;
	uint32_t flags;
	const struct iovec *iovs; /* READ, WRITE; the lengths add up to len_bytes */
	uint32_t iov_count;
	uint64_t offset_bytes;
	uint64_t len_bytes;
	void (*complete)(struct bdev_io *io, enum bdev_status status);

	/* The bdev layer's and the back-end's while the I/O is under way. */
	struct bdev_channel *channel;
	uint64_t submit_ticks;
	struct bdev_io *next;
	uint64_t backend_ctx[4];
};

/* What a back-end can do, declared once at creation; the front-end hands it to the guest. The two
 * max fields say what is sensible in one request (and by 0 what is unsupported); longer ones are
 * carried out all the same. */
struct bdev_limits {
	uint32_t block_size_bytes;          /* logical: 512 or 4096 */
	uint32_t physical_block_size_bytes; /* >= block_size_bytes, a power of two */
	uint32_t optimal_io_bytes;          /* 0: not known */
	uint64_t discard_max_bytes;         /* 0: DISCARD unsupported */
	uint32_t discard_granularity_bytes;
	uint64_t write_zeroes_max_bytes; /* 0: unsupported */
	bool write_zeroes_unmap;         /* BDEV_IO_UNMAP releases space */
	bool read_only;
	bool volatile_write_cache; /* FLUSH means something */
	bool rotational;
};

struct bdev_ops {
	const char *driver; /* "null", "memory", "file" */
	/* Optional. Any thread, after the last close; may block: lets go of the storage. */
	void (*release)(struct bdev *bdev);
	/* Control thread, after that: frees the back-end's part and bdev itself. */
	void (*destroy)(struct bdev *bdev);
	/* On the channel's reactor. A channel is allocated by bdev.c with channel_ctx_bytes behind
	 * it; get returns 0 or -errno. put is called when no I/O of the channel is left. */
	int (*channel_get)(struct bdev_channel *channel);
	void (*channel_put)(struct bdev_channel *channel);
	/* Optional. Control thread, must not block: the first queue of a front-end is about to run,
	 * or the last one has stopped. What guards the storage against another owner may be taken
	 * as late and let go as early as this: 0, or -EBUSY if somebody else has it. */
	int (*activate)(struct bdev *bdev);
	void (*deactivate)(struct bdev *bdev);
	/* Begins a valid I/O. Ends it through bdev_io_complete(), now or later. */
	void (*submit)(struct bdev_channel *channel, struct bdev_io *io);
	/* Control thread: the back-end's part of bdev_get_bdevs' driver_specific, and the RPC
	 * method and parameters that create this bdev again (name and uuid excluded). */
	json_t *(*describe)(const struct bdev *bdev);
	json_t *(*config)(const struct bdev *bdev, const char **method);
};

#define BDEV_NAME_MAX 64

/* Counters of one channel: written by its reactor, read by anybody. Latency is measured between
 * the starts of the reactor's iterations (reactor_now_ticks), so what completes inside
 * bdev_submit() counts as 0. A cache line a type: an I/O touches one. */
struct bdev_type_stats {
	uint64_t op_count; /* ended by the back-end, with whatever status */
	uint64_t bytes;    /* of those that ended well */
	uint64_t ticks;    /* latency, summed */
	uint64_t max_ticks;
	uint64_t error_count; /* ended badly, or refused by bdev_submit() */
} CACHE_ALIGNED;
struct bdev_stats {
	struct bdev_type_stats types[BDEV_IO_TYPE_COUNT];
};

/* The base of every back-end's own structure. Fixed from bdev_register() on. */
struct bdev {
	struct list link;
	char name[BDEV_NAME_MAX];
	uuid_t uuid;
	const char *product; /* "Null disk" */
	const struct bdev_ops *ops;
	uint64_t block_count;
	struct bdev_limits limits;
	uint32_t channel_ctx_bytes;

	/* bdev.c's own */
	struct list opens;
	struct list channels;
	uint32_t active_count;           /* of bdev_activate() */
	struct bdev_stats stats_retired; /* of channels that are gone */
	struct worker_job release_job;
	void (*destroyed)(void *arg);
	void *destroyed_arg;
};

/* The first cache line is what an I/O reads; copied from the bdev so that submitting follows no
 * further pointer. Allocated by bdev_channel_alloc() only. */
struct bdev_channel {
	void (*submit)(struct bdev_channel *channel, struct bdev_io *io);
	struct reactor *reactor;
	uint64_t size_bytes;
	uint32_t block_mask; /* block_size_bytes - 1 */
	uint32_t type_mask;  /* bit per enum bdev_io_type that may be submitted */
	uint32_t inflight_count;
	bool started;
	struct bdev *bdev;
	struct bdev_open *open;
	struct list link; /* bdev's list of channels, for statistics; control thread */
	struct bdev_stats stats;
	char ctx[] __attribute__((aligned(16)));
} CACHE_ALIGNED;

/* ---- registry: control thread ------------------------------------------------------------ */

/* For constructors: zeroed memory for a back-end's structure, whose first member is its struct
 * bdev; to be freed with free(). NULL if there is none. */
void *bdev_alloc(size_t size_bytes);
/* For constructors: checks and stores the name, and the uuid if not NULL: 0 or -EINVAL. */
int bdev_set_identity(struct bdev *bdev, const char *name, const char *uuid);
/* Checks that name and uuid are new and limits are sane, and publishes the bdev: 0, -EEXIST,
 * -EINVAL. If uuid is null one is made. On failure bdev stays the caller's. */
int bdev_register(struct bdev *bdev);
/* Unregisters and destroys a bdev that nobody has open: 0, or -EBUSY. May block. */
int bdev_destroy(struct bdev *bdev);
/* The same from a reactor, without blocking: the name is free at once, and done is called when the
 * storage has been let go of, maybe at once. 0, or -EBUSY (done is not called). */
int bdev_destroy_start(struct bdev *bdev, void (*done)(void *arg), void *arg);
struct bdev *bdev_find(const char *name); /* by name or uuid; NULL */
/* In order of creation; NULL starts, NULL ends. */
struct bdev *bdev_next(const struct bdev *bdev);

/* True for 1 to BDEV_NAME_MAX - 1 of [A-Za-z0-9._:-], not starting with '-' or '.'. */
bool bdev_name_valid(const char *name);

static inline uint64_t bdev_size_bytes(const struct bdev *bdev)
{
	return bdev->block_count * bdev->limits.block_size_bytes;
}

/* ---- opening: control thread ------------------------------------------------------------- */

/* One writer, or any number of readers. */
struct bdev_open {
	struct list link;
	struct bdev *bdev;
	char owner[BDEV_NAME_MAX];
	bool writable;
	uint32_t channel_count;
};
/* 0; -ENODEV: no such bdev; -EBUSY: somebody writes, or somebody reads what is to be written (*who,
 * if who is not NULL, names the holder until it closes); -EROFS: a writable open of a read-only
 * bdev; -ENOMEM. *out is owned by the bdev layer until bdev_close(). */
int bdev_open(const char *name, const char *owner, bool writable, struct bdev_open **out,
	      const char **who);
/* All channels must have been freed. */
void bdev_close(struct bdev_open *open);

/* Before the first channel of an open is started, and after the last one was stopped. Counted per
 * bdev: 0, or what the back-end says, and then there may be no I/O. */
int bdev_activate(struct bdev_open *open);
void bdev_deactivate(struct bdev_open *open);

/* Sums the counters of all channels, past ones included. Control thread. */
void bdev_get_stats(const struct bdev *bdev, struct bdev_stats *out);

/* ---- I/O: reactor thread ----------------------------------------------------------------- */

/* Control thread: memory for a channel, linked for statistics; then on its reactor start, I/O,
 * stop (with no I/O in flight); then free on the control thread. */
int bdev_channel_alloc(struct bdev_open *open, struct reactor *reactor, struct bdev_channel **out);
int bdev_channel_start(struct bdev_channel *channel);
void bdev_channel_stop(struct bdev_channel *channel);
void bdev_channel_free(struct bdev_channel *channel);

/* bdev_submit() and, for back-ends, bdev_io_complete(): bdev/bdev_io.h. */

#endif
