/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of a virtqueue, recovery from its journal (control thread), and the walk of a descriptor
 * chain (owning reactor). */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

uint64_t virtqueue_desc_bytes(uint32_t size)
{
	return (uint64_t)size * sizeof(struct vring_desc);
}

uint64_t virtqueue_avail_bytes(uint32_t size, bool packed)
{
	if (packed)
		return sizeof(struct vring_packed_desc_event);
	return 3 * sizeof(uint16_t) + (uint64_t)size * sizeof(uint16_t);
}

uint64_t virtqueue_used_bytes(uint32_t size, bool packed)
{
	if (packed)
		return sizeof(struct vring_packed_desc_event);
	return 3 * sizeof(uint16_t) + (uint64_t)size * sizeof(struct vring_used_elem);
}

/* ---- set-up ------------------------------------------------------------------------------- */

static int split_start(struct virtqueue *vq, const struct virtqueue_options *options)
{
	bool fresh = vq->split_journal->version == 0;

	vq->used_index = load_relaxed(&vq->used->idx);
	int count = inflight_split_recover(vq->split_journal, options->journal_capacity, vq->size,
					   vq->used_index, vq->resubmit);
	if (count < 0)
		return count;
	vq->resubmit_count = (uint16_t)count;
	vq->journal_counter = inflight_split_next_counter(vq->split_journal, vq->size);
	/* Behind what is in flight the ring goes on, whatever a front-end that could not ask the
	 * predecessor believes. */
	vq->avail_index =
		fresh ? (uint16_t)options->base : (uint16_t)(vq->used_index + vq->resubmit_count);
	return 0;
}

static uint16_t ring_flags_at(void *arg, uint16_t slot)
{
	struct virtqueue *vq = arg;

	return load_relaxed(&vq->packed_desc[slot].flags);
}

/* A batch is published by its first descriptor, written last. A predecessor that died before that
 * left the others behind: the driver must not come upon them when the first is used at last. */
static void packed_withdraw_unpublished(struct virtqueue *vq)
{
	uint16_t slot = vq->used_index;
	bool wrap = vq->used_wrap;

	for (uint32_t i = 0; i < vq->taken_slots; i++) {
		uint16_t *flags = &vq->packed_desc[slot].flags;
		uint16_t offered = wrap ? VIRTQUEUE_PACKED_AVAIL : VIRTQUEUE_PACKED_USED;

		if (!virtqueue_packed_is_avail(load_relaxed(flags), wrap))
			store_release(flags, offered);
		virtqueue_packed_advance(vq, &slot, &wrap, 1);
	}
}

static int packed_start(struct virtqueue *vq, const struct virtqueue_options *options)
{
	struct inflight_packed *journal = vq->packed_journal;
	bool fresh = journal->version == 0;
	uint16_t avail_index = options->base & 0x7fff;
	uint16_t used_index = options->base >> 16 & 0x7fff;

	if (fresh && (avail_index >= vq->size || used_index >= vq->size))
		return -EINVAL;
	int count =
		inflight_packed_recover(journal, options->journal_capacity, vq->size, used_index,
					options->base >> 31, ring_flags_at, vq, vq->resubmit);
	if (count < 0)
		return count;
	vq->resubmit_count = (uint16_t)count;
	vq->journal_counter = inflight_packed_next_counter(journal, vq->size);
	vq->used_index = journal->used_index;
	vq->used_wrap = journal->used_wrap;
	vq->avail_index = fresh ? avail_index : vq->used_index;
	vq->avail_wrap = fresh ? (options->base >> 15 & 1) : vq->used_wrap;
	for (uint16_t i = 0; i < vq->resubmit_count; i++) {
		uint16_t slots = journal->desc[vq->resubmit[i]].count;
		if (slots == 0 || slots > vq->size - vq->taken_slots)
			return -EINVAL;
		vq->taken_slots += slots;
		virtqueue_packed_advance(vq, &vq->avail_index, &vq->avail_wrap, slots);
	}
	packed_withdraw_unpublished(vq);
	return 0;
}

int virtqueue_init(struct virtqueue *vq, const struct virtqueue_options *options)
{
	uint16_t size = options->size;

	ensure(size > 0 && size <= VIRTQUEUE_SIZE_MAX);
	ensure(options->packed || (size & (size - 1)) == 0);
	memset(vq, 0, sizeof(*vq));
	vq->desc = options->desc;
	vq->avail = options->avail;
	vq->used = options->used;
	vq->mem = options->mem;
	vq->split_journal = options->journal;
	vq->size = size;
	vq->mask = (uint16_t)(size - 1);
	vq->packed = options->packed;
	vq->event_idx = options->event_idx;
	vq->indirect = options->indirect;
	vq->pushed = calloc(size + VIRTQUEUE_PUSHED_SPARE, sizeof(*vq->pushed));
	vq->taken = calloc(options->packed ? size : 1, sizeof(*vq->taken));
	vq->resubmit = calloc(size, sizeof(*vq->resubmit));
	int rc = -ENOMEM;
	if (vq->pushed != NULL && vq->taken != NULL && vq->resubmit != NULL)
		rc = options->packed ? packed_start(vq, options) : split_start(vq, options);
	if (rc < 0)
		virtqueue_fini(vq);
	vq->used_signalled = vq->used_index;
	return rc;
}

void virtqueue_retire_journal(struct virtqueue *vq)
{
	store_release(vq->packed ? &vq->packed_journal->version : &vq->split_journal->version, 0);
}

void virtqueue_fini(struct virtqueue *vq)
{
	free(vq->pushed);
	free(vq->taken);
	free(vq->resubmit);
	vq->pushed = NULL;
	vq->taken = NULL;
	vq->resubmit = NULL;
}

uint32_t virtqueue_base(const struct virtqueue *vq)
{
	if (!vq->packed)
		return vq->avail_index;
	return (uint32_t)vq->avail_index | (uint32_t)vq->avail_wrap << 15 |
	       (uint32_t)vq->used_index << 16 | (uint32_t)vq->used_wrap << 31;
}

void virtqueue_break(struct virtqueue *vq, const char *why)
{
	if (vq->broken)
		return;
	vq->broken = true;
	vq->broken_why = why;
}

/* ---- resubmission --------------------------------------------------------------------------- */

static struct vring_desc journal_desc(const struct inflight_packed *journal, uint16_t entry)
{
	const struct inflight_packed_desc *from = &journal->desc[entry];

	return (struct vring_desc){
		.addr = load_relaxed(&from->addr),
		.len = load_relaxed(&from->len),
		.flags = load_relaxed(&from->flags),
		.next = load_relaxed(&from->id),
	};
}

uint32_t virtqueue_peek_resubmitted(struct virtqueue *vq, struct virtqueue_head *heads,
				    uint32_t max)
{
	uint32_t count = MIN((uint32_t)(vq->resubmit_count - vq->resubmit_index), max);

	for (uint32_t i = 0; i < count; i++) {
		uint16_t entry = vq->resubmit[vq->resubmit_index + i];
		struct virtqueue_head *head = &heads[i];

		head->id = entry;
		head->slot = entry;
		head->slot_count = 1;
		head->resubmitted = true;
		if (!vq->packed)
			continue;
		head->first = journal_desc(vq->packed_journal, entry);
		head->slot_count = load_relaxed(&vq->packed_journal->desc[entry].count);
		head->id = head->first.next;
		if (head->id >= vq->size || head->slot_count == 0 || head->slot_count > vq->size) {
			virtqueue_break(vq, "inflight journal is corrupt");
			return 0;
		}
		vq->taken[head->id].slot_count = head->slot_count;
		vq->taken[head->id].entry = entry;
	}
	return count;
}

/* ---- walking ------------------------------------------------------------------------------ */

static int broken_chain(struct virtqueue *vq, const char *why)
{
	virtqueue_break(vq, why);
	return -EINVAL;
}

static int add_iov(struct virtqueue_chain *chain, void *base, uint64_t len)
{
	if (unlikely(chain->iov_count == chain->iov_max))
		return -ENOBUFS;
	chain->iovs[chain->iov_count++] = (struct iovec){.iov_base = base, .iov_len = len};
	return 0;
}

/* Adds the buffer of one descriptor: one iovec, or one for every region that it crosses. */
static inline int add_buffer(struct virtqueue *vq, const struct vring_desc *desc,
			     struct virtqueue_chain *chain)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	uint64_t addr = desc->addr;
	uint64_t left = desc->len;

	if (writable)
		chain->writable_bytes += left;
	else if (unlikely(chain->iov_count > chain->readable_count))
		return broken_chain(vq, "device-readable descriptor after a writable one");
	else
		chain->readable_bytes += left;
	while (left > 0) {
		uint64_t run = left;
		void *host = mem_translate(vq->mem, &vq->mem_hint, (gpa_t){addr}, left, &run);
		if (unlikely(host == NULL)) {
			chain->unmapped = true;
			run = left;
		}
		int rc = add_iov(chain, host, run);
		if (unlikely(rc < 0))
			return rc;
		if (!writable)
			chain->readable_count = chain->iov_count;
		addr += run;
		left -= run;
	}
	return 0;
}

/*
 * Where the descriptors of a walk come from, and which one follows: in a split ring or table the
 * one that the descriptor names while it has NEXT; in a packed ring, table or journal so many in a
 * row, or linked, as the head said.
 */
enum walk_kind { WALK_SPLIT, WALK_PACKED_RING, WALK_PACKED_TABLE, WALK_JOURNAL };

struct walk {
	enum walk_kind kind;
	const struct vring_desc *host; /* tables: NULL if not contiguous here */
	gpa_t guest;                   /* tables */
	uint32_t count;                /* descriptors that there are */
	uint32_t index;                /* of the present one */
	uint32_t budget;               /* how many may still be visited */
};

/* A descriptor of a table that is not contiguous here, and may lie across regions itself. */
static int gather_desc(struct virtqueue *vq, uint64_t addr, struct vring_desc *out)
{
	uint8_t bytes[sizeof(*out)] = {0};
	uint64_t run;

	for (uint64_t done = 0; done < sizeof(bytes); done += run) {
		const uint8_t *host = mem_translate(vq->mem, &vq->mem_hint, (gpa_t){addr + done},
						    sizeof(bytes) - done, &run);
		if (host == NULL)
			return broken_chain(vq, "indirect table is not in guest memory");
		/* By bytes, each loaded once. */
		for (uint64_t i = 0; i < run; i++)
			bytes[done + i] = load_relaxed(&host[i]);
	}
	memcpy(out, bytes, sizeof(*out));
	return 0;
}

/* A descriptor of the ring or of a table by its index. */
static int fetch_desc(struct virtqueue *vq, const struct walk *walk, struct vring_desc *out)
{
	if (likely(walk->host != NULL && walk->kind == WALK_SPLIT)) {
		*out = virtqueue_copy_desc(&walk->host[walk->index]);
		return 0;
	}
	if (likely(walk->host != NULL)) {
		const struct vring_packed_desc *packed = (const void *)walk->host;
		*out = virtqueue_copy_packed(&packed[walk->index]);
		return 0;
	}
	int rc = gather_desc(vq, walk->guest.value + walk->index * sizeof(*out), out);
	if (rc < 0)
		return rc;
	if (walk->kind == WALK_PACKED_TABLE) {
		/* The halves of the last word stand the other way round in a packed descriptor. */
		uint16_t id = out->flags;
		out->flags = out->next;
		out->next = id;
	}
	return 0;
}

/* Copies the first descriptor of an indirect table, in the split layout. */
static int enter_table(struct virtqueue *vq, struct vring_desc *desc, struct walk *walk)
{
	uint64_t run;

	if (unlikely(!vq->indirect))
		return broken_chain(vq, "indirect descriptor without the feature");
	if (unlikely(desc->flags & VRING_DESC_F_NEXT))
		return broken_chain(vq, "indirect descriptor with NEXT");
	if (unlikely(desc->len == 0 || desc->len % sizeof(*desc) != 0 ||
		     desc->len / sizeof(*desc) > VIRTQUEUE_INDIRECT_MAX))
		return broken_chain(vq, "indirect table has an illegal length");
	walk->kind = vq->packed ? WALK_PACKED_TABLE : WALK_SPLIT;
	walk->guest.value = desc->addr;
	walk->count = desc->len / sizeof(*desc);
	walk->index = 0;
	walk->budget = walk->count;
	walk->host = mem_translate(vq->mem, &vq->mem_hint, walk->guest, desc->len, &run);
	if (unlikely(walk->host == NULL))
		return broken_chain(vq, "indirect table is not in guest memory");
	if (unlikely(run < desc->len || ((uintptr_t)walk->host & 7) != 0))
		walk->host = NULL;
	return fetch_desc(vq, walk, desc);
}

/* Goes on to the descriptor behind desc: 1; 0 if that was the last; -EINVAL. */
static int next_desc(struct virtqueue *vq, struct walk *walk, struct vring_desc *desc)
{
	int rc;

	switch (walk->kind) {
	case WALK_SPLIT:
		if (!(desc->flags & VRING_DESC_F_NEXT))
			return 0;
		if (unlikely(--walk->budget == 0))
			return broken_chain(vq, "descriptor chain is longer than its ring");
		walk->index = desc->next;
		if (unlikely(walk->index >= walk->count))
			return broken_chain(vq, "next descriptor is outside its ring");
		rc = fetch_desc(vq, walk, desc);
		return rc < 0 ? rc : 1;
	case WALK_PACKED_TABLE:
		if (--walk->budget == 0)
			return 0;
		walk->index++;
		rc = fetch_desc(vq, walk, desc);
		return rc < 0 ? rc : 1;
	case WALK_PACKED_RING:
		if (--walk->budget == 0)
			return 0;
		walk->index = walk->index + 1 == vq->size ? 0 : walk->index + 1;
		*desc = virtqueue_copy_packed(&vq->packed_desc[walk->index]);
		return 1;
	case WALK_JOURNAL:
		if (--walk->budget == 0)
			return 0;
		walk->index = load_relaxed(&vq->packed_journal->desc[walk->index].next);
		if (walk->index >= vq->size)
			return broken_chain(vq, "inflight journal is corrupt");
		*desc = journal_desc(vq->packed_journal, (uint16_t)walk->index);
		return 1;
	}
	return 0;
}

static struct walk begin_walk(const struct virtqueue *vq, const struct virtqueue_head *head)
{
	if (!vq->packed)
		return (struct walk){.kind = WALK_SPLIT,
				     .host = vq->desc,
				     .count = vq->size,
				     .index = head->slot,
				     .budget = vq->size};
	return (struct walk){.kind = head->resubmitted ? WALK_JOURNAL : WALK_PACKED_RING,
			     .count = vq->size,
			     .index = head->slot,
			     .budget = head->slot_count};
}

int virtqueue_walk(struct virtqueue *vq, const struct virtqueue_head *head,
		   struct virtqueue_chain *chain)
{
	struct walk walk = begin_walk(vq, head);
	struct vring_desc desc = head->first;
	bool in_table = false;
	int rc;

	chain->iov_count = 0;
	chain->readable_count = 0;
	chain->readable_bytes = 0;
	chain->writable_bytes = 0;
	chain->unmapped = false;
	do {
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (unlikely(in_table))
				return broken_chain(vq, "indirect descriptor in an indirect table");
			in_table = true;
			rc = enter_table(vq, &desc, &walk);
			if (unlikely(rc < 0))
				return rc;
			if (unlikely(desc.flags & VRING_DESC_F_INDIRECT))
				return broken_chain(vq, "indirect descriptor in an indirect table");
		}
		rc = add_buffer(vq, &desc, chain);
		if (unlikely(rc < 0))
			return rc;
		rc = next_desc(vq, &walk, &desc);
	} while (rc > 0);
	return rc;
}
