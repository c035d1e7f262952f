/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving running queues between reactors while their I/O runs. A queue is stopped where it is (what
 * is in flight ends and is published first) and started elsewhere at the same place of its ring;
 * kicks that came in between are seen since the new reactor looks at the ring at once, and at the
 * eventfd, which keeps them. Control thread.
 */
#include <errno.h>

#include "base/assert.h"
#include "vhost/session.h"

static void end_move(struct session_queue *queue, int result)
{
	struct session_move move = queue->move;

	if (move.state == MOVE_UNDER_WAY)
		controller_end_serving(queue->session->controller);
	queue->move = (struct session_move){.state = MOVE_NONE};
	if (move.done != NULL)
		move.done(move.arg, result);
}

int session_move_queue(struct session_queue *queue, unsigned int reactor_index,
		       void (*done)(void *arg, int result), void *arg)
{
	struct vhost_session *session = queue->session;

	if (session->closing || queue->run == NULL)
		return -ENOENT;
	if (queue->move.state != MOVE_NONE)
		return -EBUSY;
	queue->move = (struct session_move){
		.state = MOVE_WANTED,
		.to = reactor_index,
		.done = done,
		.arg = arg,
	};
	session->moves_wanted++;
	session_moves_begin(session);
	return 0;
}

/* True if the queue has to be stopped for it. */
static bool begin_move(struct session_queue *queue)
{
	struct session_move *move = &queue->move;

	if (queue->run == NULL) {
		end_move(queue, -ECANCELED);
		return false;
	}
	if (move->to == queue->reactor_index) {
		end_move(queue, 0);
		return false;
	}
	/* The mask may have changed since the move was asked for. */
	if (!placement_allowed(queue->session->controller->cpu_mask, move->to)) {
		end_move(queue, -ECANCELED);
		return false;
	}
	/* The storage stays ours while the queue is nowhere; it is in use, so this cannot fail. */
	int rc = controller_begin_serving(queue->session->controller);
	ensure(rc == 0);
	move->state = MOVE_UNDER_WAY;
	move->from = queue->reactor_index;
	session_hold(queue);
	return true;
}

/* Begins what is wanted. True if any queue has to be stopped. */
static bool begin_moves(struct vhost_session *session)
{
	bool any = false;

	session->moves_wanted = 0;
	for (uint32_t i = 0; i < session->queue_count; i++) {
		if (session->queues[i].move.state == MOVE_WANTED)
			any |= begin_move(&session->queues[i]);
	}
	return any;
}

void session_moves_begin(struct vhost_session *session)
{
	while (session->moves_wanted > 0 && !session->busy && !session->closing) {
		/* Busy while moves are refused: done may ask for the next one, or close the
		 * session. */
		session->busy = true;
		if (begin_moves(session) && !session->closing) {
			session->moving = true;
			session_mute(session);
			session_settle(session);
			return;
		}
		session->busy = false;
	}
}

void session_moves_finish(struct vhost_session *session)
{
	bool any = false;

	/* Busy until all are told, as above. */
	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		if (queue->move.state != MOVE_UNDER_WAY)
			continue;
		int result = queue->move.result;
		if (result == 0) {
			any = true;
			queue->move_count++;
			queue->placed = true;
			placement_count_move(queue->move.from, queue->move.to);
		}
		end_move(queue, result);
	}
	session->busy = false;
	session->moving = false;
	if (session->closing)
		return;
	session_unmute(session);
	/* The mask may have changed meanwhile. Not after failures: they would repeat for ever. */
	if (any)
		placement_enforce(session);
	session_moves_begin(session);
}

void session_moves_cancel(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++) {
		if (session->queues[i].move.state != MOVE_NONE)
			end_move(&session->queues[i], -ECANCELED);
	}
}

/* A queue whose driver broke the rules is not read again on the new reactor either. */
void session_move_save(struct session_queue *queue)
{
	struct session_move *move = &queue->move;

	if (move->state != MOVE_UNDER_WAY)
		return;
	move->stats = queue->run->stats;
	move->broken_why = queue->run->vq.broken ? queue->run->vq.broken_why : NULL;
}

void session_move_restore(struct session_queue *queue)
{
	const struct session_move *move = &queue->move;

	if (move->state != MOVE_UNDER_WAY)
		return;
	queue->run->stats = move->stats;
	if (move->broken_why != NULL)
		virtqueue_break(&queue->run->vq, move->broken_why);
}
