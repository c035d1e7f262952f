/* SPDX-License-Identifier: Apache-2.0 */
/* What is particular to split rings (virtio 1.2, section 2.7). Owning reactor. */
#ifndef SLUICE_VIRTIO_VIRTQUEUE_SPLIT_H
#define SLUICE_VIRTIO_VIRTQUEUE_SPLIT_H

#include "virtio/virtqueue_state.h"

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

static inline uint32_t virtqueue_split_peek(struct virtqueue *vq, struct virtqueue_head *heads,
					    uint32_t max)
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
		heads[i].id = head;
		heads[i].slot = head;
		heads[i].slot_count = 1;
		heads[i].resubmitted = false;
		__builtin_prefetch(&vq->desc[head]);
	}
	return count;
}

static inline void virtqueue_split_take(struct virtqueue *vq, const struct virtqueue_head *head)
{
	struct inflight_split_desc *entry = &vq->split_journal->desc[head->id];

	entry->counter = vq->journal_counter++;
	store_release(&entry->inflight, 1);
	vq->avail_index++;
}

/* Fills the used elements of the batch and chains it up in the journal. */
static inline void virtqueue_split_fill(struct virtqueue *vq)
{
	struct inflight_split *journal = vq->split_journal;
	uint16_t last = load_relaxed(&journal->last_batch_head);

	for (uint32_t i = 0; i < vq->pushed_count; i++) {
		const struct virtqueue_pushed *pushed = &vq->pushed[i];
		void *elem = &vq->used->ring[vq->used_index++ & vq->mask];
		/* Two le32 fields, id and len, in one store: elements are 4-aligned at least. */
		uint64_t value = (uint64_t)pushed->written_bytes << 32 | pushed->id;

		__builtin_memcpy(elem, &value, sizeof(value));
		journal->desc[pushed->id].next = last;
		last = pushed->id;
	}
	store_release(&journal->last_batch_head, last);
}

/* Strikes the published batch off the journal. */
static inline void virtqueue_split_settle(struct virtqueue *vq)
{
	struct inflight_split *journal = vq->split_journal;

	for (uint32_t i = 0; i < vq->pushed_count; i++)
		store_relaxed(&journal->desc[vq->pushed[i].id].inflight, 0);
	store_release(&journal->used_index, vq->used_index);
	vq->pushed_count = 0;
}

static inline uint16_t *virtqueue_used_event(const struct virtqueue *vq)
{
	return &vq->avail->ring[vq->size];
}

static inline uint16_t *virtqueue_avail_event(const struct virtqueue *vq)
{
	return (uint16_t *)&vq->used->ring[vq->size];
}

static inline bool virtqueue_split_publish(struct virtqueue *vq)
{
	virtqueue_split_fill(vq);
	uint16_t index = vq->used_index;

	/* Partner: the driver re-enables calls, then looks at used->idx once more; we store the
	 * index, then look whether it wants a call. Sequential consistency makes one of us see
	 * the other. It is also the release that orders the used elements before the index. */
	__atomic_store_n(&vq->used->idx, index, __ATOMIC_SEQ_CST);
	virtqueue_split_settle(vq);
	if (vq->event_idx) {
		uint16_t event = __atomic_load_n(virtqueue_used_event(vq), __ATOMIC_SEQ_CST);
		uint16_t old = vq->used_signalled;
		vq->used_signalled = index;
		return vring_need_event(event, index, old);
	}
	return !(__atomic_load_n(&vq->avail->flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT);
}

static inline void virtqueue_split_disable_kick(struct virtqueue *vq)
{
	/* With EVENT_IDX a stale avail_event is as good: at most one kick in 65536 entries. */
	if (!vq->event_idx)
		store_relaxed(&vq->used->flags, VRING_USED_F_NO_NOTIFY);
}

static inline bool virtqueue_split_enable_kick(struct virtqueue *vq)
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
