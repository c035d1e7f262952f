/* SPDX-License-Identifier: Apache-2.0 */
/* Front-end side of vhost-user: see vhost_user_client.h, also for who owns it. */
#include "frontend/vhost_user_client.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/assert.h"
#include "base/fd.h"
#include "vhost/vhost_user_wire.h"

#define BIT(n) (1ull << (n))

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
	[VHOST_USER_ADD_MEM_REG] = "ADD_MEM_REG",
};

static const char *request_name(uint32_t request)
{
	ensure(request < VHOST_USER_REQUEST_MAX && request_names[request] != NULL);
	return request_names[request];
}

PRINTF_LIKE(3, 4)
static int fail(struct vhost_user_client *client, int rc, const char *fmt, ...)
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
		return fail(client, -ECONNRESET, "the target closed the connection at %s",
			    request_name(request));
	if (rc == -EAGAIN)
		return fail(client, -ETIMEDOUT, "the target did not answer %s within %d s",
			    request_name(request), VHOST_USER_CLIENT_TIMEOUT_S);
	return fail(client, (int)rc, "%s: %s", request_name(request), strerror((int)-rc));
}

static int send_all(struct vhost_user_client *client, const struct vhost_user_message *msg,
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

static int recv_all(struct vhost_user_client *client, uint32_t request, void *buf, size_t len)
{
	uint8_t *at = buf;

	while (len > 0) {
		size_t fd_count;
		ssize_t n = fd_recv(client->sock, at, len, 0, NULL, 0, &fd_count);
		if (n <= 0)
			return fail_io(client, request, n);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Receives the answer to request into *msg. Its payload is at least min_bytes long. */
static int recv_reply(struct vhost_user_client *client, uint32_t request,
		      struct vhost_user_message *msg, uint32_t min_bytes)
{
	memset(msg, 0, sizeof(*msg));
	int rc = recv_all(client, request, &msg->header, sizeof(msg->header));
	if (rc < 0)
		return rc;
	uint32_t flags = msg->header.flags;
	if ((flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
	    !(flags & VHOST_USER_REPLY_FLAG) || msg->header.request != request)
		return fail(client, -EPROTO,
			    "the target answered %s with message %u, flags 0x%x: no reply to it",
			    request_name(request), msg->header.request, flags);
	if (msg->header.size > sizeof(msg->payload) || msg->header.size < min_bytes)
		return fail(client, -EPROTO, "the target answered %s with %u bytes of payload",
			    request_name(request), msg->header.size);
	return recv_all(client, request, &msg->payload, msg->header.size);
}

static void prepare(struct vhost_user_message *msg, uint32_t request, uint32_t size)
{
	memset(msg, 0, sizeof(*msg));
	msg->header.request = request;
	msg->header.flags = VHOST_USER_VERSION;
	msg->header.size = size;
}

/* A message without an answer of its own: with REPLY_ACK, asks for one and checks it. */
static int send_acked(struct vhost_user_client *client, struct vhost_user_message *msg,
		      const int *fds, size_t fd_count)
{
	uint32_t request = msg->header.request;
	bool ack = vhost_user_client_has_protocol(client, VHOST_USER_PROTOCOL_F_REPLY_ACK);

	if (ack)
		msg->header.flags |= VHOST_USER_NEED_REPLY_FLAG;
	int rc = send_all(client, msg, fds, fd_count);
	if (rc < 0 || !ack)
		return rc;
	rc = recv_reply(client, request, msg, sizeof(uint64_t));
	if (rc < 0)
		return rc;
	if (msg->payload.u64 != 0)
		return fail(client, -EREMOTEIO, "the target refused %s", request_name(request));
	return 0;
}

static int send_u64(struct vhost_user_client *client, uint32_t request, uint64_t value)
{
	struct vhost_user_message msg;

	prepare(&msg, request, sizeof(uint64_t));
	msg.payload.u64 = value;
	return send_acked(client, &msg, NULL, 0);
}

static int send_state(struct vhost_user_client *client, uint32_t request, uint32_t index,
		      uint32_t num)
{
	struct vhost_user_message msg;

	prepare(&msg, request, sizeof(struct vhost_user_vring_state));
	msg.payload.state = (struct vhost_user_vring_state){.index = index, .num = num};
	return send_acked(client, &msg, NULL, 0);
}

static int send_fd(struct vhost_user_client *client, uint32_t request, uint32_t index, int fd)
{
	struct vhost_user_message msg;

	prepare(&msg, request, sizeof(uint64_t));
	msg.payload.u64 = index;
	return send_acked(client, &msg, &fd, 1);
}

static int get_u64(struct vhost_user_client *client, uint32_t request, uint64_t *out)
{
	struct vhost_user_message msg;

	prepare(&msg, request, 0);
	int rc = send_all(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	rc = recv_reply(client, request, &msg, sizeof(uint64_t));
	if (rc == 0)
		*out = msg.payload.u64;
	return rc;
}

static int set_timeouts(int sock)
{
	struct timeval limit = {.tv_sec = VHOST_USER_CLIENT_TIMEOUT_S};

	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	return 0;
}

int vhost_user_client_connect(struct vhost_user_client *client, const char *path)
{
	*client = (struct vhost_user_client){.sock = -1};
	int sock = fd_unix_connect(path);
	if (sock < 0)
		return fail(client, sock, "cannot connect to %s: %s", path, strerror(-sock));
	client->sock = sock;

	int rc = set_timeouts(sock);
	if (rc < 0)
		return fail(client, rc, "cannot set a time limit on the socket: %s", strerror(-rc));
	rc = get_u64(client, VHOST_USER_GET_FEATURES, &client->offered_features);
	if (rc < 0 || !(client->offered_features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return rc;
	return get_u64(client, VHOST_USER_GET_PROTOCOL_FEATURES,
		       &client->offered_protocol_features);
}

void vhost_user_client_close(struct vhost_user_client *client)
{
	fd_close(&client->sock);
}

int vhost_user_client_negotiate_protocol(struct vhost_user_client *client, uint64_t wanted)
{
	if (client->offered_features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)) {
		uint64_t accepted = client->offered_protocol_features & wanted;
		/* REPLY_ACK holds from the message after this one on, so this one is not acked. */
		int rc = send_u64(client, VHOST_USER_SET_PROTOCOL_FEATURES, accepted);
		if (rc < 0)
			return rc;
		client->protocol_features = accepted;
	}
	struct vhost_user_message msg;
	prepare(&msg, VHOST_USER_SET_OWNER, 0);
	return send_acked(client, &msg, NULL, 0);
}

int vhost_user_client_queue_max(struct vhost_user_client *client, uint32_t *out_count)
{
	uint64_t count = 1;

	if (vhost_user_client_has_protocol(client, VHOST_USER_PROTOCOL_F_MQ)) {
		int rc = get_u64(client, VHOST_USER_GET_QUEUE_NUM, &count);
		if (rc < 0)
			return rc;
		if (count == 0 || count > UINT16_MAX)
			return fail(client, -EPROTO, "the target says that it serves %llu queues",
				    (unsigned long long)count);
	}
	*out_count = (uint32_t)count;
	return 0;
}

ssize_t vhost_user_client_get_config(struct vhost_user_client *client, void *buf,
				     uint32_t len_bytes)
{
	struct vhost_user_message msg;

	ensure(len_bytes <= VHOST_USER_CONFIG_MAX_BYTES);
	memset(buf, 0, len_bytes);
	prepare(&msg, VHOST_USER_GET_CONFIG, VHOST_USER_CONFIG_HEADER_BYTES + len_bytes);
	msg.payload.config.size_bytes = len_bytes;
	int rc = send_all(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	/* A refusal is a reply without payload. */
	rc = recv_reply(client, VHOST_USER_GET_CONFIG, &msg, 0);
	if (rc < 0)
		return rc;
	if (msg.header.size < VHOST_USER_CONFIG_HEADER_BYTES)
		return fail(client, -EREMOTEIO, "the target refused GET_CONFIG of %u bytes",
			    len_bytes);
	uint32_t got = msg.header.size - VHOST_USER_CONFIG_HEADER_BYTES;
	got = MIN(got, MIN(msg.payload.config.size_bytes, len_bytes));
	memcpy(buf, msg.payload.config.region, got);
	return got;
}

int vhost_user_client_set_features(struct vhost_user_client *client, uint64_t features)
{
	/* Acknowledging the bit is what makes rings start disabled (and SET_VRING_ENABLE due). */
	features |= client->offered_features & BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	int rc = send_u64(client, VHOST_USER_SET_FEATURES, features);
	if (rc == 0)
		client->features = features;
	return rc;
}

static struct vhost_user_memory_region describe(const struct guest_arena *arena)
{
	return (struct vhost_user_memory_region){
		.guest_addr = GUEST_ARENA_BASE,
		.size_bytes = arena->size_bytes,
		.user_addr = (uint64_t)(uintptr_t)arena->base,
		.mmap_offset = 0,
	};
}

int vhost_user_client_set_memory(struct vhost_user_client *client, const struct guest_arena *arena)
{
	struct vhost_user_message msg;

	if (vhost_user_client_has_protocol(client, VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)) {
		prepare(&msg, VHOST_USER_ADD_MEM_REG, sizeof(struct vhost_user_single_region));
		msg.payload.region.region = describe(arena);
	} else {
		prepare(&msg, VHOST_USER_SET_MEM_TABLE,
			2 * sizeof(uint32_t) + sizeof(struct vhost_user_memory_region));
		msg.payload.memory.region_count = 1;
		msg.payload.memory.regions[0] = describe(arena);
	}
	return send_acked(client, &msg, &arena->fd, 1);
}

static int set_vring_addr(struct vhost_user_client *client, uint32_t index,
			  const struct vring_driver *ring)
{
	struct vhost_user_message msg;

	prepare(&msg, VHOST_USER_SET_VRING_ADDR, sizeof(struct vhost_user_vring_addr));
	msg.payload.addr = (struct vhost_user_vring_addr){
		.index = index,
		.descriptor = (uint64_t)(uintptr_t)ring->desc,
		.used = (uint64_t)(uintptr_t)ring->used,
		.available = (uint64_t)(uintptr_t)ring->avail,
	};
	return send_acked(client, &msg, NULL, 0);
}

int vhost_user_client_set_vring(struct vhost_user_client *client, uint32_t index,
				const struct vring_driver *ring)
{
	int rc = send_state(client, VHOST_USER_SET_VRING_NUM, index, ring->size);
	if (rc == 0)
		rc = send_state(client, VHOST_USER_SET_VRING_BASE, index, 0);
	if (rc == 0)
		rc = set_vring_addr(client, index, ring);
	/* The call fd before the kick fd, which starts the ring: a target that starts it at once
	 * has all it needs. */
	if (rc == 0)
		rc = send_fd(client, VHOST_USER_SET_VRING_CALL, index, ring->call_fd);
	if (rc == 0)
		rc = send_fd(client, VHOST_USER_SET_VRING_KICK, index, ring->kick_fd);
	return rc;
}

int vhost_user_client_enable_vring(struct vhost_user_client *client, uint32_t index)
{
	if (!vhost_user_client_has(client, VHOST_USER_F_PROTOCOL_FEATURES))
		return 0;
	return send_state(client, VHOST_USER_SET_VRING_ENABLE, index, 1);
}

int vhost_user_client_sync(struct vhost_user_client *client)
{
	uint64_t unused;

	return get_u64(client, VHOST_USER_GET_FEATURES, &unused);
}

int vhost_user_client_stop_vring(struct vhost_user_client *client, uint32_t index)
{
	struct vhost_user_message msg;

	prepare(&msg, VHOST_USER_GET_VRING_BASE, sizeof(struct vhost_user_vring_state));
	msg.payload.state.index = index;
	int rc = send_all(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	return recv_reply(client, VHOST_USER_GET_VRING_BASE, &msg,
			  sizeof(struct vhost_user_vring_state));
}
