/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the front-end side on their socket: see vhost_user_client_impl.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/fd.h"
#include "frontend/vhost_user_client_impl.h"

static const char *const request_names[VHOST_USER_REQUEST_MAX] = {
	[VHOST_USER_GET_FEATURES] = "GET_FEATURES",
	[VHOST_USER_SET_FEATURES] = "SET_FEATURES",
	[VHOST_USER_SET_OWNER] = "SET_OWNER",
	[VHOST_USER_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[VHOST_USER_SET_VRING_NUM] = "SET_VRING_NUM",
	[VHOST_USER_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[VHOST_USER_SET_VRING_BASE] = "SET_VRING_BASE",
	[VHOST_USER_GET_VRING_BASE] = "GET_VRING_BASE",
	[VHOST_USER_SET_VRING_KICK] = "SET_VRING_KICK",
	[VHOST_USER_SET_VRING_CALL] = "SET_VRING_CALL",
	[VHOST_USER_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[VHOST_USER_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[VHOST_USER_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
	[VHOST_USER_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[VHOST_USER_GET_CONFIG] = "GET_CONFIG",
	[VHOST_USER_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
	[VHOST_USER_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
	[VHOST_USER_ADD_MEM_REG] = "ADD_MEM_REG",
};

static const char *request_name(uint32_t request)
{
	ensure(request < VHOST_USER_REQUEST_MAX && request_names[request] != NULL);
	return request_names[request];
}

int client_fail(struct vhost_user_client *client, int rc, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(client->error, sizeof(client->error), fmt, args);
	va_end(args);
	return rc;
}

static int fail_io(struct vhost_user_client *client, uint32_t request, ssize_t rc)
{
	if (rc == 0 || rc == -EPIPE || rc == -ECONNRESET)
		return client_fail(client, -ECONNRESET, "the target closed the connection at %s",
				   request_name(request));
	if (rc == -EAGAIN)
		return client_fail(client, -ETIMEDOUT, "the target did not answer %s within %d s",
				   request_name(request), VHOST_USER_CLIENT_TIMEOUT_S);
	return client_fail(client, (int)rc, "%s: %s", request_name(request), strerror((int)-rc));
}

int client_send(struct vhost_user_client *client, const struct vhost_user_message *msg,
		const int *fds, size_t fd_count)
{
	const uint8_t *at = (const uint8_t *)&msg->header;
	size_t left = sizeof(msg->header) + msg->header.size;

	while (left > 0) {
		ssize_t n = fd_send(client->sock, at, left, fds, fd_count);
		if (n <= 0)
			return fail_io(client, msg->header.request, n);
		at += n;
		left -= (size_t)n;
		fd_count = 0; /* went with the first byte */
	}
	return 0;
}

/* A descriptor that comes along is stored in *out_fd, which is -1 before; without out_fd, or when
 * there is one already, it is closed. */
static int recv_all(struct vhost_user_client *client, uint32_t request, void *buf, size_t len,
		    int *out_fd)
{
	uint8_t *at = buf;

	while (len > 0) {
		size_t fd_max = out_fd != NULL && *out_fd < 0 ? 1 : 0;
		size_t fd_count;
		ssize_t n = fd_recv(client->sock, at, len, 0, out_fd, fd_max, &fd_count);
		if (n <= 0)
			return fail_io(client, request, n);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int client_recv_reply_fd(struct vhost_user_client *client, uint32_t request,
			 struct vhost_user_message *msg, uint32_t min_bytes, int *out_fd)
{
	memset(msg, 0, sizeof(*msg));
	int rc = recv_all(client, request, &msg->header, sizeof(msg->header), out_fd);
	if (rc < 0)
		return rc;
	uint32_t flags = msg->header.flags;
	if ((flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
	    !(flags & VHOST_USER_REPLY_FLAG) || msg->header.request != request)
		return client_fail(
			client, -EPROTO,
			"the target answered %s with message %u, flags 0x%x: no reply to it",
			request_name(request), msg->header.request, flags);
	if (msg->header.size > sizeof(msg->payload) || msg->header.size < min_bytes)
		return client_fail(client, -EPROTO,
				   "the target answered %s with %u bytes of payload",
				   request_name(request), msg->header.size);
	return recv_all(client, request, &msg->payload, msg->header.size, out_fd);
}

int client_recv_reply(struct vhost_user_client *client, uint32_t request,
		      struct vhost_user_message *msg, uint32_t min_bytes)
{
	return client_recv_reply_fd(client, request, msg, min_bytes, NULL);
}

void client_prepare(struct vhost_user_message *msg, uint32_t request, uint32_t size)
{
	memset(msg, 0, sizeof(*msg));
	msg->header.request = request;
	msg->header.flags = VHOST_USER_VERSION;
	msg->header.size = size;
}

int client_send_acked(struct vhost_user_client *client, struct vhost_user_message *msg,
		      const int *fds, size_t fd_count)
{
	uint32_t request = msg->header.request;
	bool ack = vhost_user_client_has_protocol(client, VHOST_USER_PROTOCOL_F_REPLY_ACK);

	if (ack)
		msg->header.flags |= VHOST_USER_NEED_REPLY_FLAG;
	int rc = client_send(client, msg, fds, fd_count);
	if (rc < 0 || !ack)
		return rc;
	rc = client_recv_reply(client, request, msg, sizeof(uint64_t));
	if (rc < 0)
		return rc;
	if (msg->payload.u64 != 0)
		return client_fail(client, -EREMOTEIO, "the target refused %s",
				   request_name(request));
	return 0;
}
