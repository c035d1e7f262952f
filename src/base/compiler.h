/* SPDX-License-Identifier: Apache-2.0 */
/* Small compiler helpers used everywhere. No state, any thread. */
#ifndef SLUICE_BASE_COMPILER_H
#define SLUICE_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define CACHE_LINE_BYTES 64

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CACHE_ALIGNED __attribute__((aligned(CACHE_LINE_BYTES)))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Relaxed accesses to memory that another thread or a guest may change at any time: exactly one
 * load or store, never torn for naturally aligned types up to 8 bytes, never repeated. */
#define load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Adds to a counter that has one writer and any number of readers on other threads. */
#define counter_add(p, n) store_relaxed((p), load_relaxed(p) + (n))

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#endif
}

#endif
