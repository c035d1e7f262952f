/* SPDX-License-Identifier: Apache-2.0 */
/* Life of a session: its socket, reading and answering messages, closing. Control thread. */
#include "vhost/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/assert.h"

#define HEADER_BYTES sizeof(struct vhost_user_header)

static void close_message_fds(struct vhost_session *session)
{
	for (size_t i = 0; i < session->fd_count; i++)
		fd_close(&session->fds[i]);
	session->fd_count = 0;
}

/* ---- closing ------------------------------------------------------------------------------ */

static void session_free(struct vhost_session *session)
{
	struct vhost_controller *controller = session->controller;

	ensure(session->pending_count == 0);
	session_moves_cancel(session);
	session_queues_destroy(session);
	mem_table_destroy(session->memory);
	mem_table_destroy(session->memory_next);
	session_inflight_fini(session);
	dirty_log_destroy(session->log);
	dirty_log_destroy(session->log_old);
	fd_close(&session->reply_fd);
	list_remove(&session->link);
	free(session);
	controller_session_gone(controller);
}

/* When no operation is under way any more: lets go of the queues, then of the rest. */
static void advance_closing(struct reactor_deferred *deferred)
{
	struct vhost_session *session = container_of(deferred, struct vhost_session, close_work);

	if (session->pending_count > 0)
		return;
	session_hold_all(session);
	session_settle(session);
	if (session->pending_count == 0)
		session_free(session);
}

void session_close(struct vhost_session *session, const char *fmt, ...)
{
	char why[256];
	va_list args;

	if (session->closing)
		return;
	va_start(args, fmt);
	vsnprintf(why, sizeof(why), fmt, args);
	va_end(args);
	log_limited(&session->controller->log_limit, LOG_LEVEL_INFO, "%s: session %lu ended: %s",
		    session->controller->name, session->id, why);
	session->closing = true;
	reactor_fd_remove(&session->socket);
	fd_close(&session->socket.fd);
	session_backend_close(session);
	close_message_fds(session);
	reactor_defer(vhost_reactors()->control, &session->close_work);
}

/* ---- one thing at a time ------------------------------------------------------------------ */

/* What the front-end has sent already must not keep the control thread awake. */
void session_mute(struct vhost_session *session)
{
	session->muted = true;
	reactor_fd_modify(&session->socket, EPOLLRDHUP);
}

void session_unmute(struct vhost_session *session)
{
	if (!session->muted)
		return;
	session->muted = false;
	reactor_fd_modify(&session->socket, EPOLLIN | EPOLLRDHUP);
}

/* ---- answering ---------------------------------------------------------------------------- */

static int send_reply(struct vhost_session *session, uint32_t payload_bytes)
{
	struct vhost_user_header *header = &session->reply.header;
	size_t bytes = HEADER_BYTES + payload_bytes;

	header->request = session->message.header.request;
	header->flags = VHOST_USER_VERSION | VHOST_USER_REPLY_FLAG;
	header->size = payload_bytes;
	ssize_t n = fd_send(session->socket.fd, header, bytes, &session->reply_fd,
			    session->reply_fd >= 0 ? 1 : 0);
	/* Replies are small: a socket without room for one belongs to a client that does not
	 * read, and what came before cannot be taken back. */
	return n == (ssize_t)bytes ? 0 : n < 0 ? (int)n : -EAGAIN;
}

static bool wants_ack(const struct vhost_session *session)
{
	return (session->message.header.flags & VHOST_USER_NEED_REPLY_FLAG) &&
	       (session->protocol_features & (1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK)) &&
	       !message_has_reply(session->message.header.request);
}

/* Answers the message under way. */
static void finish_message(struct vhost_session *session)
{
	int rc = 0;

	session_release_holds(session);
	if (session->reply_bytes > 0) {
		rc = send_reply(session, session->reply_bytes);
	} else if (wants_ack(session)) {
		session->reply.payload.u64 = 0;
		rc = send_reply(session, sizeof(session->reply.payload.u64));
	}
	session->busy = false;
	session->received_bytes = 0;
	session->reply_bytes = 0;
	fd_close(&session->reply_fd);
	close_message_fds(session);
	session_unmute(session);
	if (rc < 0)
		session_close(session, "no reply could be sent: %s", strerror(-rc));
	session_moves_begin(session);
}

static void refuse_message(struct vhost_session *session, int rc, const char *why)
{
	const char *name = message_name(session->message.header.request);

	/* The nack tells the front-end that asked for one; a session whose state is in doubt
	 * ends all the same. */
	if (wants_ack(session)) {
		session->reply.payload.u64 = 1;
		send_reply(session, sizeof(session->reply.payload.u64));
	}
	session_close(session, "%s: %s (%s)", name, why, strerror(-rc));
}

void session_continue(struct vhost_session *session)
{
	while (session->pending_count == 0) {
		if (session->closing) {
			reactor_defer(vhost_reactors()->control, &session->close_work);
			return;
		}
		int (*then)(struct vhost_session *) = session->then;
		session->then = NULL;
		if (then != NULL) {
			int rc = then(session);
			if (rc < 0) {
				refuse_message(session, rc, "not carried out");
				return;
			}
			continue;
		}
		session_release_holds(session);
		session_settle(session);
		if (session->closing || session->pending_count > 0)
			return;
		if (session->moving)
			session_moves_finish(session);
		else if (session->busy)
			finish_message(session);
		return;
	}
}

/* ---- reading ------------------------------------------------------------------------------ */

static void handle_message(struct vhost_session *session)
{
	const char *why = "refused";

	session->busy = true;
	session->reply_bytes = 0;
	memset(&session->reply, 0, sizeof(session->reply));
	int rc = message_handle(session, &why);
	if (session->closing)
		return;
	if (rc < 0) {
		refuse_message(session, rc, why);
		return;
	}
	/* Stops what the handler holds; then, or now, goes on. */
	session_settle(session);
	if (session->closing)
		return;
	if (session->pending_count == 0)
		session_continue(session);
	/* While it waits for reactors. A move that began behind it has seen to that itself. */
	if (session->busy && !session->closing && !session->muted)
		session_mute(session);
}

/* How many bytes the message under way has in all; -EPROTO if its header is wrong. */
static int message_bytes(struct vhost_session *session, size_t *out)
{
	const struct vhost_user_header *header = &session->message.header;
	uint32_t min_bytes, max_bytes;

	*out = HEADER_BYTES;
	if (session->received_bytes < HEADER_BYTES)
		return 0;
	if (message_payload_bounds(header->request, &min_bytes, &max_bytes) < 0) {
		session_close(session, "unknown request %u", header->request);
		return -EPROTO;
	}
	if ((header->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
	    (header->flags & VHOST_USER_REPLY_FLAG)) {
		session_close(session, "%s: flags 0x%x are not those of a request",
			      message_name(header->request), header->flags);
		return -EPROTO;
	}
	if (header->size < min_bytes || header->size > max_bytes) {
		session_close(session, "%s: payload of %u bytes, not %u to %u",
			      message_name(header->request), header->size, min_bytes, max_bytes);
		return -EPROTO;
	}
	*out += header->size;
	return 0;
}

/* Reads on until the message is whole: 1; 0 when the socket has no more for now; -errno when the
 * session was closed. */
static int read_message(struct vhost_session *session)
{
	for (;;) {
		int fds[FD_PASS_MAX];
		size_t fd_count;
		size_t total;

		if (message_bytes(session, &total) < 0)
			return -EPROTO;
		if (session->received_bytes == total)
			return 1;
		ssize_t n = fd_recv(session->socket.fd,
				    (uint8_t *)&session->message.header + session->received_bytes,
				    total - session->received_bytes, MSG_DONTWAIT, fds, FD_PASS_MAX,
				    &fd_count);
		for (size_t i = 0; i < fd_count; i++) {
			if (session->fd_count < FD_PASS_MAX)
				session->fds[session->fd_count++] = fds[i];
			else
				fd_close(&fds[i]);
		}
		if (n == -EAGAIN)
			return 0;
		if (n <= 0) {
			session_close(session, "%s",
				      n == 0 ? "the front-end disconnected" : strerror((int)-n));
			return -ECONNRESET;
		}
		session->received_bytes += (size_t)n;
	}
}

/* Level-triggered: what is left unread comes up again. One message a turn, so that no front-end
 * keeps the control thread from the others. */
static void on_socket(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct vhost_session *session = container_of(watch, struct vhost_session, socket);

	/* With a message under way only the end of the connection is of interest. */
	if (session->busy) {
		if (epoll_events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
			session_close(session, "the front-end disconnected");
		return;
	}
	if (read_message(session) == 1)
		handle_message(session);
}

/* ---- life --------------------------------------------------------------------------------- */

int session_create(struct vhost_controller *controller, int socket_fd)
{
	static uint64_t last_id;
	struct vhost_session *session = calloc(1, sizeof(*session));

	if (session == NULL)
		return -ENOMEM;
	session->controller = controller;
	session->id = ++last_id;
	session_backend_init(session);
	session->reply_fd = -1;
	session->socket.fd = socket_fd;
	session->socket.fn = on_socket;
	session->close_work.fn = advance_closing;
	int rc = mem_table_create(NULL, 0, &session->memory);
	if (rc == 0)
		rc = session_queues_create(session);
	if (rc == 0)
		rc = reactor_fd_add(vhost_reactors()->control, &session->socket,
				    EPOLLIN | EPOLLRDHUP);
	if (rc < 0) {
		session_queues_destroy(session);
		mem_table_destroy(session->memory);
		free(session);
		return rc;
	}
	list_add_tail(&controller->sessions, &session->link);
	log_limited(&controller->log_limit, LOG_LEVEL_INFO, "%s: session %lu began",
		    controller->name, session->id);
	return 0;
}

void session_check_faults(struct vhost_session *session)
{
	bool log_faulted = session->log != NULL && load_relaxed(&session->log->faulted);

	if (mem_table_faulted(session->memory) || load_relaxed(&session->inflight.faulted) ||
	    log_faulted)
		session_close(session, "a file of its memory was truncated");
}
