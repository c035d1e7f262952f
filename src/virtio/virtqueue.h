/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device side of a virtqueue, split (virtio 1.2, section 2.7) or packed (2.8), in memory that
 * the driver may change at any time: what is read is copied once, and the copy is checked.
 *
 * A virtqueue belongs to one reactor while it runs. The structural rules of the ring are held
 * here; a driver that breaks one gets its queue marked broken, and the queue is not read again.
 * Every request that is taken stands in the inflight journal until it was given back.
 *
 * The two formats share everything but what virtqueue_split.h and virtqueue_packed.h hold: taking
 * heads, giving back, and the fields by which the sides ask each other for notifications.
 */
#ifndef SLUICE_VIRTIO_VIRTQUEUE_H
#define SLUICE_VIRTIO_VIRTQUEUE_H

#include <sys/uio.h>

#include "virtio/virtqueue_packed.h"
#include "virtio/virtqueue_split.h"
#include "virtio/virtqueue_state.h"

/* Where the ring lies and how it starts; filled by the control thread. */
struct virtqueue_options {
	void *desc;
	void *avail; /* packed: the driver area */
	void *used;  /* packed: the device area */
	const struct mem_table *mem;
	void *journal; /* inflight_queue_bytes() of memory, INFLIGHT_ALIGNMENT_BYTES aligned */
	uint16_t journal_capacity; /* the queue size that it was made for, at least size */
	uint16_t size;             /* 1 to VIRTQUEUE_SIZE_MAX, split: a power of two */
	uint32_t base;             /* as virtqueue_base() */
	bool packed;
	bool event_idx;
	bool indirect;
};

/* Bytes of each part of a ring, the event index fields included (sections 2.7 and 2.8). */
uint64_t virtqueue_desc_bytes(uint32_t size);
uint64_t virtqueue_avail_bytes(uint32_t size, bool packed);
uint64_t virtqueue_used_bytes(uint32_t size, bool packed);

/* Begins, or goes on from a journal in use: 0; -ENOMEM; -EINVAL if the journal or the base does
 * not fit the ring. Control thread. */
int virtqueue_init(struct virtqueue *vq, const struct virtqueue_options *options);
/* True once all that a predecessor left in flight was taken again. */
static inline bool virtqueue_resubmitted(const struct virtqueue *vq)
{
	return vq->resubmit_index == vq->resubmit_count;
}

/* With nothing in flight: the journal is fresh again, for a ring that may begin elsewhere. */
void virtqueue_retire_journal(struct virtqueue *vq);
/* Frees what init allocated; harmless on zeroed memory. Control thread. */
void virtqueue_fini(struct virtqueue *vq);

/* Where the device goes on, as GET_VRING_BASE tells it: split: the avail index; packed: bits 0-14
 * the next avail slot, 15 its wrap counter, 16-30 the next used slot, 31 its wrap counter. */
uint32_t virtqueue_base(const struct virtqueue *vq);

/* ---- chains ------------------------------------------------------------------------------ */

/* The buffers of one chain, translated. Device-readable ones come first. */
struct virtqueue_chain {
	struct iovec *iovs; /* the caller's array of iov_max */
	uint32_t iov_max;
	uint32_t iov_count;
	uint32_t readable_count; /* the first so many of iovs */
	uint64_t readable_bytes;
	uint64_t writable_bytes;
	/* A buffer is not in guest memory: its iov has iov_base NULL. The rest is sound. */
	bool unmapped;
};

/*
 * Walks the chain of a head. 0; -ENOBUFS if iov_max is too small (walk again with more); -EINVAL
 * if the chain breaks a rule of the ring, and then the queue is broken.
 */
int virtqueue_walk(struct virtqueue *vq, const struct virtqueue_head *head,
		   struct virtqueue_chain *chain);

/* The heads of virtqueue_peek() that come from the journal. */
__attribute__((cold)) uint32_t
virtqueue_peek_resubmitted(struct virtqueue *vq, struct virtqueue_head *heads, uint32_t max);

/* ---- taking what the driver made available ------------------------------------------------ */

/*
 * Looks at up to max requests that are available and stores their heads, without taking them:
 * their first descriptors are on their way into the cache, to be copied by virtqueue_fetch().
 * 0 if there are none, or if the queue is or became broken.
 */
static inline uint32_t virtqueue_peek(struct virtqueue *vq, struct virtqueue_head *heads,
				      uint32_t max)
{
	if (unlikely(vq->resubmit_index < vq->resubmit_count))
		return virtqueue_peek_resubmitted(vq, heads, max);
	return vq->packed ? virtqueue_packed_peek(vq, heads, max)
			  : virtqueue_split_peek(vq, heads, max);
}

/* Copies the first descriptor of a head that was peeked at. */
static inline void virtqueue_fetch(struct virtqueue *vq, struct virtqueue_head *head)
{
	if (!vq->packed)
		head->first = virtqueue_copy_desc(&vq->desc[head->slot]);
}

/* Takes a request, in the order of peeking, and writes it into the journal. */
static inline void virtqueue_take(struct virtqueue *vq, const struct virtqueue_head *head)
{
	if (unlikely(head->resubmitted))
		vq->resubmit_index++; /* it stands in the journal */
	else if (vq->packed)
		virtqueue_packed_take(vq, head);
	else
		virtqueue_split_take(vq, head);
}

/* ---- giving back -------------------------------------------------------------------------- */

/* Gives a request back; the driver sees it with the next virtqueue_publish(). written_bytes is
 * what was written into the device-writable part, from its start. */
static inline void virtqueue_push(struct virtqueue *vq, uint16_t id, uint32_t written_bytes)
{
	struct virtqueue_pushed *pushed = &vq->pushed[vq->pushed_count];

	/* Only a driver that makes a head available again before it got it back comes here. */
	if (unlikely(vq->pushed_count == vq->size + VIRTQUEUE_PUSHED_SPARE)) {
		virtqueue_break(vq, "head made available before it was given back");
		return;
	}
	pushed->id = id;
	pushed->written_bytes = written_bytes;
	vq->pushed_count++;
}

/* Publishes what was pushed. True if the driver wants to be called. */
static inline bool virtqueue_publish(struct virtqueue *vq)
{
	if (vq->pushed_count == 0)
		return false;
	return vq->packed ? virtqueue_packed_publish(vq) : virtqueue_split_publish(vq);
}

/* ---- kicks --------------------------------------------------------------------------------- */

/* Tells the driver not to kick. */
static inline void virtqueue_disable_kick(struct virtqueue *vq)
{
	if (vq->packed)
		virtqueue_packed_disable_kick(vq);
	else
		virtqueue_split_disable_kick(vq);
}

/* Asks for a kick and looks once more: false if there is something to take already (kicks are
 * then still enabled). */
static inline bool virtqueue_enable_kick(struct virtqueue *vq)
{
	return vq->packed ? virtqueue_packed_enable_kick(vq) : virtqueue_split_enable_kick(vq);
}

#endif
