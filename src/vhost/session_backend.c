/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend channel: the socket that a front-end gives us for requests of ours, of which there is
 * one, CONFIG_CHANGE_MSG (vhost-user.rst, "Back-end message types"). Control thread, which never
 * waits for it: a request that finds no room, or that follows one not yet answered, is sent when
 * there is, and any number of changes until then make one request.
 *
 * The front-end may share the open file of our end, so that O_NONBLOCK is not ours to rely on:
 * MSG_DONTWAIT is. A channel on which the front-end breaks the rules is closed; its session goes
 * on.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "vhost/session.h"

static bool has_protocol(const struct vhost_session *session, unsigned int feature)
{
	return (session->protocol_features >> feature) & 1;
}

static void give_up(struct vhost_session *session, const char *why)
{
	log_limited(&session->controller->log_limit, LOG_LEVEL_WARN,
		    "%s: session %lu: its backend channel is closed: %s", session->controller->name,
		    session->id, why);
	session_backend_close(session);
}

/* EPOLLOUT only while something waits for room. */
static void watch_room(struct vhost_session *session, bool room)
{
	if (reactor_fd_modify(&session->backend.watch, EPOLLIN | (room ? EPOLLOUT : 0)) < 0)
		give_up(session, "it cannot be watched");
}

static void send_wanted(struct vhost_session *session)
{
	struct session_backend *backend = &session->backend;
	bool ack = has_protocol(session, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct vhost_user_header header = {
		.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
		.flags = VHOST_USER_VERSION | (ack ? VHOST_USER_NEED_REPLY_FLAG : 0),
	};
	ssize_t n;

	if (!backend->wanted || backend->unanswered)
		return;
	do {
		n = send(backend->watch.fd, &header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		watch_room(session, true);
		return;
	}
	if (n != sizeof(header)) {
		give_up(session, n < 0 ? strerror(errno) : "a request was cut short");
		return;
	}
	backend->wanted = false;
	backend->unanswered = ack;
	backend->received_bytes = 0;
	watch_room(session, false);
}

static bool reply_legal(const struct vhost_user_backend_reply *reply)
{
	const struct vhost_user_header *header = &reply->header;

	return header->request == VHOST_USER_BACKEND_CONFIG_CHANGE_MSG &&
	       (header->flags & VHOST_USER_VERSION_MASK) == VHOST_USER_VERSION &&
	       (header->flags & VHOST_USER_REPLY_FLAG) && header->size == sizeof(reply->payload);
}

/* Fds that come along are not taken, and so closed by the kernel. */
static void receive(struct vhost_session *session)
{
	struct session_backend *backend = &session->backend;
	uint8_t *bytes = (uint8_t *)&backend->reply;
	uint8_t surplus;
	ssize_t n;

	do {
		n = backend->unanswered
			    ? recv(backend->watch.fd, bytes + backend->received_bytes,
				   sizeof(backend->reply) - backend->received_bytes, MSG_DONTWAIT)
			    : recv(backend->watch.fd, &surplus, 1, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return;
	if (n == 0) {
		/* The front-end has closed its end: that is its right, and no line in the log. */
		session_backend_close(session);
		return;
	}
	if (n < 0 || !backend->unanswered) {
		give_up(session, n < 0 ? strerror(errno) : "an answer to nothing");
		return;
	}
	backend->received_bytes += (size_t)n;
	if (backend->received_bytes < sizeof(backend->reply))
		return;
	if (!reply_legal(&backend->reply)) {
		give_up(session, "an answer that is none");
		return;
	}
	/* Whether the front-end could make use of it is its own affair. */
	backend->unanswered = false;
	send_wanted(session);
}

static void on_backend(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct vhost_session *session = container_of(watch, struct vhost_session, backend.watch);

	if (epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(session);
	if ((epoll_events & EPOLLOUT) && session->backend.watch.fd >= 0)
		send_wanted(session);
}

/* ---- life --------------------------------------------------------------------------------- */

void session_backend_init(struct vhost_session *session)
{
	session->backend.watch.fd = -1;
	session->backend.watch.fn = on_backend;
}

int session_backend_open(struct vhost_session *session, int fd)
{
	struct session_backend *backend = &session->backend;

	session_backend_close(session);
	backend->watch.fd = fd;
	return reactor_fd_add(vhost_reactors()->control, &backend->watch, EPOLLIN);
}

void session_backend_close(struct vhost_session *session)
{
	struct session_backend *backend = &session->backend;

	reactor_fd_remove(&backend->watch);
	fd_close(&backend->watch.fd);
	backend->wanted = false;
	backend->unanswered = false;
	backend->received_bytes = 0;
}

void session_config_changed(struct vhost_session *session)
{
	if (session->closing || session->backend.watch.fd < 0 ||
	    !has_protocol(session, VHOST_USER_PROTOCOL_F_BACKEND_REQ) ||
	    !has_protocol(session, VHOST_USER_PROTOCOL_F_CONFIG))
		return;
	session->backend.wanted = true;
	send_wanted(session);
}
