/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON-RPC server: a listening Unix socket and its connections. Control thread. */
#ifndef SLUICE_CONTROL_RPC_SERVER_H
#define SLUICE_CONTROL_RPC_SERVER_H

struct control;
struct reactor;
struct rpc_server;

#define RPC_CONNECTION_MAX 128
/* How long a client may leave an answer unread. */
#define RPC_STALL_MS_MAX 10000

/* Any thread, before the reactor runs: binds the socket, mode 0600. Clients can connect and wait
 * from then on. 0 or -errno as fd_unix_listen(). */
int rpc_server_create(struct control *control, const char *path, struct rpc_server **out);
/* Begins to accept. 0 or -errno. */
int rpc_server_start(struct rpc_server *server, struct reactor *reactor);
/* Removes the socket, closes the connections, waits for calls under way; then done is called, maybe
 * at once. */
void rpc_server_stop(struct rpc_server *server, void (*done)(void *arg), void *arg);
/* Stopped, or never started. */
void rpc_server_destroy(struct rpc_server *server);

#endif
