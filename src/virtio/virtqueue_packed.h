/* SPDX-License-Identifier: Apache-2.0 */
/* What is particular to packed rings (virtio 1.2, section 2.8). Owning reactor. */
#ifndef SLUICE_VIRTIO_VIRTQUEUE_PACKED_H
#define SLUICE_VIRTIO_VIRTQUEUE_PACKED_H

#include "virtio/virtqueue_state.h"

#define VIRTQUEUE_PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define VIRTQUEUE_PACKED_USED (1u << VRING_PACKED_DESC_F_USED)

/* A slot further on in the ring, and the wrap counter there. */
static inline void virtqueue_packed_advance(const struct virtqueue *vq, uint16_t *slot, bool *wrap,
					    uint16_t count)
{
	uint32_t next = (uint32_t)*slot + count;

	if (next >= vq->size) {
		next -= vq->size;
		*wrap = !*wrap;
	}
	*slot = (uint16_t)next;
}

/* A descriptor is available when its avail bit is the wrap counter and its used bit is not. */
static inline bool virtqueue_packed_is_avail(uint16_t flags, bool wrap)
{
	return (bool)(flags & VIRTQUEUE_PACKED_AVAIL) == wrap &&
	       (bool)(flags & VIRTQUEUE_PACKED_USED) != wrap;
}

/* One copy of a descriptor in the split layout, id in the place of next, once its flags are
 * known. */
static inline struct vring_desc virtqueue_copy_packed(const struct vring_packed_desc *from)
{
	uint64_t addr = load_relaxed(&from->addr);
	uint64_t rest = load_relaxed((const uint64_t *)&from->len);

	return (struct vring_desc){
		.addr = addr,
		.len = (uint32_t)rest,
		.flags = (uint16_t)(rest >> 48),
		.next = (uint16_t)(rest >> 32),
	};
}

/* Finds the end of the chain that begins with head->first, for its length and buffer id. */
static inline bool virtqueue_packed_measure(struct virtqueue *vq, struct virtqueue_head *head)
{
	struct vring_desc desc = head->first;
	uint16_t slot = head->slot;

	head->slot_count = 1;
	while (unlikely(desc.flags & VRING_DESC_F_NEXT)) {
		if (unlikely(head->slot_count == vq->size)) {
			virtqueue_break(vq, "descriptor chain is longer than its ring");
			return false;
		}
		slot = slot + 1 == vq->size ? 0 : (uint16_t)(slot + 1);
		head->slot_count++;
		desc = virtqueue_copy_packed(&vq->packed_desc[slot]);
	}
	head->id = desc.next;
	if (unlikely(head->id >= vq->size)) {
		virtqueue_break(vq, "buffer id is outside the ring");
		return false;
	}
	return true;
}

static inline uint32_t virtqueue_packed_peek(struct virtqueue *vq, struct virtqueue_head *heads,
					     uint32_t max)
{
	uint16_t slot = vq->avail_index;
	bool wrap = vq->avail_wrap;
	uint32_t slots_left = vq->size - vq->taken_slots;
	uint32_t count = 0;

	while (count < max && slots_left > 0) {
		const struct vring_packed_desc *desc = &vq->packed_desc[slot];
		struct virtqueue_head *head = &heads[count];

		/* Partner: the driver's release of the flags of a chain's first descriptor. */
		if (!virtqueue_packed_is_avail(load_acquire(&desc->flags), wrap))
			break;
		head->first = virtqueue_copy_packed(desc);
		head->slot = slot;
		head->resubmitted = false;
		if (unlikely(!virtqueue_packed_measure(vq, head)))
			return 0;
		if (unlikely(head->slot_count > slots_left))
			break;
		slots_left -= head->slot_count;
		virtqueue_packed_advance(vq, &slot, &wrap, head->slot_count);
		__builtin_prefetch(&vq->packed_desc[slot]);
		count++;
	}
	return count;
}

/* Writes a chain of the ring into the journal, descriptors and all: the ring's own will be
 * overwritten by used ones. */
static inline uint16_t virtqueue_packed_record(struct virtqueue *vq,
					       const struct virtqueue_head *head)
{
	struct inflight_packed *journal = vq->packed_journal;
	/* Bounded by the size: the journal is shared with the front-end. */
	uint16_t first = MIN(load_relaxed(&journal->free_head), (uint16_t)(vq->size - 1));
	struct inflight_packed_desc *entry = &journal->desc[first];
	struct vring_desc desc = head->first;
	uint16_t slot = head->slot;
	uint16_t last = first;

	for (uint16_t i = 0;;) {
		struct inflight_packed_desc *each = &journal->desc[last];
		each->addr = desc.addr;
		each->len = desc.len;
		each->flags = desc.flags;
		each->id = desc.next;
		if (++i == head->slot_count)
			break;
		slot = slot + 1 == vq->size ? 0 : (uint16_t)(slot + 1);
		desc = virtqueue_copy_packed(&vq->packed_desc[slot]);
		last = MIN(load_relaxed(&each->next), (uint16_t)(vq->size - 1));
	}
	entry->last = last;
	entry->count = head->slot_count;
	entry->id = head->id;
	entry->counter = vq->journal_counter++;
	store_release(&entry->inflight, 1);
	uint16_t next = load_relaxed(&journal->desc[last].next);
	store_release(&journal->free_head, next);
	store_release(&journal->old_free_head, next);
	return first;
}

static inline void virtqueue_packed_take(struct virtqueue *vq, const struct virtqueue_head *head)
{
	struct virtqueue_taken *taken = &vq->taken[head->id];

	taken->slot_count = head->slot_count;
	taken->entry = virtqueue_packed_record(vq, head);
	vq->taken_slots += head->slot_count;
	virtqueue_packed_advance(vq, &vq->avail_index, &vq->avail_wrap, head->slot_count);
}

/* The second half of a used descriptor (section 2.8.6): len, id and flags in one word. */
static inline uint64_t virtqueue_packed_used_word(const struct virtqueue *vq,
						  const struct virtqueue_pushed *pushed)
{
	uint64_t flags = vq->used_wrap ? VIRTQUEUE_PACKED_AVAIL | VIRTQUEUE_PACKED_USED : 0;

	if (pushed->written_bytes > 0)
		flags |= VRING_DESC_F_WRITE;
	return flags << 48 | (uint64_t)pushed->id << 32 | pushed->written_bytes;
}

/*
 * Writes the used descriptors but the first, which publishes them all, and chains the batch up on
 * the journal's free list. Then says in the journal where the list and the used ring are behind
 * the batch: yet to be undone, if we die before the first descriptor is written. Returns what is
 * to be written there.
 */
static inline uint64_t virtqueue_packed_fill(struct virtqueue *vq)
{
	struct inflight_packed *journal = vq->packed_journal;
	uint16_t free_head = load_relaxed(&journal->free_head);
	uint64_t first_word = 0;

	for (uint32_t i = 0; i < vq->pushed_count; i++) {
		const struct virtqueue_pushed *pushed = &vq->pushed[i];
		const struct virtqueue_taken *taken = &vq->taken[pushed->id];
		uint64_t word = virtqueue_packed_used_word(vq, pushed);
		uint16_t last = MIN(load_relaxed(&journal->desc[taken->entry].last),
				    (uint16_t)(vq->size - 1));

		if (i == 0)
			first_word = word;
		else
			store_relaxed((uint64_t *)&vq->packed_desc[vq->used_index].len, word);
		journal->desc[last].next = free_head;
		free_head = taken->entry;
		vq->taken_slots -= taken->slot_count;
		virtqueue_packed_advance(vq, &vq->used_index, &vq->used_wrap, taken->slot_count);
	}
	store_release(&journal->free_head, free_head);
	store_release(&journal->used_index, vq->used_index);
	store_release(&journal->used_wrap, vq->used_wrap);
	return first_word;
}

/* Strikes the published batch off the journal. */
static inline void virtqueue_packed_settle(struct virtqueue *vq)
{
	struct inflight_packed *journal = vq->packed_journal;

	for (uint32_t i = 0; i < vq->pushed_count; i++)
		store_relaxed(&journal->desc[vq->taken[vq->pushed[i].id].entry].inflight, 0);
	store_release(&journal->old_free_head, load_relaxed(&journal->free_head));
	store_release(&journal->old_used_index, vq->used_index);
	store_release(&journal->old_used_wrap, vq->used_wrap);
	vq->pushed_count = 0;
}

/* Whether the driver asked to be called once the used index passed from old to new. */
static inline bool virtqueue_packed_wants_call(struct virtqueue *vq, uint16_t old)
{
	uint16_t flags = __atomic_load_n(&vq->driver_event->flags, __ATOMIC_SEQ_CST);
	uint16_t off_wrap = load_relaxed(&vq->driver_event->off_wrap);
	uint16_t index = vq->used_index;

	if (!vq->event_idx || flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	uint16_t event = off_wrap & (uint16_t) ~(1u << VRING_PACKED_EVENT_F_WRAP_CTR);
	/* Indexes of the lap before count from below zero. */
	if (index <= old)
		old = (uint16_t)(old - vq->size);
	if ((bool)(off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR) != vq->used_wrap)
		event = (uint16_t)(event - vq->size);
	return vring_need_event(event, index, old);
}

static inline bool virtqueue_packed_publish(struct virtqueue *vq)
{
	uint16_t old = vq->used_signalled;

	struct vring_packed_desc *first = &vq->packed_desc[vq->used_index];
	uint64_t first_word = virtqueue_packed_fill(vq);

	/* Partner: as in virtqueue_split_publish(); the driver looks at these flags again after
	 * it has asked for a call. */
	__atomic_store_n((uint64_t *)&first->len, first_word, __ATOMIC_SEQ_CST);
	virtqueue_packed_settle(vq);
	vq->used_signalled = vq->used_index;
	return virtqueue_packed_wants_call(vq, old);
}

static inline void virtqueue_packed_disable_kick(struct virtqueue *vq)
{
	store_relaxed(&vq->device_event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
}

static inline bool virtqueue_packed_enable_kick(struct virtqueue *vq)
{
	uint16_t off_wrap = (uint16_t)(vq->avail_index | (uint16_t)vq->avail_wrap
								 << VRING_PACKED_EVENT_F_WRAP_CTR);
	const struct vring_packed_desc *next = &vq->packed_desc[vq->avail_index];

	store_relaxed(&vq->device_event->off_wrap, off_wrap);
	/* Partner: the driver makes a descriptor available, passes a full barrier, then looks
	 * whether we want a kick. */
	__atomic_store_n(&vq->device_event->flags,
			 vq->event_idx ? VRING_PACKED_EVENT_FLAG_DESC
				       : VRING_PACKED_EVENT_FLAG_ENABLE,
			 __ATOMIC_SEQ_CST);
	return !virtqueue_packed_is_avail(__atomic_load_n(&next->flags, __ATOMIC_SEQ_CST),
					  vq->avail_wrap);
}

#endif
