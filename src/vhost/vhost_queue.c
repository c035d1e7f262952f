/* SPDX-License-Identifier: Apache-2.0 */
/* Running virtqueues: start, stop, change of memory, kick and call. See vhost_queue.h. */
#include "vhost/vhost_queue.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"

/* The whole of what the device writes in a ring: a few pages, marked once a batch. */
__attribute__((cold)) static void mark_ring_dirty(struct vhost_queue *queue)
{
	const struct virtqueue *vq = &queue->vq;

	vhost_queue_mark_dirty(queue, vq->used, virtqueue_used_bytes(vq->size, vq->packed));
	if (vq->packed)
		vhost_queue_mark_dirty(queue, vq->desc, virtqueue_desc_bytes(vq->size));
}

/* ---- kick and call ------------------------------------------------------------------------ */

/* Edge-triggered and never read: every kick is an event, and costs no second system call. */
static void on_kick(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct vhost_queue *queue = container_of(watch, struct vhost_queue, kick_watch);

	(void)epoll_events;
	if (queue->poller.active)
		return;
	counter_add(&queue->stats.kick_count, 1);
	virtqueue_disable_kick(&queue->vq);
	if (queue->log != NULL)
		mark_ring_dirty(queue);
	poller_wake(&queue->poller);
}

static void send_call(struct vhost_queue *queue, uint64_t now_ticks)
{
	vhost_call_sent(&queue->call, now_ticks);
	if (queue->call.fd < 0)
		return;
	fd_eventfd_signal(queue->call.fd);
	counter_add(&queue->stats.call_count, 1);
}

/* Nobody will look after a held call from now on. */
static void flush_call(struct vhost_queue *queue)
{
	if (queue->call.held)
		send_call(queue, ticks_now());
}

void vhost_queue_check_call(struct vhost_queue *queue)
{
	uint64_t now = reactor_now_ticks(queue->reactor);

	if (vhost_call_is_due(&queue->call, now))
		send_call(queue, now);
}

static bool queue_park(struct poller *poller)
{
	struct vhost_queue *queue = container_of(poller, struct vhost_queue, poller);

	if (queue->kick_polled)
		return false;
	flush_call(queue);
	if (queue->stopping || queue->vq.broken)
		return true;
	if (queue->log != NULL)
		mark_ring_dirty(queue);
	if (virtqueue_enable_kick(&queue->vq))
		return true;
	virtqueue_disable_kick(&queue->vq);
	return false;
}

/* A call is held only while the poller looks after it: a parked one is woken for that. False if the
 * queue is being stopped, or only polls when something happens. */
static bool keep_polling(struct vhost_queue *queue)
{
	if (likely(queue->poller.active))
		return true;
	if (queue->stopping || reactor_mode(queue->reactor) == REACTOR_POLL_NEVER)
		return false;
	virtqueue_disable_kick(&queue->vq);
	if (queue->log != NULL)
		mark_ring_dirty(queue);
	poller_wake(&queue->poller);
	return true;
}

/* A batch was published whose driver wants a call, or waits for one that is held. */
static void decide_call(struct vhost_queue *queue, uint32_t count)
{
	/* Not the start of the iteration, which may have been a long one. */
	const struct vhost_call_batch batch = {
		.count = count,
		.inflight_count = queue->inflight[0] + queue->inflight[1],
		.request_count = queue->stats.request_count,
		.now_ticks = ticks_now(),
	};
	bool now = queue->call.held ? vhost_call_more(&queue->call, &batch)
				    : vhost_call_wanted(&queue->call, &batch);

	if (now || !keep_polling(queue))
		send_call(queue, batch.now_ticks);
	else
		counter_add(&queue->stats.call_coalesced_count, 1);
}

static void publish(struct reactor_deferred *deferred)
{
	struct vhost_queue *queue = container_of(deferred, struct vhost_queue, publish);
	uint32_t count = queue->vq.pushed_count;

	if (count == 0)
		return;
	bool call = virtqueue_publish(&queue->vq);
	if (unlikely(queue->log != NULL))
		mark_ring_dirty(queue);
	if (call || queue->call.held)
		decide_call(queue, count);
	else
		counter_add(&queue->stats.call_suppressed_count, 1);
}

void vhost_queue_break(struct vhost_queue *queue)
{
	/* A guest that restarts its queue can come here again and again. */
	log_limited(&queue->channel->log_limit, LOG_LEVEL_WARN, "%s: queue %u stopped: %s",
		    queue->controller_name, queue->index, queue->vq.broken_why);
	if (queue->err_fd >= 0)
		fd_eventfd_signal(queue->err_fd);
}

/* ---- operations of the control thread ------------------------------------------------------ */

static void op_done(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);

	op->done(op);
}

static void op_reply(struct vhost_queue_op *op, int result)
{
	op->result = result;
	op->msg.fn = op_done;
	reactor_send(op->queue->control, &op->msg);
}

static void op_send(struct vhost_queue_op *op, void (*fn)(struct reactor_msg *msg))
{
	op->msg.fn = fn;
	reactor_send(op->queue->reactor, &op->msg);
}

static int channel_use(struct vhost_channel *channel)
{
	if (channel->running_count == 0) {
		int rc = bdev_channel_start(channel->bdev);
		if (rc < 0)
			return rc;
	}
	channel->running_count++;
	return 0;
}

static void channel_unuse(struct vhost_channel *channel)
{
	if (--channel->running_count == 0)
		bdev_channel_stop(channel->bdev);
}

static void start_on_reactor(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);
	struct vhost_queue *queue = op->queue;

	int rc = channel_use(queue->channel);
	if (rc < 0) {
		op_reply(op, rc);
		return;
	}
	queue->kick_polled = queue->kick_watch.fd < 0;
	if (!queue->kick_polled) {
		rc = reactor_fd_add(queue->reactor, &queue->kick_watch, EPOLLIN | EPOLLET);
		if (rc < 0) {
			channel_unuse(queue->channel);
			op_reply(op, rc);
			return;
		}
	}
	virtqueue_disable_kick(&queue->vq);
	poller_start(queue->reactor, &queue->poller);
	/* A predecessor may have died between publishing and calling. */
	send_call(queue, ticks_now());
	op_reply(op, 0);
}

void vhost_queue_start(struct vhost_queue_op *op)
{
	op_send(op, start_on_reactor);
}

/* Last things of a stop, when nothing is in flight. */
static void finish_stop(struct vhost_queue *queue)
{
	struct vhost_queue_op *op = queue->stop_op;

	queue->stop_op = NULL;
	/* What was completed in this iteration is not published yet. */
	publish(&queue->publish);
	channel_unuse(queue->channel);
	op_reply(op, 0);
}

static void finish_memory(struct vhost_queue *queue)
{
	struct vhost_queue_op *op = queue->memory_op;

	queue->memory_op = NULL;
	op_reply(op, 0);
}

/* A queue that is let go must not be on the reactor's deferred list: the check runs as deferred
 * work itself, behind whatever this iteration still does with the queue. */
static void drained_deferred(struct reactor_deferred *deferred)
{
	struct vhost_queue *queue = container_of(deferred, struct vhost_queue, publish);

	deferred->fn = publish;
	publish(deferred);
	if (queue->memory_op != NULL && queue->inflight[!queue->epoch] == 0)
		finish_memory(queue);
	if (queue->stop_op == NULL || queue->inflight[0] + queue->inflight[1] > 0)
		return;
	/* What a predecessor took counts as in flight, too. Completions come back here. */
	if (!virtqueue_resubmitted(&queue->vq) && queue->poller.poll(&queue->poller) > 0)
		return;
	finish_stop(queue);
}

void vhost_queue_drained(struct vhost_queue *queue)
{
	queue->publish.fn = drained_deferred;
	reactor_defer(queue->reactor, &queue->publish);
}

static void stop_on_reactor(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);
	struct vhost_queue *queue = op->queue;

	ensure(queue->stop_op == NULL);
	/* What a predecessor left behind is in the journal and behind the base alike: it has to be
	 * taken before the ring can be said to stand anywhere. A batch of it an iteration. */
	if (queue->vq.resubmit_index < queue->vq.resubmit_count && !queue->vq.broken) {
		poller_wake(&queue->poller);
		reactor_send(queue->reactor, &op->msg);
		return;
	}
	queue->stopping = true;
	queue->stop_op = op;
	reactor_fd_remove(&queue->kick_watch);
	poller_stop(&queue->poller);
	flush_call(queue);
	vhost_queue_drained(queue);
}

void vhost_queue_stop(struct vhost_queue_op *op)
{
	op_send(op, stop_on_reactor);
}

static void set_memory_on_reactor(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);
	struct vhost_queue *queue = op->queue;

	ensure(queue->memory_op == NULL);
	ensure(queue->inflight[!queue->epoch] == 0);
	queue->memory_op = op;
	queue->vq.mem = op->mem;
	queue->epoch = !queue->epoch;
	vhost_queue_drained(queue);
}

void vhost_queue_set_memory(struct vhost_queue_op *op)
{
	op_send(op, set_memory_on_reactor);
}

static void set_call_on_reactor(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);
	struct vhost_queue *queue = op->queue;
	int old = queue->call.fd;

	queue->call.fd = op->call_fd;
	op->call_fd = old;
	send_call(queue, ticks_now());
	op_reply(op, 0);
}

static void set_log_on_reactor(struct reactor_msg *msg)
{
	struct vhost_queue_op *op = container_of(msg, struct vhost_queue_op, msg);
	struct vhost_queue *queue = op->queue;

	queue->log = op->log;
	if (queue->log != NULL)
		mark_ring_dirty(queue);
	op_reply(op, 0);
}

void vhost_queue_set_log(struct vhost_queue_op *op)
{
	op_send(op, set_log_on_reactor);
}

void vhost_queue_set_call(struct vhost_queue_op *op)
{
	op_send(op, set_call_on_reactor);
}

void vhost_queue_set_coalescing(struct vhost_queue *queue,
				const struct vhost_coalescing *coalescing)
{
	vhost_call_set(&queue->call, coalescing);
}

void vhost_queue_init(struct vhost_queue *queue, unsigned int (*poll)(struct poller *poller))
{
	vhost_call_init(&queue->call);
	queue->err_fd = -1;
	queue->kick_watch.fd = -1;
	queue->kick_watch.fn = on_kick;
	queue->poller.poll = poll;
	queue->poller.park = queue_park;
	queue->publish.fn = publish;
}
