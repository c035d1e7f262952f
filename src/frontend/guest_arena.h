/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that a front-end shares with its target: one memfd, mapped whole, handed out from
 * the start and never given back before the end. It is shown to the target at a "guest physical"
 * address that differs from ours, so that a target which mixes the two up is found out. Owned by
 * the thread that sets the front-end up.
 */
#ifndef SLUICE_FRONTEND_GUEST_ARENA_H
#define SLUICE_FRONTEND_GUEST_ARENA_H

#include <stdbool.h>
#include <stdint.h>

/* Above 4 GiB: a target that drops the upper half of an address is found out too. */
#define GUEST_ARENA_BASE (5ull << 30)
/* Targets that pin or register guest memory do it in huge pages. */
#define GUEST_ARENA_GRANULE (2ull << 20)

struct guest_arena {
	int fd; /* owned */
	uint8_t *base;
	uint64_t size_bytes;
	uint64_t next_bytes;
};

/* Maps at least size_bytes, all of it present. hugetlb asks for explicit huge pages, which SPDK
 * started with physical addressing needs. 0 or -errno. */
int guest_arena_create(struct guest_arena *arena, uint64_t size_bytes, bool hugetlb);
void guest_arena_destroy(struct guest_arena *arena);

/* Zeroed memory at a multiple of align_bytes (a power of two), or NULL when the arena is used up.
 */
void *guest_arena_alloc(struct guest_arena *arena, uint64_t len_bytes, uint64_t align_bytes);

/* The address by which the target knows ptr, which must lie in the arena. */
uint64_t guest_arena_address(const struct guest_arena *arena, const void *ptr);

#endif
