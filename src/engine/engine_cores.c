/* SPDX-License-Identifier: Apache-2.0 */
/* Which cores the data reactors get. Main thread. */
#include "engine/engine_cores.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static bool cpu_in(const uint64_t *words, int cpu)
{
	return (words[cpu / 64] >> (cpu % 64) & 1) != 0;
}

/* CPU 0 gets most interrupts and what is not pinned, so it comes last. */
static int default_core(const cpu_set_t *allowed)
{
	for (int cpu = 1; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET((size_t)cpu, allowed))
			return cpu;
	}
	return 0;
}

static int reactor_add(int cpu, enum reactor_poll_mode mode, struct reactor_set *set)
{
	char name[32];
	const struct reactor_options options = {.name = name, .cpu = cpu, .mode = mode};

	if (set->data_count == REACTOR_COUNT_MAX) {
		log_error("--cores: more than %d cores", REACTOR_COUNT_MAX);
		return -EINVAL;
	}
	snprintf(name, sizeof(name), "reactor_%d", cpu);
	int rc = reactor_create(&options, &set->data[set->data_count]);
	if (rc < 0) {
		log_error("reactor on core %d: %s", cpu, strerror(-rc));
		return rc;
	}
	set->data_count++;
	return 0;
}

int engine_cores_create(const uint64_t *cores, enum reactor_poll_mode mode, struct reactor_set *set)
{
	cpu_set_t allowed;

	_Static_assert(CPU_SETSIZE >= REACTOR_CPU_MAX, "a cpu_set_t holds every core of --cores");
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -errno;
	for (int cpu = 0; cpu < REACTOR_CPU_MAX; cpu++) {
		if (!cpu_in(cores, cpu))
			continue;
		if (!CPU_ISSET((size_t)cpu, &allowed)) {
			log_error("--cores: CPU %d is not there, or not allowed to this process",
				  cpu);
			return -EINVAL;
		}
		int rc = reactor_add(cpu, mode, set);
		if (rc < 0)
			return rc;
	}
	return set->data_count > 0 ? 0 : reactor_add(default_core(&allowed), mode, set);
}
