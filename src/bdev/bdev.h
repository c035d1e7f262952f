/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block device contract: what a back-end implements and what a front-end may ask of it.
 *
 * Life: the control thread creates a bdev (through a back-end's own constructor), opens it for a
 * front-end, and destroys it. A front-end takes one channel a reactor, on that reactor's thread,
 * and submits I/O through it; an I/O begins and ends on the reactor of its channel. Nothing on
 * that path locks or allocates.
 *
 * A bdev may change its size and may go away while it is open (bdev_change.c). Both reach a channel
 * as a message to its reactor, and cost the path of an I/O nothing: the size is the channel's own,
 * and a channel of a disk that is gone allows no type of I/O.
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
	/* Resizing, both on the control thread; NULL where it is not possible. reserve, before any
	 * channel hears of it: finds storage for block_count blocks, more or fewer than there are.
	 * 0 or -errno. settle: every channel has the new size, and what only the old one needed may
	 * go (no I/O that was begun before is left if the disk has shrunk). */
	int (*reserve)(struct bdev *bdev, uint64_t block_count);
	void (*settle)(struct bdev *bdev);
	/* On the reactor of a started channel, after size_bytes has changed. May be NULL. */
	void (*channel_resize)(struct bdev_channel *channel);
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

/* A change of size, or the removal, that is under way: bdev_change.c's own. */
struct bdev_change {
	struct list link; /* of all bdevs that are changing */
	uint64_t block_count;
	uint32_t pending_count; /* channels that have not answered; one more while they are told */
	bool busy;
	bool settle;
	void (*done)(void *arg);
	void *arg;
};

/* The base of every back-end's own structure. Fixed from bdev_register() on, but for the size. */
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
	uint64_t block_count_next;       /* not 0: the size that is being changed to */
	bool removing;                   /* no part of the configuration, not to be opened */
	struct bdev_change change;
	struct worker_job release_job;
	void (*destroyed)(void *arg);
	void *destroyed_arg;
};

/* What the control thread has to tell a channel, one thing at a time: bdev_change.c's own. */
struct bdev_notice {
	struct reactor_msg msg;
	struct bdev *bdev;
	struct reactor *control;
	uint64_t size_bytes;
	bool remove;
	bool wait;  /* for the I/O under way */
	bool busy;  /* the control thread's: not answered yet */
	bool freed; /* the control thread's: by the owner of the channel meanwhile */
	/* The reactor's */
	struct reactor_timer timer;
	struct bdev_io *held_first; /* I/O that waits until older I/O has ended */
	struct bdev_io **held_last;
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
	bool gone; /* the disk is: everything ends with ABORTED, bdev and open are not to be used */
	struct bdev *bdev;
	struct bdev_open *open;
	struct list link; /* bdev's list of channels, for statistics; control thread */
	struct bdev_notice notice;
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
/* Unregisters and destroys a bdev that nobody has open: 0, or -EBUSY (or it is changing). May
 * block. */
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

/* The size that the configuration has to tell. */
static inline uint64_t bdev_config_block_count(const struct bdev *bdev)
{
	return bdev->block_count_next != 0 ? bdev->block_count_next : bdev->block_count;
}

/* ---- opening: control thread ------------------------------------------------------------- */

enum bdev_event {
	/* The size has changed, and every channel knows. */
	BDEV_EVENT_RESIZE,
	/* The disk is going away. The opener must not use open again, not even to close it, nor
	 * open->bdev. Its channels stay its own: I/O on them ends with ABORTED from now on, and
	 * they are stopped and freed as ever. */
	BDEV_EVENT_REMOVE,
};
struct bdev_open;
typedef void (*bdev_event_fn)(struct bdev_open *open, enum bdev_event event, void *arg);

/* One writer, or any number of readers. */
struct bdev_open {
	struct list link;
	struct bdev *bdev;
	char owner[BDEV_NAME_MAX];
	bool writable;
	uint32_t channel_count;
	bdev_event_fn event; /* NULL: a bdev so opened cannot be removed */
	void *event_arg;
};
/* 0; -ENODEV: no such bdev; -EBUSY: somebody writes, or somebody reads what is to be written (*who,
 * if who is not NULL, names the holder until it closes); -EROFS: a writable open of a read-only
 * bdev; -ENOMEM. *out is owned by the bdev layer until bdev_close(). */
int bdev_open(const char *name, const char *owner, bool writable, struct bdev_open **out,
	      const char **who);
/* All channels must have been freed. */
void bdev_close(struct bdev_open *open);
/* Has fn told of changes, on the control thread. */
void bdev_open_watch(struct bdev_open *open, bdev_event_fn fn, void *arg);

/* ---- changing: the control reactor ------------------------------------------------------- */

/* True while a change of size or the removal is under way: no other can begin. */
bool bdev_is_changing(const struct bdev *bdev);

/* The first half of a change of size, which may fail: finds storage. 0; -EINVAL: no size for a
 * disk; -EOPNOTSUPP; -EBUSY: changing; what the back-end says. After 0 bdev_resize() must follow,
 * with this size or, to undo, with that of before. */
int bdev_reserve(struct bdev *bdev, uint64_t block_count);
/* The second half; alone, with settle false, for storage that has changed its size by itself. New
 * I/O beyond a smaller size is refused at once. I/O that was begun before has ended when done is
 * called, well or badly. Then every opener has been told, if the size is another. done may be
 * called before this returns. The bdev must not be changing. */
void bdev_resize(struct bdev *bdev, uint64_t block_count, bool settle, void (*done)(void *arg),
		 void *arg);

/* Takes a bdev away, also from those that have it open (BDEV_EVENT_REMOVE): nobody finds it any
 * more, new I/O ends with ABORTED at once, I/O under way ends, channels are put, and the bdev is
 * destroyed. Then done is called, maybe before this returns. 0; -EBUSY: it is changing, or somebody
 * who has it open does not watch it. */
int bdev_remove(struct bdev *bdev, void (*done)(void *arg), void *arg);
/* Calls idle once no bdev is changing, maybe at once. */
void bdev_changes_wait(void (*idle)(void *arg), void *arg);

/* Before the first channel of an open is started, and after the last one was stopped. Counted per
 * bdev: 0, or what the back-end says, and then there may be no I/O. */
int bdev_activate(struct bdev_open *open);
void bdev_deactivate(struct bdev_open *open);

/* Sums the counters of all channels, past ones included. Control thread. */
void bdev_get_stats(const struct bdev *bdev, struct bdev_stats *out);

/* ---- I/O: reactor thread ----------------------------------------------------------------- */

/* Control thread: memory for a channel, linked for statistics; then on its reactor start, I/O,
 * stop (with no I/O in flight); then free on the control thread. open NULL makes a channel of a
 * disk that is gone. */
int bdev_channel_alloc(struct bdev_open *open, struct reactor *reactor, struct bdev_channel **out);
int bdev_channel_start(struct bdev_channel *channel);
void bdev_channel_stop(struct bdev_channel *channel);
void bdev_channel_free(struct bdev_channel *channel);

/* bdev_submit() and, for back-ends, bdev_io_complete(): bdev/bdev_io.h. */

#endif
