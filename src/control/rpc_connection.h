/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client of the RPC server. Control thread.
 *
 * One message is worked on at a time. With more than 1 MiB of answers unread the next message is
 * not looked at: a client that does not read holds that and one answer in memory, and loses its
 * connection after RPC_STALL_MS_MAX.
 */
#ifndef SLUICE_CONTROL_RPC_CONNECTION_H
#define SLUICE_CONTROL_RPC_CONNECTION_H

#include "base/list.h"

struct control;
struct reactor;

/* Takes over fd, links itself into owner's list. gone is called after a connection has left the
 * list and its memory is free. 0, or -errno with fd closed. */
int rpc_connection_create(struct control *control, struct reactor *reactor, int fd,
			  struct list *connections, void (*gone)(void *arg), void *arg);
/* The connection that link belongs to; it leaves the list once a call under way has ended. */
void rpc_connection_close(struct list *link);

#endif
