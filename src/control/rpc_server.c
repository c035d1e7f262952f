/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket of the RPC server. Control thread. */
#include "control/rpc_server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/rpc_connection.h"
#include "reactor/reactor.h"

/* The pause after accept(2) failed for want of fds or memory. */
#define ACCEPT_PAUSE_NS 100000000ull

struct rpc_server {
	struct control *control;
	char *path;
	struct reactor *reactor;
	struct reactor_fd watch;
	struct reactor_timer pause;
	struct list connections;
	unsigned int connection_count;
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

static struct log_limit accept_limit;

int rpc_server_create(struct control *control, const char *path, struct rpc_server **out)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	int fd;

	if (server == NULL || (server->path = strdup(path)) == NULL) {
		free(server);
		return -ENOMEM;
	}
	fd = fd_unix_listen(path, 0600);
	if (fd < 0) {
		free(server->path);
		free(server);
		return fd;
	}
	server->control = control;
	server->watch.fd = fd;
	list_init(&server->connections);
	*out = server;
	return 0;
}

static void server_check_stopped(struct rpc_server *server)
{
	if (server->stopping && list_empty(&server->connections) && server->stopped != NULL) {
		void (*stopped)(void *arg) = server->stopped;
		server->stopped = NULL;
		stopped(server->stopped_arg);
	}
}

static void connection_gone(void *arg)
{
	struct rpc_server *server = arg;

	server->connection_count--;
	server_check_stopped(server);
}

static void refuse(int fd)
{
	static const char answer[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-16,"
				     "\"message\":\"too many connections to the RPC socket\"}}\n";

	(void)fd_send(fd, answer, sizeof(answer) - 1, NULL, 0);
	fd_close(&fd);
	log_limited(&accept_limit, LOG_LEVEL_WARN, "more than %d connections to the RPC socket",
		    RPC_CONNECTION_MAX);
}

static void pause_over(struct reactor_timer *timer)
{
	struct rpc_server *server = container_of(timer, struct rpc_server, pause);

	(void)reactor_fd_modify(&server->watch, EPOLLIN);
}

static void server_event(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct rpc_server *server = container_of(watch, struct rpc_server, watch);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_limited(&accept_limit, LOG_LEVEL_WARN, "accept on the RPC socket: %s",
				    strerror(errno));
			(void)reactor_fd_modify(watch, 0);
			reactor_timer_start(server->reactor, &server->pause, ACCEPT_PAUSE_NS);
		}
		return;
	}
	if (server->connection_count >= RPC_CONNECTION_MAX) {
		refuse(fd);
		return;
	}
	if (rpc_connection_create(server->control, server->reactor, fd, &server->connections,
				  connection_gone, server) == 0)
		server->connection_count++;
}

int rpc_server_start(struct rpc_server *server, struct reactor *reactor)
{
	server->reactor = reactor;
	server->watch.fn = server_event;
	server->pause.fn = pause_over;
	return reactor_fd_add(reactor, &server->watch, EPOLLIN);
}

static void server_unlisten(struct rpc_server *server)
{
	if (server->watch.fd < 0)
		return;
	(void)unlink(server->path);
	if (server->reactor != NULL) {
		reactor_timer_stop(&server->pause);
		reactor_fd_remove(&server->watch);
	}
	fd_close(&server->watch.fd);
}

void rpc_server_stop(struct rpc_server *server, void (*done)(void *arg), void *arg)
{
	ensure(!server->stopping);
	server_unlisten(server);
	list_for_each_safe (node, &server->connections)
		rpc_connection_close(node);
	server->stopping = true;
	server->stopped = done;
	server->stopped_arg = arg;
	server_check_stopped(server);
}

void rpc_server_destroy(struct rpc_server *server)
{
	if (server == NULL)
		return;
	ensure(list_empty(&server->connections));
	server_unlisten(server);
	free(server->path);
	free(server);
}
