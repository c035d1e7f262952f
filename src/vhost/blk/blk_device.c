/* SPDX-License-Identifier: Apache-2.0 */
/* Features and configuration space of virtio-blk disks. Control thread. */
#include "vhost/blk/blk_device.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <stddef.h>
#include <string.h>

#include "vhost/blk/blk_queue.h"

#define SECTOR_BYTES 512u
#define BIT(n) (1ull << (n))

/* In sectors, as many as 32 bits can say and still whole blocks. */
static uint32_t sectors_u32(uint64_t bytes, uint32_t block_bytes)
{
	uint64_t sectors = bytes / SECTOR_BYTES;
	uint64_t max = UINT32_MAX - UINT32_MAX % (block_bytes / SECTOR_BYTES);

	return (uint32_t)MIN(sectors, max);
}

static uint8_t log2_u32(uint32_t v)
{
	return (uint8_t)(31 - __builtin_clz(v));
}

void blk_config_fill(struct virtio_blk_config *config, const struct bdev *bdev,
		     uint32_t queue_count, bool writeback)
{
	const struct bdev_limits *limits = &bdev->limits;
	uint32_t block = limits->block_size_bytes;

	memset(config, 0, sizeof(*config));
	config->capacity = bdev_size_bytes(bdev) / SECTOR_BYTES;
	config->size_max = BLK_SIZE_MAX_BYTES;
	config->seg_max = BLK_SEG_MAX;
	config->blk_size = block;
	config->physical_block_exp = log2_u32(limits->physical_block_size_bytes / block);
	/* The largest power of two that fits; the exponent above tells the whole of it. */
	config->min_io_size = (uint16_t)MIN(limits->physical_block_size_bytes / block, 1u << 15);
	config->opt_io_size = limits->optimal_io_bytes / block;
	config->wce = writeback;
	config->num_queues = (uint16_t)queue_count;
	/* Zero limits beside the feature bit crash drivers; without the bit they are not read. */
	if (limits->discard_max_bytes > 0) {
		config->max_discard_sectors = sectors_u32(limits->discard_max_bytes, block);
		config->max_discard_seg = BLK_RANGES_MAX;
		config->discard_sector_alignment =
			MAX(limits->discard_granularity_bytes, block) / SECTOR_BYTES;
	}
	if (limits->write_zeroes_max_bytes > 0) {
		config->max_write_zeroes_sectors =
			sectors_u32(limits->write_zeroes_max_bytes, block);
		config->max_write_zeroes_seg = BLK_RANGES_MAX;
		config->write_zeroes_may_unmap = limits->write_zeroes_unmap;
	}
}

uint64_t blk_features(const struct bdev *bdev, bool read_only, uint32_t queue_count,
		      bool packed_ring)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
			    BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) |
			    BIT(VHOST_F_LOG_ALL) | BIT(VIRTIO_BLK_F_SIZE_MAX) |
			    BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
			    BIT(VIRTIO_BLK_F_CONFIG_WCE);

	if (packed_ring)
		features |= BIT(VIRTIO_F_RING_PACKED);
	if (queue_count > 1)
		features |= BIT(VIRTIO_BLK_F_MQ);
	if (read_only)
		return features | BIT(VIRTIO_BLK_F_RO);
	if (bdev->limits.discard_max_bytes > 0)
		features |= BIT(VIRTIO_BLK_F_DISCARD);
	if (bdev->limits.write_zeroes_max_bytes > 0)
		features |= BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	return features;
}

static uint64_t device_features(const struct vhost_controller *controller)
{
	return blk_features(controller_bdev(controller), controller->read_only,
			    controller->queue_count, controller->packed_ring);
}

static void device_config_get(const struct vhost_controller *controller, uint8_t *out,
			      uint32_t out_bytes)
{
	struct virtio_blk_config config;

	blk_config_fill(&config, controller_bdev(controller), controller->queue_count,
			controller->writeback);
	memset(out, 0, out_bytes);
	memcpy(out, &config, MIN(out_bytes, sizeof(config)));
}

/*
 * Whether a write must be durable when it completes. A driver that did not take FLUSH cannot ask
 * for durability, so it gets it always; one that took CONFIG_WCE chooses (section 5.2.6.2).
 */
static bool is_write_through(const struct vhost_session *session)
{
	if (!controller_bdev(session->controller)->limits.volatile_write_cache)
		return false;
	if (!(session->features & BIT(VIRTIO_BLK_F_FLUSH)))
		return true;
	return (session->features & BIT(VIRTIO_BLK_F_CONFIG_WCE)) &&
	       !session->controller->writeback;
}

static int device_config_set(struct vhost_session *session, uint32_t offset, const uint8_t *data,
			     uint32_t data_bytes)
{
	struct vhost_controller *controller = session->controller;

	/* The write cache mode is the one field that a driver may write. */
	if (offset != offsetof(struct virtio_blk_config, wce) || data_bytes != 1 || data[0] > 1)
		return -EINVAL;
	controller->writeback = data[0] == 1;
	list_for_each (node, &controller->sessions) {
		struct vhost_session *other = list_entry(node, struct vhost_session, link);
		for (uint32_t i = 0; i < other->queue_count; i++) {
			struct vhost_queue *run = other->queues[i].run;
			if (run != NULL)
				store_relaxed(
					&container_of(run, struct blk_queue, base)->write_through,
					is_write_through(other));
		}
	}
	return 0;
}

static int device_queue_create(struct vhost_session *session, uint16_t size,
			       struct vhost_channel *channel, struct vhost_queue **out)
{
	struct blk_queue *queue;
	struct blk_queue_options options = {
		.channel = channel,
		.size = size,
		.features = session->features,
		.read_only = session->controller->read_only,
		.write_through = is_write_through(session),
		.serial = session->controller->serial,
	};

	int rc = blk_queue_create(&options, &queue);
	if (rc == 0)
		*out = &queue->base;
	return rc;
}

static void device_queue_destroy(struct vhost_queue *queue)
{
	blk_queue_destroy(container_of(queue, struct blk_queue, base));
}

const struct vhost_device_ops blk_device_ops = {
	.transport = "vhost_user_blk",
	.features = device_features,
	.config_get = device_config_get,
	.config_set = device_config_set,
	.queue_create = device_queue_create,
	.queue_destroy = device_queue_destroy,
};
