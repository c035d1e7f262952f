/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty logging of a session: on while VHOST_F_LOG_ALL is among its features and it has a log.
 * Going on and off does not stop a queue. Control thread.
 */
#include <errno.h>

#include "vhost/session.h"

struct dirty_log *session_active_log(const struct vhost_session *session)
{
	return session->features >> VHOST_F_LOG_ALL & 1 ? session->log : NULL;
}

void session_log_update(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++) {
		if (session->queues[i].run != NULL)
			session_queue_set_log(&session->queues[i], session_active_log(session));
	}
}

/* No queue uses the old log any longer. */
static int finish_log(struct vhost_session *session)
{
	dirty_log_destroy(session->log_old);
	session->log_old = NULL;
	/* The front-end waits for a reply, whatever it says, before it looks at the log. */
	session->reply.payload.u64 = 0;
	session->reply_bytes = sizeof(session->reply.payload.u64);
	return 0;
}

int session_log_set_base(struct vhost_session *session, const char **why)
{
	const struct vhost_user_log *given = &session->message.payload.log;
	struct dirty_log *log;

	if (session->fd_count != 1) {
		*why = "one fd is needed";
		return -EINVAL;
	}
	int rc = dirty_log_map(session->fds[0], given->mmap_offset, given->mmap_size_bytes, &log);
	if (rc < 0) {
		*why = "the log cannot be mapped";
		return rc;
	}
	session->log_old = session->log;
	session->log = log;
	session_log_update(session);
	session->then = finish_log;
	return 0;
}

/* The eventfd that tells of new dirty pages: front-ends poll the log instead, and so it only has
 * to be taken off the wire. */
int session_log_set_fd(struct vhost_session *session, const char **why)
{
	if (session->fd_count != 1) {
		*why = "one fd is needed";
		return -EINVAL;
	}
	return 0;
}
