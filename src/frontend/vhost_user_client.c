/* SPDX-License-Identifier: Apache-2.0 */
/* Front-end side of vhost-user: see vhost_user_client.h, also for who owns it. */
#include "frontend/vhost_user_client.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/assert.h"
#include "base/fd.h"
#include "frontend/vhost_user_client_impl.h"

#define BIT(n) (1ull << (n))

static int send_u64(struct vhost_user_client *client, uint32_t request, uint64_t value)
{
	struct vhost_user_message msg;

	client_prepare(&msg, request, sizeof(uint64_t));
	msg.payload.u64 = value;
	return client_send_acked(client, &msg, NULL, 0);
}

static int send_state(struct vhost_user_client *client, uint32_t request, uint32_t index,
		      uint32_t num)
{
	struct vhost_user_message msg;

	client_prepare(&msg, request, sizeof(struct vhost_user_vring_state));
	msg.payload.state = (struct vhost_user_vring_state){.index = index, .num = num};
	return client_send_acked(client, &msg, NULL, 0);
}

static int send_fd(struct vhost_user_client *client, uint32_t request, uint32_t index, int fd)
{
	struct vhost_user_message msg;

	client_prepare(&msg, request, sizeof(uint64_t));
	msg.payload.u64 = index;
	return client_send_acked(client, &msg, &fd, 1);
}

static int get_u64(struct vhost_user_client *client, uint32_t request, uint64_t *out)
{
	struct vhost_user_message msg;

	client_prepare(&msg, request, 0);
	int rc = client_send(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	rc = client_recv_reply(client, request, &msg, sizeof(uint64_t));
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
	*client = (struct vhost_user_client){.sock = -1, .journal_fd = -1};
	int sock = fd_unix_connect(path);
	if (sock < 0)
		return client_fail(client, sock, "cannot connect to %s: %s", path, strerror(-sock));
	client->sock = sock;

	int rc = set_timeouts(sock);
	if (rc < 0)
		return client_fail(client, rc, "cannot set a time limit on the socket: %s",
				   strerror(-rc));
	rc = get_u64(client, VHOST_USER_GET_FEATURES, &client->offered_features);
	if (rc < 0 || !(client->offered_features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return rc;
	return get_u64(client, VHOST_USER_GET_PROTOCOL_FEATURES,
		       &client->offered_protocol_features);
}

void vhost_user_client_close(struct vhost_user_client *client)
{
	fd_close(&client->sock);
	fd_close(&client->journal_fd);
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
	client_prepare(&msg, VHOST_USER_SET_OWNER, 0);
	return client_send_acked(client, &msg, NULL, 0);
}

int vhost_user_client_queue_max(struct vhost_user_client *client, uint32_t *out_count)
{
	uint64_t count = 1;

	if (vhost_user_client_has_protocol(client, VHOST_USER_PROTOCOL_F_MQ)) {
		int rc = get_u64(client, VHOST_USER_GET_QUEUE_NUM, &count);
		if (rc < 0)
			return rc;
		if (count == 0 || count > UINT16_MAX)
			return client_fail(client, -EPROTO,
					   "the target says that it serves %llu queues",
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
	client_prepare(&msg, VHOST_USER_GET_CONFIG, VHOST_USER_CONFIG_HEADER_BYTES + len_bytes);
	msg.payload.config.size_bytes = len_bytes;
	int rc = client_send(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	/* A refusal is a reply without payload. */
	rc = client_recv_reply(client, VHOST_USER_GET_CONFIG, &msg, 0);
	if (rc < 0)
		return rc;
	if (msg.header.size < VHOST_USER_CONFIG_HEADER_BYTES)
		return client_fail(client, -EREMOTEIO, "the target refused GET_CONFIG of %u bytes",
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
		client_prepare(&msg, VHOST_USER_ADD_MEM_REG,
			       sizeof(struct vhost_user_single_region));
		msg.payload.region.region = describe(arena);
	} else {
		client_prepare(&msg, VHOST_USER_SET_MEM_TABLE,
			       2 * sizeof(uint32_t) + sizeof(struct vhost_user_memory_region));
		msg.payload.memory.region_count = 1;
		msg.payload.memory.regions[0] = describe(arena);
	}
	return client_send_acked(client, &msg, &arena->fd, 1);
}

int vhost_user_client_keep_journal(struct vhost_user_client *client, uint32_t queue_count,
				   uint16_t ring_size)
{
	struct vhost_user_message msg;

	client_prepare(&msg, VHOST_USER_GET_INFLIGHT_FD, sizeof(struct vhost_user_inflight));
	msg.payload.inflight = (struct vhost_user_inflight){
		.queue_count = (uint16_t)queue_count,
		.queue_size = ring_size,
	};
	int rc = client_send(client, &msg, NULL, 0);
	if (rc == 0)
		rc = client_recv_reply_fd(client, VHOST_USER_GET_INFLIGHT_FD, &msg,
					  sizeof(struct vhost_user_inflight), &client->journal_fd);
	if (rc < 0)
		return rc;
	if (client->journal_fd < 0 || msg.payload.inflight.mmap_size_bytes == 0)
		return client_fail(client, -EREMOTEIO, "the target gave no inflight journal");
	struct vhost_user_inflight given = msg.payload.inflight;
	given.queue_count = (uint16_t)queue_count;
	given.queue_size = ring_size;
	client_prepare(&msg, VHOST_USER_SET_INFLIGHT_FD, sizeof(given));
	msg.payload.inflight = given;
	return client_send_acked(client, &msg, &client->journal_fd, 1);
}

static int set_vring_addr(struct vhost_user_client *client, uint32_t index,
			  const struct vring_driver *ring)
{
	struct vhost_user_message msg;

	client_prepare(&msg, VHOST_USER_SET_VRING_ADDR, sizeof(struct vhost_user_vring_addr));
	msg.payload.addr = (struct vhost_user_vring_addr){
		.index = index,
		.descriptor = (uint64_t)(uintptr_t)ring->desc,
		.used = (uint64_t)(uintptr_t)ring->used,
		.available = (uint64_t)(uintptr_t)ring->avail,
	};
	return client_send_acked(client, &msg, NULL, 0);
}

int vhost_user_client_set_vring(struct vhost_user_client *client, uint32_t index,
				const struct vring_driver *ring)
{
	int rc = send_state(client, VHOST_USER_SET_VRING_NUM, index, ring->size);
	if (rc == 0)
		rc = send_state(client, VHOST_USER_SET_VRING_BASE, index, vring_driver_base(ring));
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

	client_prepare(&msg, VHOST_USER_GET_VRING_BASE, sizeof(struct vhost_user_vring_state));
	msg.payload.state.index = index;
	int rc = client_send(client, &msg, NULL, 0);
	if (rc < 0)
		return rc;
	return client_recv_reply(client, VHOST_USER_GET_VRING_BASE, &msg,
				 sizeof(struct vhost_user_vring_state));
}
