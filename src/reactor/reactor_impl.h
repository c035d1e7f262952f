/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a reactor, for the files of this folder. */
#ifndef SLUICE_REACTOR_REACTOR_IMPL_H
#define SLUICE_REACTOR_REACTOR_IMPL_H

#include <pthread.h>
#include <sys/epoll.h>

#include "reactor/reactor.h"

#define REACTOR_EVENT_BATCH 64

struct reactor {
	struct reactor_hot hot;
	struct list active;    /* pollers polled every iteration */
	struct list parked;    /* pollers that wait for a notification */
	struct list *cursor;   /* the poller after the one being polled */
	struct poller *polled; /* the one being polled; NULL once it was stopped */
	struct list timers;    /* by due time */
	uint64_t quiet_ticks;
	uint64_t epoll_period_ticks;
	uint64_t last_epoll_ticks;
	enum reactor_poll_mode mode;
	int epoll_fd;
	int cpu;
	char name[32];
	pthread_t thread;
	bool started;
	struct reactor_fd wake_watch;
	/* The batch of epoll events being delivered. */
	struct epoll_event events[REACTOR_EVENT_BATCH];
	int event_index;
	int event_count;

	/* Written by the reactor, read by anybody. */
	struct reactor_stats stats CACHE_ALIGNED;
	uint64_t asleep_since_ticks; /* 0: awake */

	/* Written by other threads. */
	struct reactor_msg *mailbox CACHE_ALIGNED; /* newest first */
	bool sleeping;
	bool stopping;
};

/* mailbox.c: runs the messages that are there; their count. */
unsigned int reactor_run_messages(struct reactor *reactor);
/* Announces sleep to senders. False if a message came in between: do not sleep. */
bool reactor_begin_sleep(struct reactor *reactor);
void reactor_end_sleep(struct reactor *reactor);

/* events.c */
int reactor_events_init(struct reactor *reactor);
void reactor_events_fini(struct reactor *reactor);
/* Waits up to timeout_ms (-1: for ever) for events, then delivers them; their count. */
void reactor_events_fetch(struct reactor *reactor, int timeout_ms);
unsigned int reactor_events_deliver(struct reactor *reactor);

/* timers.c */
unsigned int reactor_run_timers(struct reactor *reactor);
/* Until the next timer is due: -1 if there is none. */
int reactor_timer_wait_ms(const struct reactor *reactor);

#endif
