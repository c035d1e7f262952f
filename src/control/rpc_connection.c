/* SPDX-License-Identifier: Apache-2.0 */
/* One client of the RPC server: bytes in, messages, bytes out. Control thread. */
#include "control/rpc_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/rpc.h"
#include "control/rpc_message.h"
#include "control/rpc_server.h"
#include "control/rpc_stream.h"
#include "reactor/reactor.h"

/* Answers that a client has not read yet; beyond that, its next message is not looked at. */
#define UNREAD_BYTES_MAX (1u << 20)
/* How long one client may keep the control thread before others get a turn. */
#define TURN_NS_MAX 2000000

struct rpc_connection {
	struct list link;
	struct reactor *reactor;
	struct reactor_fd watch;
	uint32_t watch_events;
	struct reactor_timer stall;
	struct reactor_msg turn;
	struct rpc_stream stream;
	struct rpc_message message;
	size_t sent; /* of message.answer */
	void (*gone)(void *arg);
	void *gone_arg;
	bool turn_queued;
	bool stalled; /* the socket is full, the timer runs */
	bool pumping;
	bool eof;    /* nothing more will be read */
	bool closed; /* the socket is gone; memory follows when nothing refers to it */
};

static struct log_limit stall_limit;

/* ---- end --------------------------------------------------------------------------------- */

/* The last reference: a call under way, a queued turn, or the pump. */
static void connection_free_if_unused(struct rpc_connection *c)
{
	if (!c->closed || c->message.waiting || c->turn_queued || c->pumping)
		return;
	void (*gone)(void *arg) = c->gone;
	void *arg = c->gone_arg;
	list_remove(&c->link);
	rpc_message_fini(&c->message);
	rpc_stream_fini(&c->stream);
	free(c);
	gone(arg);
}

static void connection_close(struct rpc_connection *c)
{
	if (!c->closed) {
		c->closed = true;
		reactor_timer_stop(&c->stall);
		reactor_fd_remove(&c->watch);
		fd_close(&c->watch.fd);
	}
	connection_free_if_unused(c);
}

void rpc_connection_close(struct list *link)
{
	connection_close(list_entry(link, struct rpc_connection, link));
}

/* ---- the socket -------------------------------------------------------------------------- */

static void connection_watch(struct rpc_connection *c, uint32_t events)
{
	if (c->closed || events == c->watch_events)
		return;
	c->watch_events = events;
	if (reactor_fd_modify(&c->watch, events) < 0)
		connection_close(c);
}

static void stall_expired(struct reactor_timer *timer)
{
	struct rpc_connection *c = container_of(timer, struct rpc_connection, stall);

	log_limited(&stall_limit, LOG_LEVEL_WARN,
		    "a client of the RPC socket does not read its answer: connection closed");
	connection_close(c);
}

/* Sends what the socket takes. False: the rest has to wait. */
static bool connection_send(struct rpc_connection *c)
{
	struct rpc_text *answer = &c->message.answer;

	while (c->sent < answer->len) {
		ssize_t n = fd_send(c->watch.fd, answer->bytes + c->sent, answer->len - c->sent,
				    NULL, 0);
		if (n == -EAGAIN) {
			if (!c->stalled)
				reactor_timer_start(c->reactor, &c->stall,
						    RPC_STALL_MS_MAX * 1000000ull);
			c->stalled = true;
			return false;
		}
		if (n < 0) {
			connection_close(c);
			return false;
		}
		c->sent += (size_t)n;
		reactor_timer_stop(&c->stall);
		c->stalled = false;
	}
	rpc_text_fini(answer);
	c->sent = 0;
	return true;
}

/* True when there is something new to look at. */
static bool connection_receive(struct rpc_connection *c)
{
	char *room;
	size_t len;
	ssize_t n;

	if (rpc_stream_space(&c->stream, &room, &len) < 0) {
		connection_close(c);
		return false;
	}
	do {
		n = recv(c->watch.fd, room, len, 0);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		rpc_stream_arrived(&c->stream, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EAGAIN) {
		connection_watch(c, c->stalled ? EPOLLIN | EPOLLOUT : EPOLLIN);
		return false;
	}
	if (n < 0) {
		connection_close(c);
		return false;
	}
	c->eof = true;
	if (rpc_stream_partial(&c->stream))
		rpc_message_begin_error(&c->message, RPC_CODE_PARSE,
					"the stream ended in the middle of a request");
	return true;
}

/* ---- the pump ---------------------------------------------------------------------------- */

static void stream_fail(struct rpc_connection *c, int rc)
{
	static const struct {
		int rc;
		int code;
		const char *sentence;
	} failures[] = {
		{-EINVAL, RPC_CODE_PARSE, "not valid JSON: a request begins with '{' or '['"},
		{-E2BIG, RPC_CODE_INVALID_REQUEST, "the request is longer than 1 MiB"},
		{-ELOOP, RPC_CODE_PARSE, "the request is nested deeper than 32 levels"},
	};

	for (size_t i = 0; i < ARRAY_COUNT(failures); i++) {
		if (failures[i].rc == rc)
			rpc_message_begin_error(&c->message, failures[i].code,
						failures[i].sentence);
	}
}

/* Begins the next message. False: there is none yet, or the connection is at its end. */
static bool connection_next(struct rpc_connection *c)
{
	const char *text;
	size_t len;

	if (c->closed || c->eof || c->message.fatal) {
		connection_close(c);
		return false;
	}
	int rc = rpc_stream_next(&c->stream, &text, &len);
	if (rc == 0)
		return connection_receive(c);
	if (rc < 0)
		stream_fail(c, rc);
	else
		rpc_message_begin(&c->message, text, len);
	return true;
}

/* True when the client has to read before it gets more, or before the end. */
static bool connection_unread(const struct rpc_connection *c)
{
	size_t unread = c->message.answer.len - c->sent;

	return unread > UNREAD_BYTES_MAX || (unread > 0 && (c->eof || c->message.fatal));
}

/* One step. False: something has to happen first. */
static bool connection_step(struct rpc_connection *c)
{
	if (c->closed)
		return false;
	if (c->message.waiting) {
		/* EPOLLHUP is reported all the same. */
		if (!c->stalled || connection_send(c))
			connection_watch(c, 0);
		else
			connection_watch(c, EPOLLOUT);
		return false;
	}
	if (c->message.active) {
		rpc_message_step(&c->message);
		return true;
	}
	if (!connection_send(c) && !c->closed && connection_unread(c)) {
		connection_watch(c, EPOLLOUT);
		return false;
	}
	return connection_next(c);
}

static void connection_pump(struct rpc_connection *c)
{
	uint64_t start_ns = clock_ns();

	if (c->pumping)
		return;
	c->pumping = true;
	while (connection_step(c)) {
		if (clock_ns() - start_ns > TURN_NS_MAX && !c->turn_queued) {
			c->turn_queued = true;
			connection_watch(c, 0);
			/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): pumping keeps it */
			reactor_send(c->reactor, &c->turn);
			break;
		}
	}
	c->pumping = false;
	connection_free_if_unused(c);
}

static void turn_fn(struct reactor_msg *msg)
{
	struct rpc_connection *c = container_of(msg, struct rpc_connection, turn);

	c->turn_queued = false;
	connection_pump(c);
}

static void message_resume(struct rpc_message *message)
{
	connection_pump(container_of(message, struct rpc_connection, message));
}

static void connection_event(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct rpc_connection *c = container_of(watch, struct rpc_connection, watch);

	if (c->message.waiting && (epoll_events & (EPOLLHUP | EPOLLERR)) != 0)
		connection_close(c);
	else if (!c->turn_queued)
		connection_pump(c);
}

int rpc_connection_create(struct control *control, struct reactor *reactor, int fd,
			  struct list *connections, void (*gone)(void *arg), void *arg)
{
	struct rpc_connection *c = calloc(1, sizeof(*c));
	int rc = c == NULL ? -ENOMEM : 0;

	if (rc == 0) {
		c->reactor = reactor;
		c->watch.fn = connection_event;
		c->watch.fd = fd;
		c->watch_events = EPOLLIN;
		c->stall.fn = stall_expired;
		c->turn.fn = turn_fn;
		c->message.control = control;
		c->message.resume = message_resume;
		c->gone = gone;
		c->gone_arg = arg;
		rc = reactor_fd_add(reactor, &c->watch, EPOLLIN);
	}
	if (rc < 0) {
		free(c);
		fd_close(&fd);
		return rc;
	}
	list_add_tail(connections, &c->link);
	return 0;
}
