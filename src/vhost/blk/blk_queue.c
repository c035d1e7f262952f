/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a virtio-blk queue. Control thread. */
#include "vhost/blk/blk_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vhost/blk/blk_request.h"

#define POOL_BYTES ((size_t)BLK_LONG_COUNT * BLK_LONG_IOVS * sizeof(struct iovec))

static int pool_init(struct blk_iov_pool *pool)
{
	/* Not resident until a long chain comes: a queue that sees none pays nothing. */
	void *memory = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	pool->memory = memory;
	pool->free_count = BLK_LONG_COUNT;
	for (uint16_t i = 0; i < BLK_LONG_COUNT; i++)
		pool->free[i] = (uint16_t)(BLK_LONG_COUNT - 1 - i);
	return 0;
}

/* Zeroed, and on cache lines of its own: aligned_alloc(3) takes whole ones only. */
static void *alloc_lines(size_t bytes)
{
	size_t padded = (bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
	void *memory = aligned_alloc(CACHE_LINE_BYTES, padded);

	if (memory != NULL)
		memset(memory, 0, padded);
	return memory;
}

int blk_queue_create(const struct blk_queue_options *options, struct blk_queue **out)
{
	struct blk_queue *queue = alloc_lines(sizeof(*queue));

	if (queue == NULL)
		return -ENOMEM;
	vhost_queue_init(&queue->base, blk_queue_poll);
	queue->requests = alloc_lines(options->size * sizeof(struct blk_request));
	if (queue->requests == NULL || pool_init(&queue->pool) < 0) {
		blk_queue_destroy(queue);
		return -ENOMEM;
	}
	for (uint16_t i = 0; i < options->size; i++) {
		queue->requests[i].queue = queue;
		queue->requests[i].head = i;
	}
	queue->base.channel = options->channel;
	queue->channel = options->channel->bdev;
	queue->features = options->features;
	queue->read_only = options->read_only;
	queue->write_through = options->write_through;
	memcpy(queue->serial, options->serial, strnlen(options->serial, BLK_SERIAL_BYTES));
	*out = queue;
	return 0;
}

void blk_queue_destroy(struct blk_queue *queue)
{
	virtqueue_fini(&queue->base.vq);
	if (queue->pool.memory != NULL)
		munmap(queue->pool.memory, POOL_BYTES);
	free(queue->requests);
	free(queue);
}
