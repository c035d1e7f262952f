/* SPDX-License-Identifier: Apache-2.0 */
/* Mapping of guest memory and tables of it. Control thread; translation on reactors. */
#include "memory/guest_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "base/range.h"
#include "memory/sigbus.h"

static bool desc_valid(const struct mem_region_desc *desc)
{
	return desc->size_bytes > 0 && range_valid(desc->guest_addr.value, desc->size_bytes) &&
	       range_valid(desc->user_addr, desc->size_bytes) &&
	       range_valid(desc->mmap_offset, desc->size_bytes);
}

int mem_region_map(int fd, const struct mem_region_desc *desc, struct mem_region **out)
{
	struct stat st;

	if (!desc_valid(desc))
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	/* A region beyond the end of its file would be a SIGBUS waiting to be touched. */
	if (S_ISREG(st.st_mode) &&
	    !range_within(desc->mmap_offset, desc->size_bytes, (uint64_t)st.st_size))
		return -EINVAL;
	/* Offsets and lengths in whole pages of the file: st_blksize is the huge page size on
	 * hugetlbfs, where munmap(2) insists on it. */
	uint64_t page = (uint64_t)MAX(st.st_blksize, 4096);
	if ((page & (page - 1)) != 0)
		page = 4096;
	uint64_t start = desc->mmap_offset & ~(page - 1);
	uint64_t end = desc->mmap_offset + desc->size_bytes;
	if (end > UINT64_MAX - page)
		return -EINVAL;
	end = (end + page - 1) & ~(page - 1);

	struct mem_region *region = calloc(1, sizeof(*region));
	if (region == NULL)
		return -ENOMEM;
	void *base = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
			  (off_t)start);
	if (base == MAP_FAILED) {
		int rc = -errno;
		free(region);
		return rc;
	}
	/* A core of ours must not carry a customer's memory. */
	madvise(base, end - start, MADV_DONTDUMP);
	region->desc = *desc;
	region->device = st.st_dev;
	region->inode = st.st_ino;
	region->map_base = base;
	region->map_bytes = end - start;
	region->host = (uint8_t *)base + (desc->mmap_offset - start);
	region->ref_count = 1;
	int rc = sigbus_guard_add(base, region->map_bytes, &region->faulted);
	if (rc < 0) {
		munmap(base, region->map_bytes);
		free(region);
		return rc;
	}
	*out = region;
	return 0;
}

bool mem_region_matches(const struct mem_region *region, int fd, const struct mem_region_desc *desc)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	return region->device == st.st_dev && region->inode == st.st_ino &&
	       region->desc.guest_addr.value == desc->guest_addr.value &&
	       region->desc.user_addr == desc->user_addr &&
	       region->desc.size_bytes == desc->size_bytes &&
	       region->desc.mmap_offset == desc->mmap_offset && !load_relaxed(&region->faulted);
}

struct mem_region *mem_region_get(struct mem_region *region)
{
	region->ref_count++;
	return region;
}

void mem_region_put(struct mem_region *region)
{
	ensure(region->ref_count > 0);
	if (--region->ref_count > 0)
		return;
	sigbus_guard_remove(region->map_base);
	munmap(region->map_base, region->map_bytes);
	free(region);
}

static int compare_slots(const void *a, const void *b)
{
	const struct mem_slot *x = a;
	const struct mem_slot *y = b;

	return x->guest_addr < y->guest_addr ? -1 : x->guest_addr > y->guest_addr;
}

static bool regions_overlap(struct mem_region *const *regions, uint32_t region_count)
{
	for (uint32_t i = 0; i < region_count; i++) {
		const struct mem_region_desc *a = &regions[i]->desc;
		for (uint32_t k = 0; k < i; k++) {
			const struct mem_region_desc *b = &regions[k]->desc;
			if (range_overlaps(a->guest_addr.value, a->size_bytes, b->guest_addr.value,
					   b->size_bytes) ||
			    range_overlaps(a->user_addr, a->size_bytes, b->user_addr,
					   b->size_bytes))
				return true;
		}
	}
	return false;
}

int mem_table_create(struct mem_region *const *regions, uint32_t region_count,
		     struct mem_table **out)
{
	if (region_count > MEM_SLOTS_MAX || regions_overlap(regions, region_count))
		return -EINVAL;
	struct mem_table *table =
		calloc(1, sizeof(*table) + region_count * sizeof(struct mem_slot));
	if (table == NULL)
		return -ENOMEM;
	table->slot_count = region_count;
	for (uint32_t i = 0; i < region_count; i++) {
		struct mem_region *region = mem_region_get(regions[i]);
		table->slots[i] = (struct mem_slot){
			.guest_addr = region->desc.guest_addr.value,
			.size_bytes = region->desc.size_bytes,
			.host = region->host,
			.region = region,
		};
	}
	if (region_count > 1)
		qsort(table->slots, region_count, sizeof(table->slots[0]), compare_slots);
	*out = table;
	return 0;
}

void mem_table_destroy(struct mem_table *table)
{
	if (table == NULL)
		return;
	for (uint32_t i = 0; i < table->slot_count; i++)
		mem_region_put(table->slots[i].region);
	free(table);
}

void *mem_table_translate_user(const struct mem_table *table, uint64_t user_addr, uint64_t len)
{
	for (uint32_t i = 0; i < table->slot_count; i++) {
		const struct mem_region_desc *desc = &table->slots[i].region->desc;
		uint64_t offset = user_addr - desc->user_addr;

		if (user_addr >= desc->user_addr && range_within(offset, len, desc->size_bytes))
			return table->slots[i].host + offset;
	}
	return NULL;
}

bool mem_table_faulted(const struct mem_table *table)
{
	for (uint32_t i = 0; i < table->slot_count; i++) {
		if (load_relaxed(&table->slots[i].region->faulted))
			return true;
	}
	return false;
}

const struct mem_slot *mem_table_find_slot(const struct mem_table *table, uint64_t guest_addr)
{
	uint32_t low = 0;
	uint32_t high = table->slot_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct mem_slot *slot = &table->slots[middle];
		if (guest_addr < slot->guest_addr)
			high = middle;
		else if (guest_addr - slot->guest_addr >= slot->size_bytes)
			low = middle + 1;
		else
			return slot;
	}
	return NULL;
}
