/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio-blk device as its driver sees it: see blk_client.h, also for who owns it. */
#include "frontend/blk_client.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdio.h>

#include "vhost/vhost_user_wire.h"

#define BIT(n) (1ull << (n))

/* Up to and with the WRITE_ZEROES fields. Later fields exist only in newer headers, and targets
 * built with older ones refuse to be asked for more than they know. */
#define CONFIG_BYTES 60u
_Static_assert(offsetof(struct virtio_blk_config, unused1) + 3 == CONFIG_BYTES, "blk config");

#define BLOCK_SIZE_MAX (64u << 10)

#define PROTOCOL_FEATURES                                                                     \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |               \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | \
	 BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))

#define DRIVER_FEATURES                                                                     \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | \
	 BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |      \
	 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_DISCARD) |    \
	 BIT(VIRTIO_BLK_F_WRITE_ZEROES))

static bool offers(const struct blk_client *client, unsigned int bit)
{
	return (client->vhost.offered_features >> bit) & 1;
}

static int refuse(struct blk_client *client, const char *why)
{
	snprintf(client->vhost.error, sizeof(client->vhost.error), "%s", why);
	return -EPROTO;
}

/* A field that a short configuration does not have reads as 0, which is taken as "not said". */
static int read_geometry(struct blk_client *client)
{
	struct virtio_blk_config config;
	ssize_t got = vhost_user_client_get_config(&client->vhost, &config, CONFIG_BYTES);

	if (got < 0)
		return (int)got;
	if ((size_t)got < sizeof(config.capacity))
		return refuse(client, "the target's configuration is too short to hold a capacity");
	if (config.capacity == 0 || config.capacity > UINT64_MAX / BLK_SECTOR_BYTES)
		return refuse(client, "the target says that its disk is empty or impossibly large");
	client->capacity_bytes = config.capacity * BLK_SECTOR_BYTES;
	client->block_size_bytes = BLK_SECTOR_BYTES;
	if (offers(client, VIRTIO_BLK_F_BLK_SIZE) && config.blk_size != 0)
		client->block_size_bytes = config.blk_size;
	if (client->block_size_bytes < BLK_SECTOR_BYTES ||
	    client->block_size_bytes > BLOCK_SIZE_MAX ||
	    (client->block_size_bytes & (client->block_size_bytes - 1)) != 0)
		return refuse(client, "the target's block size is no power of two from 512 to 64k");
	client->segment_bytes_max = UINT32_MAX;
	if (offers(client, VIRTIO_BLK_F_SIZE_MAX) && config.size_max != 0)
		client->segment_bytes_max = config.size_max;
	client->segment_count_max = UINT32_MAX;
	if (offers(client, VIRTIO_BLK_F_SEG_MAX) && config.seg_max != 0)
		client->segment_count_max = config.seg_max;
	if (!offers(client, VIRTIO_BLK_F_MQ))
		client->queue_max = 1;
	else if (config.num_queues != 0)
		client->queue_max = MIN(client->queue_max, config.num_queues);
	return 0;
}

int blk_client_open(struct blk_client *client, const char *path)
{
	*client = (struct blk_client){.vhost = {.sock = -1, .journal_fd = -1}};
	int rc = vhost_user_client_connect(&client->vhost, path);
	if (rc < 0)
		return rc;
	if (!offers(client, VIRTIO_F_VERSION_1))
		return refuse(client, "the target does not offer virtio 1 (VERSION_1)");
	if (!(client->vhost.offered_protocol_features & BIT(VHOST_USER_PROTOCOL_F_CONFIG)))
		return refuse(client, "the target does not offer the CONFIG protocol feature, "
				      "so its capacity cannot be known");
	rc = vhost_user_client_negotiate_protocol(&client->vhost, PROTOCOL_FEATURES);
	if (rc < 0)
		return rc;
	rc = vhost_user_client_queue_max(&client->vhost, &client->queue_max);
	if (rc < 0)
		return rc;
	client->read_only = offers(client, VIRTIO_BLK_F_RO);
	client->flush = offers(client, VIRTIO_BLK_F_FLUSH);
	client->indirect = offers(client, VIRTIO_RING_F_INDIRECT_DESC);
	client->packed = offers(client, VIRTIO_F_RING_PACKED);
	client->event_idx = offers(client, VIRTIO_RING_F_EVENT_IDX);
	return read_geometry(client);
}

void blk_client_close(struct blk_client *client)
{
	vhost_user_client_close(&client->vhost);
}

int blk_client_accept(struct blk_client *client, const struct blk_client_choice *choice)
{
	uint64_t features = client->vhost.offered_features & DRIVER_FEATURES;

	if (choice->indirect)
		features |= BIT(VIRTIO_RING_F_INDIRECT_DESC);
	if (choice->packed)
		features |= BIT(VIRTIO_F_RING_PACKED);
	if (choice->event_idx)
		features |= BIT(VIRTIO_RING_F_EVENT_IDX);
	return vhost_user_client_set_features(&client->vhost, features);
}
