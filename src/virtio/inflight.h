/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inflight journal: which requests were taken from a ring and not given back, in memory that
 * outlives the process. The layout is the vhost-user protocol's (vhost-user.rst, "Inflight I/O
 * tracking"), so that a front-end can keep it for us; the memory is shared with the front-end and
 * therefore hostile: every index read from it is checked.
 *
 * Stores to a journal are ordered by release stores. A process that dies leaves every store that
 * it made, in order, so no stronger barrier is needed.
 */
#ifndef SLUICE_VIRTIO_INFLIGHT_H
#define SLUICE_VIRTIO_INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INFLIGHT_VERSION 1
#define INFLIGHT_ALIGNMENT_BYTES 64

struct inflight_split_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next; /* the head pushed before this one in the batch */
	uint64_t counter;
};
_Static_assert(sizeof(struct inflight_split_desc) == 16, "DescStateSplit");

struct inflight_split {
	uint64_t features;
	uint16_t version; /* 0: fresh */
	uint16_t desc_count;
	uint16_t last_batch_head;
	uint16_t used_index;
	struct inflight_split_desc desc[];
};
_Static_assert(offsetof(struct inflight_split, desc) == 16, "QueueRegionSplit");

struct inflight_packed_desc {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;  /* head: the last entry of its chain */
	uint16_t count; /* head: entries of its chain */
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};
_Static_assert(sizeof(struct inflight_packed_desc) == 32, "DescStatePacked");

struct inflight_packed {
	uint64_t features;
	uint16_t version;
	uint16_t desc_count;
	uint16_t free_head;
	uint16_t old_free_head;
	uint16_t used_index;
	uint16_t old_used_index;
	uint8_t used_wrap;
	uint8_t old_used_wrap;
	uint8_t padding[7];
	struct inflight_packed_desc desc[];
};
_Static_assert(offsetof(struct inflight_packed, desc) == 32, "QueueRegionPacked");

/* Bytes of the journal of one queue, a multiple of the alignment. queue_size up to 32768. */
uint64_t inflight_queue_bytes(uint32_t queue_size, bool packed);

/*
 * Brings a split journal in line with the ring and lists what is in flight, oldest first, in heads
 * (room for queue_size). capacity is what the journal was made for, at least queue_size. A fresh
 * journal is taken into use at ring_used_index, whatever that is. Returns how many there are;
 * -EINVAL if the journal is not one of this capacity or contradicts the ring; -ENOMEM.
 */
int inflight_split_recover(struct inflight_split *journal, uint16_t capacity, uint16_t queue_size,
			   uint16_t ring_used_index, uint16_t *heads);

/*
 * The same for a packed ring. ring_flags_at(arg, slot) gives the flags of a ring descriptor.
 * entries receives the head entries in flight, oldest first. The journal then holds where the
 * device goes on in the used ring: used_index and used_wrap.
 */
int inflight_packed_recover(struct inflight_packed *journal, uint16_t capacity, uint16_t queue_size,
			    uint16_t fresh_used_index, bool fresh_used_wrap,
			    uint16_t (*ring_flags_at)(void *arg, uint16_t slot), void *arg,
			    uint16_t *entries);

/* The next counter value for a journal that was recovered: above all in use. */
uint64_t inflight_split_next_counter(const struct inflight_split *journal, uint16_t queue_size);
uint64_t inflight_packed_next_counter(const struct inflight_packed *journal, uint16_t queue_size);

#endif
