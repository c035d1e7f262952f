/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front-end side of the vhost-user protocol: one connection to a target, and the messages
 * that bring a device up. Requests block until answered (where the protocol has an answer) for at
 * most VHOST_USER_CLIENT_TIMEOUT_S. Owned by one thread.
 *
 * A function that fails returns -errno and leaves a sentence for people in client->error.
 * Source: QEMU, docs/interop/vhost-user.rst.
 */
#ifndef SLUICE_FRONTEND_VHOST_USER_CLIENT_H
#define SLUICE_FRONTEND_VHOST_USER_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "frontend/guest_arena.h"
#include "frontend/vring_driver.h"

#define VHOST_USER_CLIENT_TIMEOUT_S 15

struct vhost_user_client {
	int sock;       /* owned; -1 when not connected */
	int journal_fd; /* owned; -1 unless we keep the inflight journal */
	uint64_t offered_features;
	uint64_t features; /* what vhost_user_client_set_features() settled */
	uint64_t offered_protocol_features;
	uint64_t protocol_features;
	char error[256];
};

/* Connects, and asks what the target offers. On success the connection is to be closed with
 * vhost_user_client_close(), which is harmless after a failure too. */
int vhost_user_client_connect(struct vhost_user_client *client, const char *path);
void vhost_user_client_close(struct vhost_user_client *client);

static inline bool vhost_user_client_has(const struct vhost_user_client *client, unsigned int bit)
{
	return (client->features >> bit) & 1;
}

static inline bool vhost_user_client_has_protocol(const struct vhost_user_client *client,
						  unsigned int bit)
{
	return (client->protocol_features >> bit) & 1;
}

/* Takes of the protocol features offered those in wanted, and becomes the owner of the device. */
int vhost_user_client_negotiate_protocol(struct vhost_user_client *client, uint64_t wanted);

/* The most queues that the target serves: its answer, or 1 when it does not negotiate MQ. */
int vhost_user_client_queue_max(struct vhost_user_client *client, uint32_t *out_count);

/* The first len_bytes (at most VHOST_USER_CONFIG_MAX_BYTES) of the device's configuration. A
 * target may give fewer: the rest of buf is zeroed and the count is returned. */
ssize_t vhost_user_client_get_config(struct vhost_user_client *client, void *buf,
				     uint32_t len_bytes);

/* The virtio features that the driver accepts; PROTOCOL_FEATURES is added when negotiated. */
int vhost_user_client_set_features(struct vhost_user_client *client, uint64_t features);

/* Shows the target the arena. */
int vhost_user_client_set_memory(struct vhost_user_client *client, const struct guest_arena *arena);

/* Asks the target for an inflight journal of that many rings of that size, keeps it and hands it
 * over: before the first ring, and after set_features(). Needs INFLIGHT_SHMFD. */
int vhost_user_client_keep_journal(struct vhost_user_client *client, uint32_t queue_count,
				   uint16_t ring_size);

/* Size, addresses, indices (as of a new ring), kick and call of a ring. It is not enabled yet. */
int vhost_user_client_set_vring(struct vhost_user_client *client, uint32_t index,
				const struct vring_driver *ring);

/* Lets a ring run. Nothing to do when PROTOCOL_FEATURES is not negotiated: rings then run from
 * their kick fd on. */
int vhost_user_client_enable_vring(struct vhost_user_client *client, uint32_t index);

/* Returns when the target has handled every message before, with or without REPLY_ACK. */
int vhost_user_client_sync(struct vhost_user_client *client);

/* Stops a ring in an orderly manner (GET_VRING_BASE). */
int vhost_user_client_stop_vring(struct vhost_user_client *client, uint32_t index);

#endif
