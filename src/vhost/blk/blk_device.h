/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio-blk device model: features and configuration space (virtio 1.2, section 5.2). */
#ifndef SLUICE_VHOST_BLK_BLK_DEVICE_H
#define SLUICE_VHOST_BLK_BLK_DEVICE_H

#include <linux/virtio_blk.h>

#include "vhost/session.h"

/* Descriptors of data in one request, and bytes of one of them, that a driver is told to keep to.
 * The former plus header and status make the 128 entries of a common ring. */
#define BLK_SEG_MAX 126
#define BLK_SIZE_MAX_BYTES (1u << 20)

extern const struct vhost_device_ops blk_device_ops;

/* Fills the configuration space of a disk. Pure. */
void blk_config_fill(struct virtio_blk_config *config, const struct bdev *bdev,
		     uint32_t queue_count, bool writeback);
/* The feature bits that a disk offers, the ring's and vhost's own included. Pure. */
uint64_t blk_features(const struct bdev *bdev, bool read_only, uint32_t queue_count,
		      bool packed_ring);

#endif
