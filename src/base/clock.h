/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time. Nanoseconds come from CLOCK_MONOTONIC; ticks from the CPU's own constant-rate counter
 * (TSC on x86-64, CNTVCT on arm64), which costs about 20 cycles to read. Any thread.
 */
#ifndef SLUICE_BASE_CLOCK_H
#define SLUICE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static inline uint64_t ticks_now(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#elif defined(__aarch64__)
	uint64_t v;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#else
	return clock_ns();
#endif
}

/* Ticks a second. Measured once against CLOCK_MONOTONIC (about 20 ms) on the first call on
 * x86-64, read from the architecture elsewhere. Thread-safe. */
uint64_t ticks_hz(void);

/* Conversions, exact to about 1e-9; any 64-bit value. What does not fit becomes UINT64_MAX. */
uint64_t ticks_to_ns(uint64_t ticks);
uint64_t ns_to_ticks(uint64_t ns);

#endif
