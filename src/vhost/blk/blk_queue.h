/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-blk request queue on its reactor: one preallocated request a ring head. Made and freed
 * by the control thread, used by the reactor in between.
 */
#ifndef SLUICE_VHOST_BLK_BLK_QUEUE_H
#define SLUICE_VHOST_BLK_BLK_QUEUE_H

#include <linux/virtio_blk.h>

#include "bdev/bdev.h"
#include "vhost/vhost_queue.h"

/* Buffers that fit into a request: header, six of data, status. A 4 KiB request has three. */
#define BLK_INLINE_IOVS 8
/* A longer chain borrows an array that holds the longest possible one. */
#define BLK_LONG_IOVS (VIRTQUEUE_CHAIN_MAX + 64)
#define BLK_LONG_COUNT 16
/* Ranges of one DISCARD or WRITE_ZEROES: what fits over the iovecs of a request. */
#define BLK_RANGES_MAX 8
#define BLK_SERIAL_BYTES VIRTIO_BLK_ID_BYTES

struct blk_queue;

struct blk_request {
	struct bdev_io io;
	struct blk_queue *queue;
	uint8_t *status;
	uint32_t written_bytes; /* into the guest, if the request succeeds */
	uint16_t head;
	uint8_t epoch;
	bool busy;        /* the head is ours until it is given back */
	bool flush_after; /* a write in write-through mode */
	uint16_t range_index;
	uint16_t range_count;
	struct iovec *long_iovs; /* borrowed, or NULL */
	struct iovec iovs[BLK_INLINE_IOVS];
} CACHE_ALIGNED;

/* Arrays of BLK_LONG_IOVS, resident only once touched; the last freed is the first used. */
struct blk_iov_pool {
	struct iovec *memory;
	uint16_t free[BLK_LONG_COUNT];
	uint32_t free_count;
};

struct blk_queue {
	struct vhost_queue base;
	struct bdev_channel *channel;
	struct blk_request *requests; /* base.vq.size of them */
	uint64_t features;            /* negotiated */
	bool read_only;
	bool write_through; /* written by the control thread */
	char serial[BLK_SERIAL_BYTES];
	struct blk_iov_pool pool;
} CACHE_ALIGNED;

struct blk_queue_options {
	struct vhost_channel *channel;
	uint16_t size;
	uint64_t features;
	bool read_only;
	bool write_through;
	const char *serial; /* up to BLK_SERIAL_BYTES, zero-terminated if shorter */
};
/* Control thread: memory for a queue; base.vq is initialised by the caller. 0 or -ENOMEM. */
int blk_queue_create(const struct blk_queue_options *options, struct blk_queue **out);
void blk_queue_destroy(struct blk_queue *queue);

#endif
