/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to call a driver that wants to be called: at once, or together with completions that are
 * about to follow. Decisions only; vhost_queue.c sends.
 *
 * What is complete is always published at once: a driver that looks sees it. Only the write to the
 * call eventfd waits, never longer than its bound, and never beyond the moment at which the queue's
 * poller rests or the queue stops.
 *
 *   adaptive  the default. A call waits only while at least VHOST_CALL_DEEP requests are in flight
 *             and calls come close behind one another, until an eighth of those requests has
 *             completed, at most VHOST_CALL_HOLD_NS. By Little's law that adds no more than about
 *             an eighth to the latency of a request, and nothing to a queue of low depth.
 *   fixed     vhost_controller_set_coalescing: above a rate of requests, calls keep a distance
 *             that grows with the rate up to a bound.
 *   none      every batch calls at once.
 *
 * Pure but for its own state, which is the reactor's; the settings are written by the control
 * thread at any time.
 */
#ifndef SLUICE_VHOST_VHOST_CALL_H
#define SLUICE_VHOST_VHOST_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "vhost/vhost.h"

#define VHOST_CALL_DEEP 8u
#define VHOST_CALL_HOLD_NS 32000ull
/* Calls further apart than this are no stream: there is nothing to win. */
#define VHOST_CALL_CLOSE_NS 100000ull
/* Over which the rate of requests is measured. */
#define VHOST_CALL_RATE_NS 10000000ull

struct vhost_call {
	int fd;             /* -1: none. Owned. */
	bool held;          /* the driver wants a call that was not sent yet */
	uint32_t wait_left; /* adaptive: completions until it is sent */
	uint64_t due_ticks; /* while held */
	uint64_t sent_ticks;
	/* fixed: the rate, measured now and then. */
	uint64_t rate_ticks;
	uint64_t rate_request_count;
	uint64_t distance_ticks; /* between calls, by that rate */

	/* The control thread's. */
	uint32_t mode; /* enum vhost_coalescing_mode */
	uint32_t iops_threshold;
	uint64_t delay_base_ticks;
};

void vhost_call_init(struct vhost_call *call);
/* Any moment. */
void vhost_call_set(struct vhost_call *call, const struct vhost_coalescing *coalescing);

/* What the queue knows when a batch is given back. */
struct vhost_call_batch {
	uint32_t count;          /* completed */
	uint32_t inflight_count; /* not completed yet */
	uint64_t request_count;  /* taken since the queue was made */
	uint64_t now_ticks;
};
/* The driver wants to be called for a batch: true if now, false if the call is held. */
bool vhost_call_wanted(struct vhost_call *call, const struct vhost_call_batch *batch);
/* Another batch while a call is held, wanted or not: true if it is to be sent now. */
bool vhost_call_more(struct vhost_call *call, const struct vhost_call_batch *batch);
/* While a call is held: true if it has waited long enough. */
static inline bool vhost_call_is_due(const struct vhost_call *call, uint64_t now_ticks)
{
	return (int64_t)(now_ticks - call->due_ticks) >= 0;
}
/* The call is being sent. */
static inline void vhost_call_sent(struct vhost_call *call, uint64_t now_ticks)
{
	call->held = false;
	call->sent_ticks = now_ticks;
}

/* The distance between calls at a rate: 0 up to the threshold, growing to delay_base_ticks at twice
 * the threshold. */
uint64_t vhost_call_distance(uint64_t delay_base_ticks, uint32_t iops_threshold, uint64_t iops);

#endif
