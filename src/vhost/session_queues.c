/* SPDX-License-Identifier: Apache-2.0 */
/* The queues of a session: which should run, and getting them there. Control thread. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "vhost/session.h"

int session_queues_create(struct vhost_session *session)
{
	uint32_t count = session->controller->queue_count;

	session->queues = calloc(count, sizeof(*session->queues));
	if (session->queues == NULL)
		return -ENOMEM;
	session->queue_count = count;
	for (uint32_t i = 0; i < count; i++) {
		session->queues[i].session = session;
		session->queues[i].kick_fd = -1;
		session->queues[i].call_fd = -1;
		session->queues[i].err_fd = -1;
	}
	return 0;
}

void session_queues_destroy(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		ensure(queue->run == NULL);
		fd_close(&queue->kick_fd);
		fd_close(&queue->call_fd);
		fd_close(&queue->err_fd);
	}
	free(session->queues);
	session->queues = NULL;
	session->queue_count = 0;
}

static uint32_t queue_index(const struct session_queue *queue)
{
	return (uint32_t)(queue - queue->session->queues);
}

/* ---- operations --------------------------------------------------------------------------- */

static struct vhost_queue_op *op_begin(struct session_queue *queue,
				       void (*done)(struct vhost_queue_op *op))
{
	queue->session->pending_count++;
	queue->op.queue = queue->run;
	queue->op.done = done;
	return &queue->op;
}

static void op_end(struct session_queue *queue)
{
	struct vhost_session *session = queue->session;

	ensure(session->pending_count > 0);
	if (--session->pending_count == 0)
		session_continue(session);
}

/* Takes back what the queue on the reactor had, and frees it. */
static void release_run(struct session_queue *queue)
{
	struct vhost_controller *controller = queue->session->controller;

	session_move_save(queue);
	queue->base = virtqueue_base(&queue->run->vq);
	/* All that was taken was given back, and the front-end hears where the ring stands, or sets
	 * it up anew. One that has left may know only its journal: a packed ring does not tell. */
	if (!queue->session->closing && virtqueue_resubmitted(&queue->run->vq))
		virtqueue_retire_journal(&queue->run->vq);
	queue->call_fd = queue->run->call.fd;
	controller->device->queue_destroy(queue->run);
	queue->run = NULL;
	balancer_remove(queue);
	session_journal_put(queue);
	controller_unplace_queue(controller, queue->reactor_index);
	controller_end_serving(controller);
}

static void on_stopped(struct vhost_queue_op *op)
{
	struct session_queue *queue = container_of(op, struct session_queue, op);

	release_run(queue);
	op_end(queue);
}

static void on_simple_done(struct vhost_queue_op *op)
{
	op_end(container_of(op, struct session_queue, op));
}

static void on_call_set(struct vhost_queue_op *op)
{
	fd_close(&op->call_fd);
	on_simple_done(op);
}

void session_queue_set_call(struct session_queue *queue, int call_fd)
{
	if (queue->run == NULL) {
		fd_close(&queue->call_fd);
		queue->call_fd = call_fd;
		return;
	}
	struct vhost_queue_op *op = op_begin(queue, on_call_set);
	op->call_fd = call_fd;
	vhost_queue_set_call(op);
}

void session_queue_set_memory(struct session_queue *queue, const struct mem_table *memory)
{
	struct vhost_queue_op *op = op_begin(queue, on_simple_done);

	op->mem = memory;
	vhost_queue_set_memory(op);
}

void session_queue_set_log(struct session_queue *queue, struct dirty_log *log)
{
	struct vhost_queue_op *op = op_begin(queue, on_simple_done);

	op->log = log;
	vhost_queue_set_log(op);
}

/* ---- starting and stopping ---------------------------------------------------------------- */

static bool has_feature(const struct vhost_session *session, unsigned int bit)
{
	return (session->features >> bit) & 1;
}

/* Where a ring lies here. False, and *why, if it is not all in guest memory or misaligned. */
static bool place_ring(const struct session_queue *queue, const struct mem_table *memory,
		       struct virtqueue_options *out, const char **why)
{
	bool packed = has_feature(queue->session, VIRTIO_F_RING_PACKED);

	out->desc = mem_table_translate_user(memory, queue->desc_user,
					     virtqueue_desc_bytes(queue->size));
	out->avail = mem_table_translate_user(memory, queue->avail_user,
					      virtqueue_avail_bytes(queue->size, packed));
	out->used = mem_table_translate_user(memory, queue->used_user,
					     virtqueue_used_bytes(queue->size, packed));
	if (out->desc == NULL || out->avail == NULL || out->used == NULL) {
		*why = "its ring is not in guest memory";
		return false;
	}
	/* Alignments of sections 2.7 and 2.8; indexes and elements are accessed whole. */
	if (((uintptr_t)out->desc & 15) != 0 || ((uintptr_t)out->avail & 1) != 0 ||
	    ((uintptr_t)out->used & 3) != 0) {
		*why = "its ring is misaligned";
		return false;
	}
	return true;
}

bool session_queue_same_place(const struct session_queue *queue, const struct mem_table *memory)
{
	struct virtqueue_options place;
	const char *why;

	return place_ring(queue, memory, &place, &why) && place.desc == queue->run->vq.desc &&
	       place.avail == queue->run->vq.avail && place.used == queue->run->vq.used;
}

/* The ring and its journal, on a queue that is placed. */
static int begin_ring(struct session_queue *queue, struct vhost_queue *run, const char **why)
{
	const struct vhost_session *session = queue->session;
	struct virtqueue_options options = {
		.mem = session->memory,
		.size = (uint16_t)queue->size,
		.base = queue->base,
		.packed = has_feature(session, VIRTIO_F_RING_PACKED),
		.event_idx = has_feature(session, VIRTIO_RING_F_EVENT_IDX),
		.indirect = has_feature(session, VIRTIO_RING_F_INDIRECT_DESC),
	};

	if (!place_ring(queue, session->memory, &options, why))
		return -EFAULT;
	*why = "its ring does not fit its journal or base";
	int rc = session_journal_get(queue, options.packed, &options.journal,
				     &options.journal_capacity);
	return rc < 0 ? rc : virtqueue_init(&run->vq, &options);
}

/* A queue of the device on a reactor, its ring begun. On failure nothing is left behind. */
static int make_run(struct session_queue *queue, unsigned int reactor_index,
		    struct vhost_queue **out, const char **why)
{
	struct vhost_session *session = queue->session;
	struct vhost_controller *controller = session->controller;

	*why = "another process has the storage";
	int rc = controller_begin_serving(controller);
	if (rc < 0)
		return rc;
	struct vhost_channel *channel = controller_place_queue(controller, reactor_index);
	*why = "no memory";
	rc = -ENOMEM;
	if (channel->bdev != NULL)
		rc = controller->device->queue_create(session, (uint16_t)queue->size, channel, out);
	if (rc < 0)
		goto unplace;
	rc = begin_ring(queue, *out, why);
	if (rc < 0)
		goto destroy;
	return 0;

destroy:
	controller->device->queue_destroy(*out);
	session_journal_put(queue);
unplace:
	controller_unplace_queue(controller, reactor_index);
	controller_end_serving(controller);
	return rc;
}

static void on_started(struct vhost_queue_op *op);

/* Puts a queue on a reactor: 0, or -errno and *why. */
static int start_on(struct session_queue *queue, unsigned int reactor_index, const char **why)
{
	struct vhost_session *session = queue->session;
	struct vhost_queue *run;

	int rc = make_run(queue, reactor_index, &run, why);
	if (rc < 0)
		return rc;
	run->reactor = vhost_reactors()->data[reactor_index];
	run->control = vhost_reactors()->control;
	run->controller_name = session->controller->name;
	run->index = (uint16_t)queue_index(queue);
	run->kick_watch.fd = queue->kick_fd;
	run->err_fd = queue->err_fd;
	run->log = session_active_log(session);
	run->call.fd = queue->call_fd;
	queue->call_fd = -1;
	vhost_queue_set_coalescing(run, &session->controller->coalescing);
	queue->reactor_index = reactor_index;
	queue->run = run;
	balancer_add(queue);
	session_move_restore(queue);
	vhost_queue_start(op_begin(queue, on_started));
	return 0;
}

/* The end of a move that failed: the queue goes back to where it served. False: there was none. */
static bool go_back(struct session_queue *queue, int rc)
{
	struct session_move *move = &queue->move;

	if (move->state != MOVE_UNDER_WAY || move->result < 0)
		return false;
	move->result = rc;
	move->to = move->from;
	return true;
}

static unsigned int choose_reactor(const struct session_queue *queue)
{
	const struct vhost_controller *controller = queue->session->controller;

	if (queue->move.state == MOVE_UNDER_WAY)
		return queue->move.to;
	if (queue->placed && placement_allowed(controller->cpu_mask, queue->reactor_index))
		return queue->reactor_index;
	return controller_choose_reactor(controller);
}

static void start_queue(struct session_queue *queue)
{
	const char *why;
	int rc = start_on(queue, choose_reactor(queue), &why);

	if (rc < 0 && go_back(queue, rc))
		rc = start_on(queue, queue->move.to, &why);
	if (rc < 0)
		session_close(queue->session, "queue %u cannot be started: %s (%s)",
			      queue_index(queue), why, strerror(-rc));
}

static void on_started(struct vhost_queue_op *op)
{
	struct session_queue *queue = container_of(op, struct session_queue, op);

	if (op->result < 0) {
		release_run(queue);
		if (!queue->session->closing && go_back(queue, op->result))
			start_queue(queue);
		else
			session_close(queue->session, "queue %u could not be started: %s",
				      queue_index(queue), strerror(-op->result));
	}
	op_end(queue);
}

static bool should_run(const struct session_queue *queue)
{
	const struct vhost_session *session = queue->session;
	/* Without protocol features rings start enabled ("Ring states"). */
	bool enabled = queue->enabled || !has_feature(session, VHOST_USER_F_PROTOCOL_FEATURES);

	return !session->closing && !queue->hold && enabled && queue->kick_set && queue->addr_set &&
	       queue->size > 0 && session->memory->slot_count > 0;
}

void session_settle(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		if (should_run(queue) == (queue->run != NULL))
			continue;
		if (queue->run != NULL)
			vhost_queue_stop(op_begin(queue, on_stopped));
		else
			start_queue(queue);
	}
}

void session_hold(struct session_queue *queue)
{
	queue->hold = true;
}

void session_hold_all(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++)
		session->queues[i].hold = true;
}

void session_release_holds(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++)
		session->queues[i].hold = false;
}
