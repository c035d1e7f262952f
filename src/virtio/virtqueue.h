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

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "memory/guest_memory.h"
#include "virtio/inflight.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio rings are little-endian");

#define VIRTQUEUE_SIZE_MAX 1024
/* Entries of an indirect table; the specification allows the queue size, drivers use more. */
#define VIRTQUEUE_INDIRECT_MAX 1024
/* The most descriptors of one chain: a whole ring, its last one an indirect table. */
#define VIRTQUEUE_CHAIN_MAX (VIRTQUEUE_SIZE_MAX + VIRTQUEUE_INDIRECT_MAX)

/* What is remembered of a request of a packed ring until it is given back. Indexed by buffer id. */
struct virtqueue_taken {
	uint16_t slot_count; /* ring descriptors of its chain */
	uint16_t entry;      /* its head in the journal */
};

/* A request given back whose batch is not published yet. */
struct virtqueue_pushed {
	uint32_t written_bytes;
	uint16_t id;
};
/* More than one poll takes: completions of a poll never overflow the array. */
#define VIRTQUEUE_PUSHED_SPARE 64

struct virtqueue {
	union {
		struct vring_desc *desc;
		struct vring_packed_desc *packed_desc;
	};
	union {
		struct vring_avail *avail;
		struct vring_packed_desc_event *driver_event;
	};
	union {
		struct vring_used *used;
		struct vring_packed_desc_event *device_event;
	};
	const struct mem_table *mem;
	union {
		struct inflight_split *split_journal;
		struct inflight_packed *packed_journal;
	};
	uint64_t journal_counter;
	uint16_t size; /* split: a power of two */
	uint16_t mask; /* split */
	/* Split: free running. Packed: a slot of the ring, with its wrap counter. */
	uint16_t avail_index;
	uint16_t used_index;
	uint16_t used_signalled; /* used_index when the call was last decided; EVENT_IDX */
	uint16_t pushed_count;
	bool avail_wrap;
	bool used_wrap;
	bool packed;    /* VIRTIO_F_RING_PACKED negotiated */
	bool event_idx; /* VIRTIO_RING_F_EVENT_IDX negotiated */
	bool indirect;  /* VIRTIO_RING_F_INDIRECT_DESC negotiated */
	bool broken;
	uint32_t mem_hint;
	struct virtqueue_pushed *pushed; /* size + VIRTQUEUE_PUSHED_SPARE of them */
	struct virtqueue_taken *taken;   /* packed: size of them */
	uint32_t taken_slots;            /* packed: ring descriptors not given back */
	/* Taken before a predecessor died, to be served first: split heads, packed entries of the
	 * journal. */
	uint16_t *resubmit;
	uint16_t resubmit_count;
	uint16_t resubmit_index;
	const char *broken_why;
};

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
/* With nothing in flight: the journal is fresh again, for a ring that may begin elsewhere. */
void virtqueue_retire_journal(struct virtqueue *vq);
/* Frees what init allocated; harmless on zeroed memory. Control thread. */
void virtqueue_fini(struct virtqueue *vq);

/* Where the device goes on, as GET_VRING_BASE tells it: split: the avail index; packed: bits 0-14
 * the next avail slot, 15 its wrap counter, 16-30 the next used slot, 31 its wrap counter. */
uint32_t virtqueue_base(const struct virtqueue *vq);

/* Marks the queue broken; why is a literal. */
void virtqueue_break(struct virtqueue *vq, const char *why);

/* ---- chains ------------------------------------------------------------------------------ */

/* A request that the driver made available. */
struct virtqueue_head {
	struct vring_desc first; /* a copy of its first descriptor, in the split layout */
	uint16_t id;             /* what it is given back by: < size, one request each at a time */
	uint16_t slot;           /* of the first descriptor in the ring */
	uint16_t slot_count;     /* packed: descriptors in the ring; split: 1 */
	bool resubmitted;        /* from the journal */
};

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

#include "virtio/virtqueue_packed.h"
#include "virtio/virtqueue_split.h"

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
