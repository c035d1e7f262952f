/* SPDX-License-Identifier: Apache-2.0 */
/* The tick rate of this machine. Any thread. */
#include "base/clock.h"

#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t hz;

static void measure_hz(void)
{
#if defined(__aarch64__)
	__asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
#else
	const uint64_t span_ns = 20000000;
	uint64_t start_ns = clock_ns();
	uint64_t start = ticks_now();
	uint64_t end_ns;

	do {
		end_ns = clock_ns();
	} while (end_ns - start_ns < span_ns);
	hz = (uint64_t)((unsigned __int128)(ticks_now() - start) * 1000000000u /
			(end_ns - start_ns));
#endif
}

uint64_t ticks_hz(void)
{
	pthread_once(&once, measure_hz);
	return hz;
}

static uint64_t saturated(unsigned __int128 v)
{
	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

uint64_t ticks_to_ns(uint64_t ticks)
{
	return saturated((unsigned __int128)ticks * 1000000000u / ticks_hz());
}

uint64_t ns_to_ticks(uint64_t ns)
{
	return saturated((unsigned __int128)ns * ticks_hz() / 1000000000u);
}
