/* SPDX-License-Identifier: Apache-2.0 */
/* Which cores the data reactors get. Main thread, before they run. */
#ifndef SLUICE_ENGINE_ENGINE_CORES_H
#define SLUICE_ENGINE_ENGINE_CORES_H

#include "reactor/reactor.h"

/* Makes a data reactor for each core of the set, or, for an empty set, one on the first core that
 * this process may use, CPU 0 only if there is no other. 0, or -errno with a log line: a core that
 * is not there or not allowed is -EINVAL. set->data owns them. */
int engine_cores_create(const uint64_t *cores, enum reactor_poll_mode mode,
			struct reactor_set *set);

#endif
