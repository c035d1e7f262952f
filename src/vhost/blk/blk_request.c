/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path of virtio-blk: from a batch of available heads to submitted block I/O, and back
 * from its completion to the used ring. On the queue's reactor; nothing here locks, allocates or
 * logs.
 */
#include "vhost/blk/blk_request.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>

#include "bdev/bdev_io.h"

/* Heads taken in one poll. Long enough to hide the misses of one request behind the work on
 * others, short enough that completions are published often. */
#define BATCH 32

static const uint8_t virtio_status[BDEV_STATUS_COUNT] = {
	[BDEV_STATUS_OK] = VIRTIO_BLK_S_OK,
	[BDEV_STATUS_IO_ERROR] = VIRTIO_BLK_S_IOERR,
	[BDEV_STATUS_NO_SPACE] = VIRTIO_BLK_S_IOERR,
	[BDEV_STATUS_OUT_OF_RANGE] = VIRTIO_BLK_S_IOERR,
	[BDEV_STATUS_MISALIGNED] = VIRTIO_BLK_S_IOERR,
	[BDEV_STATUS_READ_ONLY] = VIRTIO_BLK_S_IOERR,
	[BDEV_STATUS_UNSUPPORTED] = VIRTIO_BLK_S_UNSUPP,
	[BDEV_STATUS_ABORTED] = VIRTIO_BLK_S_IOERR,
};

/* ---- ending ------------------------------------------------------------------------------- */

static void give_back_long_iovs(struct blk_request *request)
{
	struct blk_iov_pool *pool = &request->queue->pool;
	size_t index = (size_t)(request->long_iovs - pool->memory) / BLK_LONG_IOVS;

	pool->free[pool->free_count++] = (uint16_t)index;
	request->long_iovs = NULL;
}

/* Logs what a request wrote: its data, written even if only in part, and the status byte. */
__attribute__((cold)) static void mark_dirty(struct blk_request *request)
{
	struct vhost_queue *queue = &request->queue->base;

	if (request->io.type == BDEV_IO_READ) {
		for (uint32_t i = 0; i < request->io.iov_count; i++)
			vhost_queue_mark_dirty(queue, request->io.iovs[i].iov_base,
					       request->io.iovs[i].iov_len);
	}
	vhost_queue_mark_dirty(queue, request->status, 1);
}

/* A function for the sake of tests/protocol/tsan.supp: a byte of the guest, see guest_copy(). */
static inline void store_status(struct blk_request *request, uint8_t status)
{
	*request->status = status;
}

void blk_request_end(struct blk_request *request, uint8_t status, uint32_t written_bytes)
{
	store_status(request, status);
	if (unlikely(request->queue->base.log != NULL))
		mark_dirty(request);
	if (unlikely(request->long_iovs != NULL))
		give_back_long_iovs(request);
	request->busy = false;
	vhost_queue_complete(&request->queue->base, request->head, request->epoch, written_bytes);
}

/* On failure the data was not, or not wholly, written: only a chain without any has something
 * written from its start, the status byte. */
void blk_request_fail(struct blk_request *request, uint8_t status)
{
	request->flush_after = false;
	request->range_index = 0;
	request->range_count = 0;
	blk_request_end(request, status, request->written_bytes == 1 ? 1 : 0);
}

void blk_request_reject(struct blk_request *request, uint8_t status)
{
	/* What its last I/O left here must not be taken for something written now. */
	request->io.type = BDEV_IO_FLUSH;
	blk_request_fail(request, status);
}

static void submit_flush(struct blk_request *request)
{
	request->io.type = BDEV_IO_FLUSH;
	request->io.offset_bytes = 0;
	request->io.len_bytes = 0;
	bdev_submit(request->queue->channel, &request->io);
}

void blk_request_complete(struct bdev_io *io, enum bdev_status status)
{
	struct blk_request *request = container_of(io, struct blk_request, io);

	if (unlikely(status != BDEV_STATUS_OK)) {
		blk_request_fail(request, virtio_status[status]);
		return;
	}
	if (unlikely(request->range_index < request->range_count)) {
		if (blk_request_next_range(request))
			return;
	}
	if (unlikely(request->flush_after)) {
		request->flush_after = false;
		submit_flush(request);
		return;
	}
	blk_request_end(request, VIRTIO_BLK_S_OK, request->written_bytes);
}

/* ---- beginning ---------------------------------------------------------------------------- */

/* Copies a header that lies in several buffers, or shares its own with data. */
__attribute__((noinline)) static bool gather_header(struct virtqueue_chain *chain,
						    struct virtio_blk_outhdr *header)
{
	uint8_t *out = (uint8_t *)header;
	size_t len = sizeof(*header);

	if (chain->readable_bytes < len)
		return false;
	chain->readable_bytes -= len;
	while (len > 0) {
		struct iovec *iov = &chain->iovs[0];
		size_t n = MIN(len, iov->iov_len);
		guest_copy(out, iov->iov_base, n);
		out += n;
		len -= n;
		if (n == iov->iov_len) {
			chain->iovs++;
			chain->iov_count--;
			chain->readable_count--;
		} else {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
	return true;
}

/* Copies the header at the start of the readable part and cuts it off. False if that is shorter. */
static inline bool take_header(struct virtqueue_chain *chain, struct virtio_blk_outhdr *header)
{
	const struct iovec *iov = &chain->iovs[0];
	uint64_t words[2];

	_Static_assert(sizeof(*header) == sizeof(words), "a header is two words");
	if (unlikely(chain->readable_count == 0 || iov->iov_len != sizeof(words)))
		return gather_header(chain, header);
	/* Registers, not memcpy(): the words are used at once. */
	memcpy(&words[0], iov->iov_base, sizeof(words[0]));
	memcpy(&words[1], (const uint8_t *)iov->iov_base + sizeof(words[0]), sizeof(words[1]));
	header->type = (uint32_t)words[0];
	header->ioprio = (uint32_t)(words[0] >> 32);
	header->sector = words[1];
	chain->readable_bytes -= sizeof(words);
	chain->iovs++;
	chain->iov_count--;
	chain->readable_count--;
	return true;
}

/* Cuts the last writable byte off the chain: where the status goes. NULL if there is none. */
static uint8_t *take_status(struct virtqueue_chain *chain)
{
	if (chain->writable_bytes == 0)
		return NULL;
	struct iovec *last = &chain->iovs[chain->iov_count - 1];
	if (last->iov_base == NULL)
		return NULL;
	uint8_t *status = (uint8_t *)last->iov_base + last->iov_len - 1;
	chain->writable_bytes--;
	if (--last->iov_len == 0)
		chain->iov_count--;
	return status;
}

static void begin_io(struct blk_request *request, enum bdev_io_type type, const struct iovec *iovs,
		     uint32_t iov_count, uint64_t sector, uint64_t len_bytes)
{
	struct bdev_io *io = &request->io;

	/* A sector beyond 2^55 would wrap; as the largest offset it is out of any range. */
	if (unlikely(sector > UINT64_MAX >> 9))
		sector = UINT64_MAX >> 9;
	io->type = type;
	io->flags = 0;
	io->iovs = iovs;
	io->iov_count = iov_count;
	io->offset_bytes = sector << 9;
	io->len_bytes = len_bytes;
	io->complete = blk_request_complete;
	bdev_submit(request->queue->channel, io);
}

static void begin_read(struct blk_request *request, const struct virtqueue_chain *data,
		       uint64_t sector)
{
	const struct iovec *iovs = &data->iovs[data->readable_count];

	/* Data in both directions makes no sense. */
	if (unlikely(data->readable_bytes != 0)) {
		blk_request_reject(request, VIRTIO_BLK_S_IOERR);
		return;
	}
	begin_io(request, BDEV_IO_READ, iovs, data->iov_count - data->readable_count, sector,
		 data->writable_bytes);
}

static void begin_write(struct blk_request *request, const struct virtqueue_chain *data,
			uint64_t sector)
{
	struct blk_queue *queue = request->queue;

	if (unlikely(data->writable_bytes != 0 || queue->read_only)) {
		blk_request_reject(request, VIRTIO_BLK_S_IOERR);
		return;
	}
	request->flush_after = load_relaxed(&queue->write_through);
	begin_io(request, BDEV_IO_WRITE, data->iovs, data->readable_count, sector,
		 data->readable_bytes);
}

static void begin_flush(struct blk_request *request, const struct virtqueue_chain *data)
{
	/* What data buffer it may have is not written: nothing is, from its start. */
	if (unlikely(data->writable_bytes != 0))
		request->written_bytes = 0;
	begin_io(request, BDEV_IO_FLUSH, NULL, 0, 0, 0);
}

/* No way to tell the driver: giving the chain back would look like success. */
static int refuse_without_status(struct blk_request *request)
{
	virtqueue_break(&request->queue->base.vq, "request without a usable status byte");
	if (request->long_iovs != NULL)
		give_back_long_iovs(request);
	return -EINVAL;
}

/* A chain that cannot be served but whose status byte is known. */
static void refuse(struct blk_request *request, uint8_t *status, uint64_t writable_bytes)
{
	request->status = status;
	request->busy = true;
	request->epoch = vhost_queue_begin(&request->queue->base);
	request->written_bytes = writable_bytes == 1 ? 1 : 0;
	blk_request_reject(request, VIRTIO_BLK_S_IOERR);
}

/* The chain of a request, walked into its own iovecs or, if long, into borrowed ones. 0; -EAGAIN
 * when none are left to borrow; -EINVAL when the queue is broken. */
static int walk(struct blk_request *request, const struct virtqueue_head *head,
		struct virtqueue_chain *chain)
{
	struct blk_iov_pool *pool = &request->queue->pool;
	struct virtqueue *vq = &request->queue->base.vq;

	chain->iovs = request->iovs;
	chain->iov_max = BLK_INLINE_IOVS;
	int rc = virtqueue_walk(vq, head, chain);
	if (likely(rc != -ENOBUFS))
		return rc;
	if (pool->free_count == 0)
		return -EAGAIN;
	request->long_iovs = &pool->memory[pool->free[--pool->free_count] * BLK_LONG_IOVS];
	chain->iovs = request->long_iovs;
	chain->iov_max = BLK_LONG_IOVS;
	rc = virtqueue_walk(vq, head, chain);
	if (rc == -ENOBUFS) {
		virtqueue_break(vq, "chain has too many buffers");
		rc = -EINVAL;
	}
	if (rc < 0)
		give_back_long_iovs(request);
	return rc;
}

/* Takes one request. 0, or as walk(). */
static int begin_request(struct blk_queue *queue, const struct virtqueue_head *head)
{
	struct blk_request *request = &queue->requests[head->id];
	struct virtqueue_chain chain;
	struct virtio_blk_outhdr header;

	if (unlikely(request->busy)) {
		virtqueue_break(&queue->base.vq, "head made available twice");
		return -EINVAL;
	}
	int rc = walk(request, head, &chain);
	if (unlikely(rc < 0))
		return rc;
	uint64_t written_bytes = chain.writable_bytes;
	uint8_t *status = take_status(&chain);
	if (unlikely(status == NULL))
		return refuse_without_status(request);
	virtqueue_take(&queue->base.vq, head);
	if (unlikely(chain.unmapped || !take_header(&chain, &header) ||
		     written_bytes > UINT32_MAX)) {
		refuse(request, status, written_bytes);
		return 0;
	}
	request->status = status;
	request->busy = true;
	request->epoch = vhost_queue_begin(&queue->base);
	request->written_bytes = (uint32_t)written_bytes;
	if (likely(header.type == VIRTIO_BLK_T_IN))
		begin_read(request, &chain, header.sector);
	else if (likely(header.type == VIRTIO_BLK_T_OUT))
		begin_write(request, &chain, header.sector);
	else if (header.type == VIRTIO_BLK_T_FLUSH)
		begin_flush(request, &chain);
	else
		blk_request_special(request, header.type, &chain);
	return 0;
}

/* The second stage of the pipeline: descriptors are here, their buffers not yet. */
static void prefetch_buffers(struct blk_queue *queue, const struct vring_desc *desc)
{
	struct virtqueue *vq = &queue->base.vq;
	uint64_t run;

	void *host = mem_translate(vq->mem, &vq->mem_hint, (gpa_t){desc->addr}, 1, &run);
	if (likely(host != NULL))
		__builtin_prefetch(host);
}

unsigned int blk_queue_poll(struct poller *poller)
{
	struct blk_queue *queue = container_of(poller, struct blk_queue, base.poller);
	struct virtqueue *vq = &queue->base.vq;
	struct virtqueue_head heads[BATCH];
	uint32_t count, i;

	vhost_queue_poll_call(&queue->base);
	if (unlikely(vq->broken))
		return 0;
	count = virtqueue_peek(vq, heads, BATCH);
	if (count == 0 && likely(!vq->broken))
		return 0;
	for (i = 0; i < count; i++)
		__builtin_prefetch(&queue->requests[heads[i].id], 1);
	for (i = 0; i < count; i++) {
		virtqueue_fetch(vq, &heads[i]);
		prefetch_buffers(queue, &heads[i].first);
	}
	for (i = 0; i < count; i++) {
		if (unlikely(begin_request(queue, &heads[i]) < 0))
			break;
	}
	if (unlikely(vq->broken))
		vhost_queue_break(&queue->base);
	counter_add(&queue->base.stats.request_count, i);
	counter_add(&queue->base.stats.batch_count, 1);
	return i;
}
