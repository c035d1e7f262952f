/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery from an inflight journal. Pure but for the journal; control thread. */
#include "virtio/inflight.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

uint64_t inflight_queue_bytes(uint32_t queue_size, bool packed)
{
	uint64_t bytes = packed ? sizeof(struct inflight_packed) +
					  (uint64_t)queue_size * sizeof(struct inflight_packed_desc)
				: sizeof(struct inflight_split) +
					  (uint64_t)queue_size * sizeof(struct inflight_split_desc);

	return (bytes + INFLIGHT_ALIGNMENT_BYTES - 1) & ~(uint64_t)(INFLIGHT_ALIGNMENT_BYTES - 1);
}

struct found {
	uint64_t counter;
	uint16_t index;
};

static int compare_found(const void *a, const void *b)
{
	const struct found *x = a;
	const struct found *y = b;

	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

/* What descriptors of both formats begin with. */
struct inflight_mark {
	uint8_t inflight;
	uint8_t other[7];
	uint64_t counter;
};
_Static_assert(offsetof(struct inflight_mark, counter) ==
			       offsetof(struct inflight_split_desc, counter) &&
		       offsetof(struct inflight_mark, counter) ==
			       offsetof(struct inflight_packed_desc, counter),
	       "one place for the counter");

static const struct inflight_mark *mark_at(const void *descs, size_t desc_bytes, uint16_t index)
{
	return (const void *)((const uint8_t *)descs + index * desc_bytes);
}

/* The indexes of the descriptors in flight, oldest first: how many, or -ENOMEM. */
static int list_inflight(const void *descs, size_t desc_bytes, uint16_t queue_size, uint16_t *out)
{
	uint16_t count = 0;
	struct found *found = calloc(queue_size, sizeof(*found));

	if (found == NULL)
		return -ENOMEM;
	for (uint16_t i = 0; i < queue_size; i++) {
		const struct inflight_mark *mark = mark_at(descs, desc_bytes, i);
		if (load_relaxed(&mark->inflight) == 0)
			continue;
		found[count].counter = load_relaxed(&mark->counter);
		found[count++].index = i;
	}
	qsort(found, count, sizeof(*found), compare_found);
	for (uint16_t i = 0; i < count; i++)
		out[i] = found[i].index;
	free(found);
	return count;
}

static uint64_t next_counter(const void *descs, size_t desc_bytes, uint16_t queue_size)
{
	uint64_t next = 0;

	for (uint16_t i = 0; i < queue_size; i++) {
		const struct inflight_mark *mark = mark_at(descs, desc_bytes, i);
		uint64_t counter = load_relaxed(&mark->counter);
		if (load_relaxed(&mark->inflight) != 0 && counter >= next)
			next = counter + 1;
	}
	return next;
}

/* ---- split -------------------------------------------------------------------------------- */

static void split_start(struct inflight_split *journal, uint16_t capacity, uint16_t used_index)
{
	memset(journal->desc, 0, capacity * sizeof(journal->desc[0]));
	journal->features = 0;
	journal->desc_count = capacity;
	journal->last_batch_head = 0;
	journal->used_index = used_index;
	store_release(&journal->version, INFLIGHT_VERSION);
}

int inflight_split_recover(struct inflight_split *journal, uint16_t capacity, uint16_t queue_size,
			   uint16_t ring_used_index, uint16_t *heads)
{
	if (journal->version == 0) {
		split_start(journal, capacity, ring_used_index);
		return 0;
	}
	if (journal->version != INFLIGHT_VERSION || journal->desc_count != capacity ||
	    queue_size > capacity)
		return -EINVAL;
	/* The last batch was published, but maybe not all of it struck off. */
	uint16_t batch = (uint16_t)(ring_used_index - journal->used_index);
	if (batch > queue_size)
		return -EINVAL;
	uint16_t head = journal->last_batch_head;
	for (uint16_t i = 0; i < batch; i++) {
		if (head >= queue_size)
			return -EINVAL;
		journal->desc[head].inflight = 0;
		head = journal->desc[head].next;
	}
	journal->used_index = ring_used_index;

	return list_inflight(journal->desc, sizeof(journal->desc[0]), queue_size, heads);
}

uint64_t inflight_split_next_counter(const struct inflight_split *journal, uint16_t queue_size)
{
	return next_counter(journal->desc, sizeof(journal->desc[0]), queue_size);
}

/* ---- packed ------------------------------------------------------------------------------- */

static void packed_start(struct inflight_packed *journal, uint16_t capacity, uint16_t queue_size,
			 uint16_t used_index, bool used_wrap)
{
	memset(journal->desc, 0, capacity * sizeof(journal->desc[0]));
	for (uint16_t i = 0; i < queue_size; i++)
		journal->desc[i].next = (uint16_t)(i + 1);
	journal->features = 0;
	journal->desc_count = capacity;
	journal->free_head = 0;
	journal->old_free_head = 0;
	journal->used_index = used_index;
	journal->old_used_index = used_index;
	journal->used_wrap = used_wrap;
	journal->old_used_wrap = used_wrap;
	store_release(&journal->version, INFLIGHT_VERSION);
}

static bool packed_sound(const struct inflight_packed *journal, uint16_t capacity,
			 uint16_t queue_size)
{
	/* free_head equals the size when all entries are taken. */
	return journal->version == INFLIGHT_VERSION && journal->desc_count == capacity &&
	       queue_size <= capacity && journal->free_head <= queue_size &&
	       journal->old_free_head <= queue_size && journal->used_index < queue_size &&
	       journal->old_used_index < queue_size && journal->used_wrap <= 1 &&
	       journal->old_used_wrap <= 1;
}

/* True if the batch begun at old_used_index was published: its first descriptor is no longer as
 * the driver offered it. The driver may even have offered the slot anew, a lap later. */
static bool packed_published(const struct inflight_packed *journal,
			     uint16_t (*ring_flags_at)(void *arg, uint16_t slot), void *arg)
{
	uint16_t flags = ring_flags_at(arg, journal->old_used_index);
	bool avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1;
	bool used = flags >> VRING_PACKED_DESC_F_USED & 1;
	bool wrap = journal->old_used_wrap != 0;

	return avail != wrap || used == wrap;
}

/* True if what the journal says of the last batch stands: there is none under way, or it was
 * published. */
static bool packed_committed(const struct inflight_packed *journal,
			     uint16_t (*ring_flags_at)(void *arg, uint16_t slot), void *arg)
{
	/* Giving back changes free_head first, and settling sets old_free_head equal to it first:
	 * equal, they tell that the rest, which is not one store, was published. */
	if (journal->free_head == journal->old_free_head)
		return true;
	return (journal->used_index != journal->old_used_index ||
		journal->used_wrap != journal->old_used_wrap) &&
	       packed_published(journal, ring_flags_at, arg);
}

/* Walks the free list and strikes off its entries. -EINVAL if it is not a list. */
static int packed_clear_free(struct inflight_packed *journal, uint16_t queue_size)
{
	uint16_t entry = journal->free_head;

	for (uint32_t i = 0; entry < queue_size; i++) {
		if (i == queue_size)
			return -EINVAL;
		journal->desc[entry].inflight = 0;
		entry = journal->desc[entry].next;
	}
	return 0;
}

int inflight_packed_recover(struct inflight_packed *journal, uint16_t capacity, uint16_t queue_size,
			    uint16_t fresh_used_index, bool fresh_used_wrap,
			    uint16_t (*ring_flags_at)(void *arg, uint16_t slot), void *arg,
			    uint16_t *entries)
{
	if (journal->version == 0) {
		packed_start(journal, capacity, queue_size, fresh_used_index, fresh_used_wrap);
		return 0;
	}
	if (!packed_sound(journal, capacity, queue_size))
		return -EINVAL;
	if (packed_committed(journal, ring_flags_at, arg)) {
		journal->old_free_head = journal->free_head;
		journal->old_used_index = journal->used_index;
		journal->old_used_wrap = journal->used_wrap;
	}
	journal->free_head = journal->old_free_head;
	journal->used_index = journal->old_used_index;
	journal->used_wrap = journal->old_used_wrap;
	if (packed_clear_free(journal, queue_size) < 0)
		return -EINVAL;

	return list_inflight(journal->desc, sizeof(journal->desc[0]), queue_size, entries);
}

uint64_t inflight_packed_next_counter(const struct inflight_packed *journal, uint16_t queue_size)
{
	return next_counter(journal->desc, sizeof(journal->desc[0]), queue_size);
}
