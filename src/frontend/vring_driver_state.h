/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver side of a virtqueue keeps, for both formats. Inside of vring_driver.h. */
#ifndef SLUICE_FRONTEND_VRING_DRIVER_STATE_H
#define SLUICE_FRONTEND_VRING_DRIVER_STATE_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/fd.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "rings of virtio 1 are little-endian and are accessed without conversion here");

#define VRING_DRIVER_SIZE_MAX 1024u

struct vring_driver {
	/* The three areas, by the names that each format gives them. */
	union {
		struct vring_desc *desc;
		struct vring_packed_desc *packed_desc;
	};
	union {
		struct vring_avail *avail;
		struct vring_packed_desc_event *driver_event;
	};
	union { /* read only here */
		struct vring_used *used;
		struct vring_packed_desc_event *device_event;
	};
	bool packed;
	bool event_idx;
	uint16_t size;
	uint16_t mask;
	uint16_t avail_idx; /* next entry to fill; split: ahead of avail->idx until published */
	uint16_t used_idx;  /* next entry to take */
	/* split */
	uint16_t used_seen;       /* used->idx when last looked at */
	uint16_t avail_signalled; /* avail_idx when the device was last thought of for a kick */
	/* packed */
	uint16_t avail_flags;  /* AVAIL and USED of a descriptor made available now */
	uint16_t used_flags;   /* the same bits of the next used descriptor */
	uint16_t pushed_slots; /* since the last thought of a kick */
	uint16_t first_flags;  /* of the first descriptor pushed since the last publication */
	struct vring_packed_desc *first;        /* NULL: none */
	const struct vring_packed_desc *chains; /* borrowed: of id i from i << chain_shift */
	uint32_t chain_count;
	uint8_t chain_shift;
	int kick_fd; /* owned */
	int call_fd; /* owned */
	uint64_t kick_count;
	/* Out of the device's reach: says how far a used descriptor takes the ring on. */
	uint16_t chain_slots[VRING_DRIVER_SIZE_MAX];
};

#endif
