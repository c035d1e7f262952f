/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-blk device behind a vhost-user connection, as its driver sees it: what it offers, how
 * large it is, and what we accept. Owned by one thread. Failures as in vhost_user_client.h: -errno,
 * and a sentence in vhost.error.
 */
#ifndef SLUICE_FRONTEND_BLK_CLIENT_H
#define SLUICE_FRONTEND_BLK_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/vhost_user_client.h"

#define BLK_SECTOR_BYTES 512u

struct blk_client {
	struct vhost_user_client vhost;
	uint64_t capacity_bytes;
	uint32_t block_size_bytes;
	uint32_t queue_max;
	uint32_t segment_bytes_max; /* one data descriptor; UINT32_MAX: any */
	uint32_t segment_count_max; /* data descriptors of a request; UINT32_MAX: any */
	bool read_only;
	bool flush;
	/* Of the ring, offered: */
	bool indirect;
	bool packed;
	bool event_idx;
};

/* What of the ring's features the driver takes; they must have been offered. */
struct blk_client_choice {
	bool indirect;
	bool packed;
	bool event_idx;
};

/* Connects to the target at a socket path and reads the device's geometry. */
int blk_client_open(struct blk_client *client, const char *path);
void blk_client_close(struct blk_client *client);

/* Accepts the features offered that the driver knows; of the ring's only those chosen. */
int blk_client_accept(struct blk_client *client, const struct blk_client_choice *choice);

#endif
