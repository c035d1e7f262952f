/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty page log of a live migration: a bitmap that the front-end shares with us, in which we
 * set the bit of every guest page that we have written to (vhost-user.rst, "Migration").
 *
 * Mapped and freed on the control thread; marked on reactors, after the write: a page whose bit is
 * found set is copied with what was written.
 */
#ifndef SLUICE_MEMORY_DIRTY_LOG_H
#define SLUICE_MEMORY_DIRTY_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "memory/guest_memory.h"

#define DIRTY_LOG_PAGE_BYTES 4096u

struct dirty_log {
	uint8_t *bitmap;
	uint64_t bitmap_bytes;
	void *map_base;
	size_t map_bytes;
	bool faulted; /* its file was truncated */
};

/* Maps the log: 0; -EINVAL if it is empty or does not lie in its file; -ENOMEM and others of
 * mmap(2). The fd stays the caller's. */
int dirty_log_map(int fd, uint64_t offset, uint64_t size_bytes, struct dirty_log **out);
void dirty_log_destroy(struct dirty_log *log); /* NULL is fine */

/* Marks the pages of [addr, addr + len). Pages beyond the end of the log are left out. */
void dirty_log_mark(struct dirty_log *log, gpa_t addr, uint64_t len);

/* The same for a range of host addresses of guest memory: what lies outside the table is left
 * out. */
void dirty_log_mark_host(struct dirty_log *log, const struct mem_table *table, const void *host,
			 uint64_t len);

#endif
