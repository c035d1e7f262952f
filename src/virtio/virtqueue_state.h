/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a virtqueue, shared by what is common to all rings (virtqueue.h) and what is
 * particular to split and packed ones. */
#ifndef SLUICE_VIRTIO_VIRTQUEUE_STATE_H
#define SLUICE_VIRTIO_VIRTQUEUE_STATE_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

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

/* A request that the driver made available. */
struct virtqueue_head {
	struct vring_desc first; /* a copy of its first descriptor, in the split layout */
	uint16_t id;             /* what it is given back by: < size, one request each at a time */
	uint16_t slot;           /* of the first descriptor in the ring */
	uint16_t slot_count;     /* packed: descriptors in the ring; split: 1 */
	bool resubmitted;        /* from the journal */
};

/* Marks the queue broken; why is a literal. */
void virtqueue_break(struct virtqueue *vq, const char *why);

#endif
