/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending a message to a target and taking its answer: the inside of vhost_user_client.h. All
 * return 0, or -errno after a sentence in client->error.
 */
#ifndef SLUICE_FRONTEND_VHOST_USER_CLIENT_IMPL_H
#define SLUICE_FRONTEND_VHOST_USER_CLIENT_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "frontend/vhost_user_client.h"
#include "vhost/vhost_user_wire.h"

/* Leaves the sentence and returns rc. */
PRINTF_LIKE(3, 4)
int client_fail(struct vhost_user_client *client, int rc, const char *fmt, ...);

void client_prepare(struct vhost_user_message *msg, uint32_t request, uint32_t size_bytes);

/* fds are borrowed. */
int client_send(struct vhost_user_client *client, const struct vhost_user_message *msg,
		const int *fds, size_t fd_count);

/* Receives the answer to request into *msg. Its payload is at least min_bytes long. */
int client_recv_reply(struct vhost_user_client *client, uint32_t request,
		      struct vhost_user_message *msg, uint32_t min_bytes);

/* The same; *out_fd, -1 before, receives the descriptor that may come along. It is the caller's, in
 * failure too. */
int client_recv_reply_fd(struct vhost_user_client *client, uint32_t request,
			 struct vhost_user_message *msg, uint32_t min_bytes, int *out_fd);

/* A message without an answer of its own: with REPLY_ACK, asks for one and checks it. */
int client_send_acked(struct vhost_user_client *client, struct vhost_user_message *msg,
		      const int *fds, size_t fd_count);

#endif
