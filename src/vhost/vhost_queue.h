/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running virtqueue on its reactor: the ring, its poller, kick and call, and what it takes to
 * stop it or to change its memory under way. Device models (blk) embed it first in their own
 * queue and bring poll() and the requests.
 *
 * The control thread makes it, hands it to a reactor by vhost_queue_start(), and gets it back by
 * the completion of vhost_queue_stop(). In between it belongs to the reactor; the control thread
 * speaks to it by struct vhost_queue_op.
 */
#ifndef SLUICE_VHOST_VHOST_QUEUE_H
#define SLUICE_VHOST_VHOST_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "bdev/bdev.h"
#include "memory/dirty_log.h"
#include "reactor/reactor.h"
#include "vhost/vhost_call.h"
#include "virtio/virtqueue.h"

struct vhost_queue;

/* The channel that the queues of one controller share on one reactor. */
struct vhost_channel {
	struct bdev_channel *bdev;
	uint32_t running_count;     /* queues started on it; the reactor's */
	uint32_t queue_count;       /* queues placed on it; the control thread's */
	struct log_limit log_limit; /* of what guests provoke; the reactor's */
};

/* A message from control to the reactor of a queue and back. One of a kind at a time. */
struct vhost_queue_op {
	struct reactor_msg msg;
	struct vhost_queue *queue;
	void (*done)(struct vhost_queue_op *op); /* on the control reactor */
	int result;                              /* 0 or -errno */
	union {
		const struct mem_table *mem; /* vhost_queue_set_memory() */
		int call_fd;                 /* vhost_queue_set_call(): in new, out old */
		struct dirty_log *log;       /* vhost_queue_set_log() */
	};
};

/* Written by the reactor, read by anybody. */
struct vhost_queue_stats {
	uint64_t request_count;
	uint64_t batch_count; /* polls that found something */
	uint64_t kick_count;  /* wake-ups by the driver */
	/* Batches given back, by what became of the call: */
	uint64_t call_count;            /* interrupts sent */
	uint64_t call_suppressed_count; /* not wanted by the driver */
	uint64_t call_coalesced_count;  /* part of a later call */
};

struct vhost_queue {
	struct virtqueue vq;
	struct vhost_channel *channel;
	struct reactor *reactor;
	/* In-flight requests, by the memory table that they were translated with: changing the
	 * table flips the epoch and waits for the other count to reach 0. */
	uint32_t inflight[2];
	uint8_t epoch;
	bool stopping;
	bool kick_polled;      /* no kick fd: never parks */
	struct dirty_log *log; /* the session's; NULL: no migration under way */
	struct vhost_call call;
	int err_fd; /* -1: none. Owned by the session. */
	struct poller poller;
	struct reactor_deferred publish;
	struct reactor_fd kick_watch; /* its fd is the session's */
	struct vhost_queue_op *stop_op;
	struct vhost_queue_op *memory_op;
	struct reactor *control;
	struct vhost_queue_stats stats;
	/* The rings of which disk, for log lines. */
	const char *controller_name;
	uint16_t index;
};

/* Fills what all device models share; vq is initialised apart. poll is the model's. */
void vhost_queue_init(struct vhost_queue *queue, unsigned int (*poll)(struct poller *poller));

/* ---- control thread: each sends op to the queue's reactor; op->done follows ---------------- */

/* Starts serving; kick_fd as in kick_watch.fd, -1 for kick_polled. result: from the channel. */
void vhost_queue_start(struct vhost_queue_op *op);
/* Takes no more requests, waits for those in flight, publishes them, and lets go. */
void vhost_queue_stop(struct vhost_queue_op *op);
/* Goes over to op->mem at once; done when no request uses the old table any longer. */
void vhost_queue_set_memory(struct vhost_queue_op *op);
/* Exchanges the call fd; op->call_fd is then the old one, the caller's again. The driver gets one
 * call through the new fd, for what it may have missed. */
void vhost_queue_set_call(struct vhost_queue_op *op);

/* How calls of the queue are held back from now on. At any moment of its life. */
void vhost_queue_set_coalescing(struct vhost_queue *queue,
				const struct vhost_coalescing *coalescing);
/* Keeps op->log, or with NULL none, from now on; marks what it has published so far. */
void vhost_queue_set_log(struct vhost_queue_op *op);

/* ---- for device models, on the reactor ----------------------------------------------------- */

/* Counts a request that was taken; remember the epoch for vhost_queue_complete(). */
static inline uint8_t vhost_queue_begin(struct vhost_queue *queue)
{
	queue->inflight[queue->epoch]++;
	return queue->epoch;
}

/* The cold end of vhost_queue_poll_call(). */
__attribute__((cold)) void vhost_queue_check_call(struct vhost_queue *queue);

/* First of all in every poll: sends a call that was held back long enough. */
static inline void vhost_queue_poll_call(struct vhost_queue *queue)
{
	if (unlikely(queue->call.held))
		vhost_queue_check_call(queue);
}

/* Logs what the device wrote into guest memory; to be called after the write, while log is set. */
static inline void vhost_queue_mark_dirty(struct vhost_queue *queue, const void *host, uint64_t len)
{
	dirty_log_mark_host(queue->log, queue->vq.mem, host, len);
}

/* The cold end of vhost_queue_complete(): stop or memory change may be done now. */
void vhost_queue_drained(struct vhost_queue *queue);

/* Gives a chain back to the driver; it is told at the end of the reactor's iteration. */
static inline void vhost_queue_complete(struct vhost_queue *queue, uint16_t head, uint8_t epoch,
					uint32_t written_bytes)
{
	virtqueue_push(&queue->vq, head, written_bytes);
	reactor_defer(queue->reactor, &queue->publish);
	if (--queue->inflight[epoch] == 0 &&
	    unlikely(queue->stop_op != NULL || queue->memory_op != NULL))
		vhost_queue_drained(queue);
}

/* Ends service of a queue whose driver broke the rules: one log line, the error eventfd, and no
 * further look at the ring. Requests in flight still complete. */
void vhost_queue_break(struct vhost_queue *queue);

#endif
