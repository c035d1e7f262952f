/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a reactor: messages, pollers, deferred work, timers, fds, and adaptive waiting.
 * Everything runs on the reactor's own thread but creation, start, stop, join and statistics.
 */
#include "reactor/reactor.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "reactor/reactor_impl.h"

/* How long an adaptive poller may find nothing before it parks: longer than the gap that an I/O
 * at depth 1 leaves, shorter than what anybody would call burning a core. */
#define QUIET_DEFAULT_NS 100000
/* How often a reactor with active pollers looks at the kicks of parked ones: one system call of
 * about 0.3 us in this time bounds both its cost (1.5 %) and the delay of a kick. */
#define EPOLL_PERIOD_NS 20000
/* In mode ALWAYS no queue parks; only the rest of the fds is looked after. */
#define EPOLL_PERIOD_ALWAYS_NS 200000

static _Thread_local struct reactor *current_reactor;

static const char *const mode_names[] = {
	[REACTOR_POLL_ADAPTIVE] = "adaptive",
	[REACTOR_POLL_ALWAYS] = "always",
	[REACTOR_POLL_NEVER] = "never",
};

int reactor_poll_mode_parse(const char *name, enum reactor_poll_mode *out)
{
	for (size_t i = 0; i < ARRAY_COUNT(mode_names); i++) {
		if (strcmp(name, mode_names[i]) == 0) {
			*out = (enum reactor_poll_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *reactor_poll_mode_name(enum reactor_poll_mode mode)
{
	return mode_names[mode];
}

/* ---- pollers ----------------------------------------------------------------------------- */

/* Takes a poller off the list that it is on, minding the walk that may be under way. */
static void unlink_poller(struct reactor *reactor, struct poller *poller)
{
	if (reactor->cursor == &poller->link)
		reactor->cursor = poller->link.next;
	if (reactor->polled == poller)
		reactor->polled = NULL;
	list_remove(&poller->link);
	if (poller->active)
		counter_add(&reactor->stats.active_poller_count, -1);
}

static void activate(struct reactor *reactor, struct poller *poller)
{
	poller->active = true;
	poller->last_work_ticks = reactor->hot.now_ticks;
	/* In front of a walk that may be under way, which would otherwise not end as long as its
	 * pollers activate each other. The next iteration begins with it. */
	list_add_head(&reactor->active, &poller->link);
	counter_add(&reactor->stats.active_poller_count, 1);
}

void poller_start(struct reactor *reactor, struct poller *poller)
{
	ensure(poller->reactor == NULL);
	poller->reactor = reactor;
	counter_add(&reactor->stats.poller_count, 1);
	activate(reactor, poller);
}

void poller_stop(struct poller *poller)
{
	struct reactor *reactor = poller->reactor;

	if (reactor == NULL)
		return;
	unlink_poller(reactor, poller);
	counter_add(&reactor->stats.poller_count, -1);
	poller->reactor = NULL;
	poller->active = false;
}

void poller_wake(struct poller *poller)
{
	struct reactor *reactor = poller->reactor;

	if (reactor == NULL || poller->active)
		return;
	unlink_poller(reactor, poller);
	activate(reactor, poller);
}

static void try_park(struct reactor *reactor, struct poller *poller)
{
	bool parks = poller->park(poller);

	if (reactor->polled != poller)
		return;
	if (!parks) {
		poller->last_work_ticks = reactor->hot.now_ticks;
		return;
	}
	unlink_poller(reactor, poller);
	poller->active = false;
	list_add_tail(&reactor->parked, &poller->link);
}

static bool is_quiet(const struct reactor *reactor, const struct poller *poller)
{
	switch (reactor->mode) {
	case REACTOR_POLL_ADAPTIVE:
		return reactor->hot.now_ticks - poller->last_work_ticks > reactor->quiet_ticks;
	case REACTOR_POLL_NEVER:
		return true;
	case REACTOR_POLL_ALWAYS:
		return false;
	}
	return false;
}

static unsigned int run_pollers(struct reactor *reactor)
{
	unsigned int work = 0;

	reactor->cursor = reactor->active.next;
	while (reactor->cursor != &reactor->active) {
		struct poller *poller = list_entry(reactor->cursor, struct poller, link);
		reactor->cursor = reactor->cursor->next;
		reactor->polled = poller;
		unsigned int n = poller->poll(poller);
		work += n;
		if (unlikely(reactor->polled != poller))
			continue;
		if (n > 0)
			poller->last_work_ticks = reactor->hot.now_ticks;
		else if (poller->park != NULL && is_quiet(reactor, poller))
			try_park(reactor, poller);
	}
	reactor->cursor = NULL;
	reactor->polled = NULL;
	return work;
}

/* ---- deferred work ----------------------------------------------------------------------- */

static unsigned int run_deferred(struct reactor *reactor)
{
	struct reactor_hot *hot = &reactor->hot;
	uint64_t iteration = reactor->stats.iteration_count + 1;
	struct reactor_deferred *again = NULL;
	struct reactor_deferred **again_last = &again;
	unsigned int count = 0;

	/* What is added meanwhile runs too: a submission may complete inline, and a completion
	 * wants to be published. But nothing runs twice: what waits for a poller or a message would
	 * wait for ever. */
	while (hot->deferred_first != NULL) {
		struct reactor_deferred *deferred = hot->deferred_first;
		hot->deferred_first = deferred->next;
		if (hot->deferred_first == NULL)
			hot->deferred_last = &hot->deferred_first;
		if (unlikely(deferred->iteration == iteration)) {
			deferred->next = NULL;
			*again_last = deferred;
			again_last = &deferred->next;
			continue;
		}
		deferred->iteration = iteration;
		deferred->queued = false;
		deferred->fn(deferred);
		count++;
	}
	if (unlikely(again != NULL)) {
		hot->deferred_first = again;
		hot->deferred_last = again_last;
	}
	return count;
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void sleep_until_event(struct reactor *reactor)
{
	uint64_t start = ticks_now();

	if (!reactor_begin_sleep(reactor))
		return;
	store_release(&reactor->asleep_since_ticks, start);
	reactor_events_fetch(reactor, reactor_timer_wait_ms(reactor));
	reactor_end_sleep(reactor);
	/* Partner: reactor_get_stats(). A reader that sees any of the sums below sees this too. */
	store_relaxed(&reactor->asleep_since_ticks, 0);
	/* The iteration goes on as if it began now: sleeping is not part of its work. */
	uint64_t now = ticks_now();
	struct reactor_stats *stats = &reactor->stats;
	store_release(&stats->idle_ticks, stats->idle_ticks + (now - start));
	store_release(&stats->sleep_ticks, stats->sleep_ticks + (now - start));
	counter_add(&stats->sleep_count, 1);
	reactor->hot.now_ticks = now;
}

/* Sleeps until something happens if nothing needs polling, else looks at the fds now and then. */
static unsigned int run_events(struct reactor *reactor)
{
	struct reactor_hot *hot = &reactor->hot;

	if (list_empty(&reactor->active) && hot->deferred_first == NULL) {
		sleep_until_event(reactor);
	} else {
		if (likely(hot->now_ticks - reactor->last_epoll_ticks <
			   reactor->epoll_period_ticks))
			return 0;
		reactor_events_fetch(reactor, 0);
	}
	reactor->last_epoll_ticks = hot->now_ticks;
	return reactor_events_deliver(reactor);
}

void reactor_run(struct reactor *reactor)
{
	struct reactor_hot *hot = &reactor->hot;

	current_reactor = reactor;
	hot->now_ticks = ticks_now();
	while (likely(!load_relaxed(&reactor->stopping))) {
		unsigned int work = run_events(reactor);
		uint64_t start = hot->now_ticks;

		work += reactor_run_messages(reactor);
		work += run_pollers(reactor);
		work += run_deferred(reactor);
		work += reactor_run_timers(reactor);

		hot->now_ticks = ticks_now();
		counter_add(work > 0 ? &reactor->stats.busy_ticks : &reactor->stats.idle_ticks,
			    hot->now_ticks - start);
		counter_add(&reactor->stats.iteration_count, 1);
	}
	current_reactor = NULL;
}

/* ---- life -------------------------------------------------------------------------------- */

int reactor_create(const struct reactor_options *options, struct reactor **out)
{
	struct reactor *reactor = aligned_alloc(CACHE_LINE_BYTES, sizeof(*reactor));
	bool always = options->mode == REACTOR_POLL_ALWAYS;

	if (reactor == NULL)
		return -ENOMEM;
	memset(reactor, 0, sizeof(*reactor));
	reactor->hot.deferred_last = &reactor->hot.deferred_first;
	list_init(&reactor->active);
	list_init(&reactor->parked);
	list_init(&reactor->timers);
	reactor->mode = options->mode;
	reactor->cpu = options->cpu;
	reactor->quiet_ticks =
		ns_to_ticks(options->quiet_ns > 0 ? options->quiet_ns : QUIET_DEFAULT_NS);
	reactor->epoll_period_ticks =
		ns_to_ticks(always ? EPOLL_PERIOD_ALWAYS_NS : EPOLL_PERIOD_NS);
	snprintf(reactor->name, sizeof(reactor->name), "%s", options->name);
	int rc = reactor_events_init(reactor);
	if (rc < 0) {
		reactor_events_fini(reactor);
		free(reactor);
		return rc;
	}
	*out = reactor;
	return 0;
}

static void *thread_main(void *arg)
{
	struct reactor *reactor = arg;
	char name[16];

	snprintf(name, sizeof(name), "%.15s", reactor->name);
	pthread_setname_np(pthread_self(), name);
	reactor_run(reactor);
	return NULL;
}

int reactor_start(struct reactor *reactor)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	if (reactor->cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET((size_t)reactor->cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	int rc = -pthread_create(&reactor->thread, &attr, thread_main, reactor);
	pthread_attr_destroy(&attr);
	reactor->started = rc == 0;
	return rc;
}

void reactor_stop(struct reactor *reactor)
{
	/* Partner: reactor_begin_sleep() looks at stopping after it announced sleep. The signal is
	 * unconditional, so the order does not matter here. */
	store_relaxed(&reactor->stopping, true);
	fd_eventfd_signal(reactor->wake_watch.fd);
}

void reactor_join(struct reactor *reactor)
{
	if (reactor->started)
		pthread_join(reactor->thread, NULL);
	reactor->started = false;
}

void reactor_destroy(struct reactor *reactor)
{
	ensure(!reactor->started);
	ensure(list_empty(&reactor->active) && list_empty(&reactor->parked));
	reactor_events_fini(reactor);
	free(reactor);
}

struct reactor *reactor_current(void)
{
	return current_reactor;
}

const char *reactor_name(const struct reactor *reactor)
{
	return reactor->name;
}

int reactor_cpu(const struct reactor *reactor)
{
	return reactor->cpu;
}

enum reactor_poll_mode reactor_mode(const struct reactor *reactor)
{
	return reactor->mode;
}

void reactor_get_stats(const struct reactor *reactor, struct reactor_stats *out)
{
	const struct reactor_stats *stats = &reactor->stats;
	uint64_t since, asleep;

	/* The sleep under way is not in the sums yet, and may last for hours. Once more if it
	 * ended meanwhile: it must not be counted twice. */
	do {
		since = load_acquire(&reactor->asleep_since_ticks);
		uint64_t now = ticks_now();
		asleep = since != 0 && now > since ? now - since : 0;
		out->idle_ticks = load_acquire(&stats->idle_ticks);
		out->sleep_ticks = load_acquire(&stats->sleep_ticks);
	} while (since != load_relaxed(&reactor->asleep_since_ticks));
	out->idle_ticks += asleep;
	out->sleep_ticks += asleep;
	out->busy_ticks = load_relaxed(&stats->busy_ticks);
	out->iteration_count = load_relaxed(&stats->iteration_count);
	out->sleep_count = load_relaxed(&stats->sleep_count);
	out->message_count = load_relaxed(&stats->message_count);
	out->active_poller_count = load_relaxed(&stats->active_poller_count);
	out->poller_count = load_relaxed(&stats->poller_count);
}
