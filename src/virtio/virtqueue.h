/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device side of a split virtqueue (virtio 1.2, section 2.7), in memory that the driver may
 * change at any time: what is read is copied once, and the copy is checked.
 *
 * A virtqueue belongs to one reactor while it runs. The structural rules of the ring are held
 * here; a driver that breaks one gets its queue marked broken, and the queue is not read again.
 */
#ifndef SLUICE_VIRTIO_VIRTQUEUE_H
#define SLUICE_VIRTIO_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "memory/guest_memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio rings are little-endian");

#define VIRTQUEUE_SIZE_MAX 1024
/* Entries of an indirect table; the specification allows the queue size, drivers use more. */
#define VIRTQUEUE_INDIRECT_MAX 1024
/* The most descriptors of one chain: a whole ring, its last one an indirect table. */
#define VIRTQUEUE_CHAIN_MAX (VIRTQUEUE_SIZE_MAX + VIRTQUEUE_INDIRECT_MAX)

struct virtqueue {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	const struct mem_table *mem;
	uint16_t size; /* a power of two */
	uint16_t mask;
	uint16_t avail_index;    /* the next entry of avail to take, free running */
	uint16_t used_index;     /* the next entry of used to fill, free running */
	uint16_t used_published; /* what the driver was told */
	uint16_t used_signalled; /* EVENT_IDX: used_published when the call was last decided */
	uint32_t mem_hint;
	bool event_idx; /* VIRTIO_RING_F_EVENT_IDX negotiated */
	bool indirect;  /* VIRTIO_RING_F_INDIRECT_DESC negotiated */
	bool broken;
	const char *broken_why;
};

/* Where the ring lies and how it starts; filled by the control thread. */
struct virtqueue_options {
	void *desc;
	void *avail;
	void *used;
	const struct mem_table *mem;
	uint16_t size; /* 1 to VIRTQUEUE_SIZE_MAX, a power of two */
	uint16_t avail_index;
	bool event_idx;
	bool indirect;
};

/* Bytes of each part of a ring, the event index fields included (section 2.7). */
static inline uint64_t virtqueue_desc_bytes(uint32_t size)
{
	return (uint64_t)size * sizeof(struct vring_desc);
}
static inline uint64_t virtqueue_avail_bytes(uint32_t size)
{
	return 2 * sizeof(uint16_t) + (uint64_t)size * sizeof(uint16_t) + sizeof(uint16_t);
}
static inline uint64_t virtqueue_used_bytes(uint32_t size)
{
	return 2 * sizeof(uint16_t) + (uint64_t)size * sizeof(struct vring_used_elem) +
	       sizeof(uint16_t);
}

/* Reads used->idx, from where the device goes on. Owning reactor, or before it has one. */
void virtqueue_init(struct virtqueue *vq, const struct virtqueue_options *options);

/* Marks the queue broken; why is a literal. */
void virtqueue_break(struct virtqueue *vq, const char *why);

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
 * Walks the chain that starts with first, the caller's copy of desc[head], into chain. 0; -ENOBUFS
 * if iov_max is too small (walk again with more); -EINVAL if the chain breaks a rule of the ring,
 * and then the queue is broken.
 */
int virtqueue_walk(struct virtqueue *vq, struct vring_desc first, struct virtqueue_chain *chain);

/* One copy of a descriptor: two loads, never repeated. */
static inline struct vring_desc virtqueue_copy_desc(const struct vring_desc *from)
{
	union {
		uint64_t words[2];
		struct vring_desc desc;
	} copy;

	copy.words[0] = load_relaxed((const uint64_t *)from);
	copy.words[1] = load_relaxed((const uint64_t *)from + 1);
	return copy.desc;
}

/* ---- taking what the driver made available ------------------------------------------------ */

/* True if the driver has made something available that was not taken. */
static inline bool virtqueue_has_avail(const struct virtqueue *vq)
{
	return load_relaxed(&vq->avail->idx) != vq->avail_index;
}

/*
 * Copies up to max heads that are available into heads, without taking them: the caller adds to
 * avail_index what it has dealt with. Prefetches their descriptors. 0 if there are none, or if the
 * queue is or became broken.
 */
static inline uint32_t virtqueue_peek(struct virtqueue *vq, uint16_t *heads, uint32_t max)
{
	/* Partner: the driver's write barrier between its ring entries and avail->idx. */
	uint16_t avail = load_acquire(&vq->avail->idx);
	uint32_t count = (uint16_t)(avail - vq->avail_index);

	if (count == 0)
		return 0;
	if (unlikely(count > vq->size)) {
		virtqueue_break(vq, "avail index is more than a ring ahead");
		return 0;
	}
	count = MIN(count, max);
	for (uint32_t i = 0; i < count; i++) {
		uint16_t slot = (uint16_t)(vq->avail_index + i) & vq->mask;
		uint16_t head = load_relaxed(&vq->avail->ring[slot]);
		if (unlikely(head >= vq->size)) {
			virtqueue_break(vq, "available head is outside the ring");
			return 0;
		}
		heads[i] = head;
		__builtin_prefetch(&vq->desc[head]);
	}
	return count;
}

/* ---- giving back -------------------------------------------------------------------------- */

/* Fills the next used entry; the driver sees it with the next virtqueue_publish(). written_bytes
 * is what was written into the device-writable part, from its start. */
static inline void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written_bytes)
{
	void *elem = &vq->used->ring[vq->used_index & vq->mask];

	/* Two le32 fields, id and len, in one store: the element is 4-aligned at least. */
	uint64_t value = (uint64_t)written_bytes << 32 | head;
	__builtin_memcpy(elem, &value, sizeof(value));
	vq->used_index++;
}

static inline uint16_t *virtqueue_used_event(const struct virtqueue *vq)
{
	return &vq->avail->ring[vq->size];
}

static inline uint16_t *virtqueue_avail_event(const struct virtqueue *vq)
{
	return (uint16_t *)&vq->used->ring[vq->size];
}

/* Publishes what was pushed. True if the driver wants to be called. */
static inline bool virtqueue_publish(struct virtqueue *vq)
{
	uint16_t index = vq->used_index;

	if (index == vq->used_published)
		return false;
	vq->used_published = index;
	/* Partner: the driver re-enables calls, then looks at used->idx once more; we store the
	 * index, then look whether it wants a call. Sequential consistency makes one of us see
	 * the other. It is also the release that orders the used elements before the index. */
	__atomic_store_n(&vq->used->idx, index, __ATOMIC_SEQ_CST);
	if (vq->event_idx) {
		uint16_t event = __atomic_load_n(virtqueue_used_event(vq), __ATOMIC_SEQ_CST);
		uint16_t old = vq->used_signalled;
		vq->used_signalled = index;
		return vring_need_event(event, index, old);
	}
	return !(__atomic_load_n(&vq->avail->flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT);
}

/* ---- kicks --------------------------------------------------------------------------------- */

/* Tells the driver not to kick. */
static inline void virtqueue_disable_kick(struct virtqueue *vq)
{
	/* With EVENT_IDX a stale avail_event is as good: at most one kick in 65536 entries. */
	if (!vq->event_idx)
		store_relaxed(&vq->used->flags, VRING_USED_F_NO_NOTIFY);
}

/* Asks for a kick and looks once more: false if there is something to take already (kicks are
 * then still enabled). */
static inline bool virtqueue_enable_kick(struct virtqueue *vq)
{
	/* Partner: the driver stores avail->idx, passes a full barrier, then looks whether we want
	 * a kick. */
	if (vq->event_idx)
		__atomic_store_n(virtqueue_avail_event(vq), vq->avail_index, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&vq->used->flags, 0, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&vq->avail->idx, __ATOMIC_SEQ_CST) == vq->avail_index;
}

#endif
