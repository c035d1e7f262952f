/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-blk requests that are not on the hot path: GET_ID, DISCARD and WRITE_ZEROES with
 * their ranges, and types that are unknown (virtio 1.2, section 5.2.6.1). Queue's reactor.
 */
#include <string.h>

#include "bdev/bdev_io.h"
#include "vhost/blk/blk_request.h"

/* Writes len bytes into the writable part; true if it is exactly as long. */
static bool fill_writable(struct vhost_queue *queue, const struct virtqueue_chain *data,
			  const void *from, size_t len)
{
	const uint8_t *bytes = from;

	if (data->writable_bytes != len)
		return false;
	for (uint32_t i = data->readable_count; i < data->iov_count; i++) {
		guest_copy(data->iovs[i].iov_base, bytes, data->iovs[i].iov_len);
		if (queue->log != NULL)
			vhost_queue_mark_dirty(queue, data->iovs[i].iov_base,
					       data->iovs[i].iov_len);
		bytes += data->iovs[i].iov_len;
	}
	return true;
}

static void get_id(struct blk_request *request, const struct virtqueue_chain *data)
{
	bool filled = fill_writable(&request->queue->base, data, request->queue->serial,
				    BLK_SERIAL_BYTES);

	request->io.type = BDEV_IO_FLUSH; /* nothing else was written */
	if (filled)
		blk_request_end(request, VIRTIO_BLK_S_OK, BLK_SERIAL_BYTES + 1);
	else
		blk_request_fail(request, VIRTIO_BLK_S_IOERR);
}

/* ---- ranges ------------------------------------------------------------------------------- */

/* The ranges of a request, copied once: over the iovecs that it has no further use for. */
static struct virtio_blk_discard_write_zeroes *ranges_of(struct blk_request *request)
{
	_Static_assert(BLK_RANGES_MAX * sizeof(struct virtio_blk_discard_write_zeroes) <=
			       sizeof(request->iovs),
		       "ranges fit into the iovecs");
	return (void *)request->iovs;
}

static bool copy_ranges(struct blk_request *request, const struct virtqueue_chain *data)
{
	uint8_t copy[BLK_RANGES_MAX * sizeof(struct virtio_blk_discard_write_zeroes)];
	size_t bytes = data->readable_bytes;
	size_t done = 0;

	if (bytes == 0 || bytes > sizeof(copy) ||
	    bytes % sizeof(struct virtio_blk_discard_write_zeroes) != 0)
		return false;
	for (uint32_t i = 0; i < data->readable_count; i++) {
		guest_copy(copy + done, data->iovs[i].iov_base, data->iovs[i].iov_len);
		done += data->iovs[i].iov_len;
	}
	request->range_count = (uint16_t)(bytes / sizeof(struct virtio_blk_discard_write_zeroes));
	request->range_index = 0;
	memcpy(ranges_of(request), copy, bytes);
	return true;
}

/* Flags that the specification gives to the type (section 5.2.6.2): others make it UNSUPP. */
static bool range_flags_legal(struct blk_request *request)
{
	uint32_t legal =
		request->io.type == BDEV_IO_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	const struct virtio_blk_discard_write_zeroes *ranges = ranges_of(request);

	for (uint16_t i = 0; i < request->range_count; i++) {
		if (ranges[i].flags & ~legal)
			return false;
	}
	return true;
}

bool blk_request_next_range(struct blk_request *request)
{
	struct bdev_io *io = &request->io;

	if (request->range_index == request->range_count)
		return false;
	const struct virtio_blk_discard_write_zeroes *range =
		&ranges_of(request)[request->range_index++];
	uint64_t sector = MIN(range->sector, UINT64_MAX >> 9);
	io->flags = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ? BDEV_IO_UNMAP : 0;
	io->offset_bytes = sector << 9;
	io->len_bytes = (uint64_t)range->num_sectors << 9;
	bdev_submit(request->queue->channel, io);
	return true;
}

static void begin_ranges(struct blk_request *request, enum bdev_io_type type, unsigned int feature,
			 const struct virtqueue_chain *data)
{
	struct blk_queue *queue = request->queue;

	if (!(queue->features & (1ull << feature))) {
		blk_request_reject(request, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	request->io.type = type;
	request->io.iovs = NULL;
	request->io.iov_count = 0;
	request->io.complete = blk_request_complete;
	if (queue->read_only || data->writable_bytes != 0 || !copy_ranges(request, data)) {
		blk_request_fail(request, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!range_flags_legal(request)) {
		blk_request_fail(request, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	request->flush_after = type == BDEV_IO_WRITE_ZEROES && load_relaxed(&queue->write_through);
	blk_request_next_range(request);
}

void blk_request_special(struct blk_request *request, uint32_t type,
			 const struct virtqueue_chain *data)
{
	switch (type) {
	case VIRTIO_BLK_T_GET_ID:
		get_id(request, data);
		break;
	case VIRTIO_BLK_T_DISCARD:
		begin_ranges(request, BDEV_IO_DISCARD, VIRTIO_BLK_F_DISCARD, data);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		begin_ranges(request, BDEV_IO_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES, data);
		break;
	default:
		blk_request_reject(request, VIRTIO_BLK_S_UNSUPP);
		break;
	}
}
