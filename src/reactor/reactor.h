/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reactors: threads that run pollers, watch fds and take messages.
 *
 * A data reactor is pinned to one core and polls; the control reactor is the same thing in mode
 * REACTOR_POLL_NEVER without a core: it sleeps whenever there is nothing to do. Data reactors
 * never block, lock, or parse; what needs that runs on the control reactor or on a worker
 * (reactor/worker.h).
 *
 * Everything here is called on the reactor's own thread unless it says "any thread".
 */
#ifndef SLUICE_REACTOR_REACTOR_H
#define SLUICE_REACTOR_REACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct reactor;

/* When a poller that finds nothing goes to sleep. */
enum reactor_poll_mode {
	REACTOR_POLL_ADAPTIVE, /* after a quiet spell */
	REACTOR_POLL_ALWAYS,   /* never: the core is burnt */
	REACTOR_POLL_NEVER,    /* at once: interrupt driven */
};
/* "adaptive", "always", "never". */
int reactor_poll_mode_parse(const char *name, enum reactor_poll_mode *out);
const char *reactor_poll_mode_name(enum reactor_poll_mode mode);

/* ---- messages ---------------------------------------------------------------------------- */

/* Intrusive; the sender owns the memory until fn runs, which may free it. Messages of one sender
 * to one reactor are run in order. */
struct reactor_msg {
	struct reactor_msg *next;
	void (*fn)(struct reactor_msg *msg);
};
/* Any thread. Lock-free; wakes the reactor if it sleeps. */
void reactor_send(struct reactor *reactor, struct reactor_msg *msg);

/* ---- pollers ----------------------------------------------------------------------------- */

/*
 * A poller is on the active list (polled every iteration) or parked. An active poller that has
 * found nothing for the quiet spell of the poll mode is asked to park.
 */
struct poller {
	struct list link;
	/* Does what there is to do and returns how much that was; 0 means idle. */
	unsigned int (*poll)(struct poller *poller);
	/* Asks for notifications, then looks once more. True: parked, a notification (fd event)
	 * will call poller_wake(). False: there is work; notifications are off again. NULL: the
	 * poller never parks by itself. */
	bool (*park)(struct poller *poller);
	struct reactor *reactor;
	uint64_t last_work_ticks;
	bool active;
};
/* Makes the poller known and active. */
void poller_start(struct reactor *reactor, struct poller *poller);
/* Takes it off, active or parked. It may be started again, or freed. Legal inside any callback, its
 * own too. */
void poller_stop(struct poller *poller);
/* Puts a parked poller back on the active list; harmless on an active one. */
void poller_wake(struct poller *poller);

/* ---- deferred work ----------------------------------------------------------------------- */

/* Runs once at the end of the current iteration, after all pollers: for what wants to be done
 * once a batch (submit to the kernel, publish a used index). Adding it again before it ran does
 * nothing; added while or after it ran, it runs in the next iteration. Counts as work. */
struct reactor_deferred {
	struct reactor_deferred *next;
	void (*fn)(struct reactor_deferred *deferred);
	uint64_t iteration; /* of the last run */
	bool queued;
};
static inline void reactor_defer(struct reactor *reactor, struct reactor_deferred *deferred);

/* ---- fds --------------------------------------------------------------------------------- */

/* An fd watched by the reactor's epoll. The fd stays the caller's. */
struct reactor_fd {
	void (*fn)(struct reactor_fd *watch, uint32_t epoll_events);
	struct reactor *reactor;
	int fd;
	bool registered;
};
/* events as EPOLLIN, EPOLLET, ...: 0 or -errno. */
int reactor_fd_add(struct reactor *reactor, struct reactor_fd *watch, uint32_t events);
int reactor_fd_modify(struct reactor_fd *watch, uint32_t events);
/* Harmless if not added. Legal inside any callback, its own too: no later event of the same
 * batch reaches a removed watch. */
void reactor_fd_remove(struct reactor_fd *watch);

/* ---- timers ------------------------------------------------------------------------------ */

struct reactor_timer {
	struct list link;
	void (*fn)(struct reactor_timer *timer);
	struct reactor *reactor;
	uint64_t due_ticks;
};
/* One-shot, after delay_ns; starting it again moves it. Zero-initialise before the first use.
 * For few timers: starting is O(pending). */
void reactor_timer_start(struct reactor *reactor, struct reactor_timer *timer, uint64_t delay_ns);
void reactor_timer_stop(struct reactor_timer *timer);

/* ---- life -------------------------------------------------------------------------------- */

struct reactor_options {
	const char *name;
	int cpu; /* -1: not pinned */
	enum reactor_poll_mode mode;
	/* The quiet spell after which an adaptive poller is asked to park; 0 takes the default. */
	uint64_t quiet_ns;
};

/* Any thread: makes a reactor, not yet running. 0 or -errno; *out is owned by the caller. */
int reactor_create(const struct reactor_options *options, struct reactor **out);
/* Any thread: starts its thread. 0 or -errno. */
int reactor_start(struct reactor *reactor);
/* Runs the reactor on the calling thread until reactor_stop(): for the control reactor. */
void reactor_run(struct reactor *reactor);
/* Any thread: asks it to end after the current iteration. */
void reactor_stop(struct reactor *reactor);
/* Waits for a started thread to end. Not from the reactor itself. */
void reactor_join(struct reactor *reactor);
/* After join, or never started. Pollers and fds must be gone. */
void reactor_destroy(struct reactor *reactor);

/* The reactor that runs the calling thread, or NULL. */
struct reactor *reactor_current(void);
/* Any thread. */
const char *reactor_name(const struct reactor *reactor);
int reactor_cpu(const struct reactor *reactor); /* -1: not pinned */
enum reactor_poll_mode reactor_mode(const struct reactor *reactor);
/* Ticks at the start of the current iteration: a clock that costs nothing. */
static inline uint64_t reactor_now_ticks(const struct reactor *reactor);

/* Any thread; each field is read atomically, the set of them is not. A sleep under way counts up
 * to now. */
struct reactor_stats {
	uint64_t busy_ticks;  /* iterations that found work */
	uint64_t idle_ticks;  /* iterations that found none, and sleeping */
	uint64_t sleep_ticks; /* the part of idle_ticks spent in the kernel, asleep */
	uint64_t iteration_count;
	uint64_t sleep_count;
	uint64_t message_count;
	uint64_t active_poller_count;
	uint64_t poller_count;
};
void reactor_get_stats(const struct reactor *reactor, struct reactor_stats *out);

/* ---- the set of data reactors ------------------------------------------------------------ */

#define REACTOR_CPU_MAX 1024
#define REACTOR_CPU_WORDS (REACTOR_CPU_MAX / 64)

/* The reactors of this process, fixed after start. Index i is a data reactor. */
#define REACTOR_COUNT_MAX 256
struct reactor_set {
	struct reactor *control;
	struct reactor *data[REACTOR_COUNT_MAX];
	unsigned int data_count;
};

/* ---- inline parts ------------------------------------------------------------------------ */

/* What the path of an I/O touches; the first member of struct reactor. Own thread only. */
struct reactor_hot {
	uint64_t now_ticks;
	struct reactor_deferred *deferred_first;
	struct reactor_deferred **deferred_last;
};

static inline uint64_t reactor_now_ticks(const struct reactor *reactor)
{
	return ((const struct reactor_hot *)reactor)->now_ticks;
}

static inline void reactor_defer(struct reactor *reactor, struct reactor_deferred *deferred)
{
	struct reactor_hot *hot = (struct reactor_hot *)reactor;

	if (deferred->queued)
		return;
	deferred->queued = true;
	deferred->next = NULL;
	*hot->deferred_last = deferred;
	hot->deferred_last = &deferred->next;
}

#endif
