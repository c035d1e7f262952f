/* SPDX-License-Identifier: Apache-2.0 */
/* SIGTERM and SIGINT as events of the control reactor. */
#ifndef SLUICE_ENGINE_ENGINE_SIGNALS_H
#define SLUICE_ENGINE_ENGINE_SIGNALS_H

#include "reactor/reactor.h"

struct engine_signals {
	struct reactor_fd watch;
	bool asked;
	/* The first signal; a second one ends the process at once. */
	void (*stop)(struct engine_signals *signals);
};

/* Main thread, before any other thread: blocks the signals for all of them, ignores SIGPIPE. */
void engine_signals_block(void);
/* Main thread, before the reactor runs. 0 or -errno. */
int engine_signals_init(struct engine_signals *signals, struct reactor *control,
			void (*stop)(struct engine_signals *signals));
void engine_signals_fini(struct engine_signals *signals);

#endif
