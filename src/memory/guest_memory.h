/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a guest: regions mapped from the front-end's fds, and immutable tables of them
 * that reactors translate addresses with.
 *
 * Regions and tables are made, counted and freed on the control thread. A table given to a
 * reactor is read-only; control frees it when the reactor has said that it is done with it.
 */
#ifndef SLUICE_MEMORY_GUEST_MEMORY_H
#define SLUICE_MEMORY_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "base/compiler.h"

/* A guest physical address: never a pointer. */
typedef struct {
	uint64_t value;
} gpa_t;

#define MEM_SLOTS_MAX 256

/* How the front-end described a region; the identity of the backing file completes it. */
struct mem_region_desc {
	gpa_t guest_addr;
	uint64_t user_addr; /* in the front-end's address space */
	uint64_t size_bytes;
	uint64_t mmap_offset; /* of the region in its file */
};

struct mem_region {
	struct mem_region_desc desc;
	dev_t device; /* of the file */
	ino_t inode;
	uint8_t *host; /* where guest_addr is mapped here */
	void *map_base;
	size_t map_bytes;
	uint32_t ref_count;
	/* Set by the SIGBUS handler: the file is shorter than it was when it was mapped. */
	bool faulted;
};

/* Maps a region shared and writable; the fd stays the caller's and may be closed afterwards.
 * 0; -EINVAL: empty, wrapping, or reaching beyond the end of its file; -ENOMEM, or what mmap(2)
 * says. *out holds one reference. Control thread or a worker. */
int mem_region_map(int fd, const struct mem_region_desc *desc, struct mem_region **out);
/* True if the region is what mapping fd with this description would give again. */
bool mem_region_matches(const struct mem_region *region, int fd,
			const struct mem_region_desc *desc);
struct mem_region *mem_region_get(struct mem_region *region);
/* Unmaps with the last reference. */
void mem_region_put(struct mem_region *region);

/* One row of a table, sorted by guest address: what translation needs in half a cache line. */
struct mem_slot {
	uint64_t guest_addr;
	uint64_t size_bytes;
	uint8_t *host;
	struct mem_region *region;
};

struct mem_table {
	uint32_t slot_count;
	struct mem_slot slots[];
};

/* A table of the regions given, each gaining a reference: 0; -EINVAL if two overlap in guest or
 * user addresses or there are more than MEM_SLOTS_MAX; -ENOMEM. No regions is a legal table. */
int mem_table_create(struct mem_region *const *regions, uint32_t region_count,
		     struct mem_table **out);
void mem_table_destroy(struct mem_table *table); /* NULL is fine */

/* The host address of a front-end user address if [addr, addr + len) lies in one region, else
 * NULL. */
void *mem_table_translate_user(const struct mem_table *table, uint64_t user_addr, uint64_t len);

/* True if a file behind a region of the table turned out too short. */
bool mem_table_faulted(const struct mem_table *table);

/* The slot that holds gpa, or NULL. By bisection; tables are small. */
const struct mem_slot *mem_table_find_slot(const struct mem_table *table, uint64_t guest_addr);

/* Copies bytes of a guest, or of a disk: if others write them at the same time, the driver is who
 * must order that, and ThreadSanitizer, which cannot see it, is told to look away here alone. */
static inline void guest_copy(void *to, const void *from, uint64_t len_bytes)
{
	memcpy(to, from, len_bytes);
}

/*
 * Translates the start of [addr, addr + len). Returns its host address and stores in *run how many
 * bytes from there on are mapped contiguously, at most len: less than len where the range runs
 * into the next region. NULL: not mapped. len > 0.
 *
 * hint remembers the last slot used; it may be any value.
 */
static inline void *mem_translate(const struct mem_table *table, uint32_t *hint, gpa_t addr,
				  uint64_t len, uint64_t *run)
{
	const struct mem_slot *slot;
	uint64_t offset;

	if (likely(*hint < table->slot_count)) {
		slot = &table->slots[*hint];
		offset = addr.value - slot->guest_addr;
		if (likely(offset < slot->size_bytes)) {
			*run = MIN(len, slot->size_bytes - offset);
			return slot->host + offset;
		}
	}
	slot = mem_table_find_slot(table, addr.value);
	if (unlikely(slot == NULL))
		return NULL;
	*hint = (uint32_t)(slot - table->slots);
	offset = addr.value - slot->guest_addr;
	*run = MIN(len, slot->size_bytes - offset);
	return slot->host + offset;
}

#endif
