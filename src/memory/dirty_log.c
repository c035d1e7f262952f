/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty page log. Map and destroy: control thread; marking: any reactor. */
#include "memory/dirty_log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/range.h"
#include "memory/sigbus.h"

int dirty_log_map(int fd, uint64_t offset, uint64_t size_bytes, struct dirty_log **out)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (size_bytes == 0 || !range_within(offset, size_bytes, (uint64_t)st.st_size))
		return -EINVAL;
	struct dirty_log *log = calloc(1, sizeof(*log));
	if (log == NULL)
		return -ENOMEM;
	uint64_t start = offset & ~4095ull;
	log->map_bytes = offset + size_bytes - start;
	log->map_base =
		mmap(NULL, log->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	int rc = log->map_base == MAP_FAILED ? -errno : 0;
	if (rc == 0)
		rc = sigbus_guard_add(log->map_base, log->map_bytes, &log->faulted);
	if (rc < 0) {
		if (log->map_base != MAP_FAILED)
			munmap(log->map_base, log->map_bytes);
		free(log);
		return rc;
	}
	log->bitmap = (uint8_t *)log->map_base + (offset - start);
	log->bitmap_bytes = size_bytes;
	*out = log;
	return 0;
}

void dirty_log_destroy(struct dirty_log *log)
{
	if (log == NULL)
		return;
	sigbus_guard_remove(log->map_base);
	munmap(log->map_base, log->map_bytes);
	free(log);
}

static void mark_page(struct dirty_log *log, uint64_t page)
{
	uint8_t *byte = &log->bitmap[page / 8];
	uint8_t bit = (uint8_t)(1u << (page % 8));

	/* Atomic, since the front-end clears bits meanwhile; always, since a bit seen set may be
	 * on its way to being cleared for a copy older than this write. */
	__atomic_fetch_or(byte, bit, __ATOMIC_SEQ_CST);
}

void dirty_log_mark(struct dirty_log *log, gpa_t addr, uint64_t len)
{
	if (len == 0 || !range_valid(addr.value, len - 1))
		return;
	uint64_t last = (addr.value + len - 1) / DIRTY_LOG_PAGE_BYTES;
	for (uint64_t page = addr.value / DIRTY_LOG_PAGE_BYTES; page <= last; page++) {
		if (page / 8 >= log->bitmap_bytes)
			return;
		mark_page(log, page);
	}
}

void dirty_log_mark_host(struct dirty_log *log, const struct mem_table *table, const void *host,
			 uint64_t len)
{
	const uint8_t *at = host;

	for (uint32_t i = 0; i < table->slot_count; i++) {
		const struct mem_slot *slot = &table->slots[i];
		/* Host ranges never straddle slots: translation cuts at their ends. */
		if (at < slot->host || (uint64_t)(at - slot->host) >= slot->size_bytes)
			continue;
		uint64_t offset = (uint64_t)(at - slot->host);
		dirty_log_mark(log, (gpa_t){slot->guest_addr + offset},
			       MIN(len, slot->size_bytes - offset));
		return;
	}
}
