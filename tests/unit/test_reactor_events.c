/* SPDX-License-Identifier: Apache-2.0 */
/* Reactors: timers, and fds in batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/fd.h"
#include "harness.h"

#define MS 1000000ull

static void nothing(void *arg)
{
}

/* ---- timers ------------------------------------------------------------------------------ */

struct test_timer {
	struct reactor_timer timer;
	unsigned int runs;
	uint64_t start_ns;
	uint64_t fired_ns;
	uint64_t delay_ns;
	unsigned int order;
	unsigned int again_count;
	struct test_timer *stops;
};
static unsigned int timer_order;

static void timer_fired(struct reactor_timer *timer)
{
	struct test_timer *self = container_of(timer, struct test_timer, timer);

	self->fired_ns = clock_ns();
	self->order = ++timer_order;
	if (self->stops != NULL)
		reactor_timer_stop(&self->stops->timer);
	if (self->again_count > 0) {
		self->again_count--;
		reactor_timer_start(harness_reactor(), timer, self->delay_ns);
	}
	store_release(&self->runs, self->runs + 1);
}

static void start_timer(void *arg)
{
	struct test_timer *self = arg;

	self->timer.fn = timer_fired;
	self->start_ns = clock_ns();
	reactor_timer_start(harness_reactor(), &self->timer, self->delay_ns);
}

static void stop_timer(void *arg)
{
	struct test_timer *self = arg;

	reactor_timer_stop(&self->timer);
}

static void wait_timer(const struct test_timer *self, unsigned int runs)
{
	harness_wait_at_least(&self->runs, runs);
	(void)load_acquire(&self->runs);
}

#define TIMER_COUNT 8
static void start_scrambled(void *arg)
{
	struct test_timer *timers = arg;

	timer_order = 0;
	for (unsigned int i = 0; i < TIMER_COUNT; i++) {
		unsigned int k = (i * 5) % TIMER_COUNT;
		timers[k].delay_ns = (2 + k) * 2 * MS;
		start_timer(&timers[k]);
	}
}

static void test_timer_order_and_precision(void **state)
{
	struct test_timer timers[TIMER_COUNT] = {{.runs = 0}};

	harness_call(start_scrambled, timers);
	for (unsigned int i = 0; i < TIMER_COUNT; i++) {
		wait_timer(&timers[i], 1);
		uint64_t took = timers[i].fired_ns - timers[i].start_ns;
		assert_int_equal(timers[i].order, i + 1);
		/* Never early but for the error of the tick rate; late by what a loaded machine
		 * needs. */
		assert_true(took + took / 1000 >= timers[i].delay_ns);
		assert_true(took < timers[i].delay_ns + 1000 * MS);
	}
}

static void start_equal(void *arg)
{
	struct test_timer *timers = arg;

	timer_order = 0;
	for (unsigned int i = 0; i < TIMER_COUNT; i++)
		start_timer(&timers[i]);
	/* Due by now: all in one iteration. */
	usleep(2000);
}

/* The first one due stops the third, the second itself: both legal. */
static void test_timer_stops_in_callback(void **state)
{
	struct test_timer timers[TIMER_COUNT] = {{.runs = 0}};

	timers[0].stops = &timers[2];
	timers[1].stops = &timers[1];
	harness_call(start_equal, timers);
	wait_timer(&timers[TIMER_COUNT - 1], 1);
	assert_int_equal(timers[0].runs, 1);
	assert_int_equal(timers[1].runs, 1);
	assert_int_equal(timers[2].runs, 0);
	for (unsigned int i = 3; i < TIMER_COUNT; i++)
		assert_int_equal(timers[i].order, i);
}

static void test_timer_restart_moves(void **state)
{
	struct test_timer self = {.delay_ns = 20 * MS};

	harness_call(stop_timer, &self);
	harness_call(start_timer, &self);
	usleep(5000);
	self.delay_ns = 60 * MS;
	harness_call(start_timer, &self);
	wait_timer(&self, 1);
	assert_true(self.fired_ns - self.start_ns >= 59 * MS);
	usleep(30000);
	assert_int_equal(load_relaxed(&self.runs), 1);

	self.delay_ns = 10 * MS;
	harness_call(start_timer, &self);
	harness_call(stop_timer, &self);
	harness_call(stop_timer, &self);
	usleep(30000);
	assert_int_equal(load_relaxed(&self.runs), 1);
}

/* A timer with no delay that starts itself again must leave room for the rest. */
static void test_timer_restarts_itself(void **state)
{
	struct test_timer self = {.delay_ns = 0, .again_count = 2000};

	harness_call(start_timer, &self);
	harness_call(nothing, NULL);
	wait_timer(&self, 2001);
}

/* "For ever" must not come around to now. */
static void test_timer_far_away(void **state)
{
	static const uint64_t delays[] = {UINT64_MAX, UINT64_MAX / 2, UINT64_MAX / 4,
					  1000000000ull * 86400 * 365};

	for (size_t i = 0; i < ARRAY_COUNT(delays); i++) {
		struct test_timer far = {.delay_ns = delays[i]};
		struct test_timer near = {.delay_ns = 1 * MS};
		harness_call(start_timer, &far);
		harness_call(start_timer, &near);
		wait_timer(&near, 1);
		usleep(1000);
		harness_call(stop_timer, &far);
		assert_int_equal(far.runs, 0);
	}
}

static void test_clock_conversions(void **state)
{
	uint64_t hz = ticks_hz();
	/* The largest time that has a count of ticks in 64 bits, and the other way round. */
	uint64_t max_ns = hz > 1000000000u ? ticks_to_ns(UINT64_MAX) : UINT64_MAX;

	assert_int_equal(ns_to_ticks(0), 0);
	assert_int_equal(ns_to_ticks(1000000000), hz);
	assert_int_equal(ticks_to_ns(hz), 1000000000);
	assert_true(ns_to_ticks(max_ns) >= UINT64_MAX / 1000 * 999);
	assert_true(ns_to_ticks(UINT64_MAX) >= ns_to_ticks(UINT64_MAX / 2));
	assert_true(ns_to_ticks(UINT64_MAX / 2) >= ns_to_ticks(UINT64_MAX / 4));
	assert_true(ticks_to_ns(UINT64_MAX) >= ticks_to_ns(UINT64_MAX / 2));
}

/* ---- fds --------------------------------------------------------------------------------- */

struct test_fd {
	struct reactor_fd watch;
	uint32_t events;
	unsigned int calls;
	bool read_it;
	bool remove_self;
	struct test_fd *removes;
	struct test_fd *adds;
};

static void fd_ready(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct test_fd *self = container_of(watch, struct test_fd, watch);
	uint64_t count;

	ensure(epoll_events & EPOLLIN);
	counter_add(&self->calls, 1);
	if (self->read_it)
		ensure(read(watch->fd, &count, sizeof(count)) == sizeof(count));
	if (self->remove_self)
		reactor_fd_remove(watch);
	if (self->removes != NULL)
		reactor_fd_remove(&self->removes->watch);
	if (self->adds != NULL) {
		ensure(reactor_fd_add(harness_reactor(), &self->adds->watch, self->adds->events) ==
		       0);
		self->adds = NULL;
	}
}

static void fd_open(struct test_fd *self)
{
	self->watch.fn = fd_ready;
	self->watch.fd = fd_eventfd_create();
	assert_true(self->watch.fd >= 0);
	if (self->events == 0)
		self->events = EPOLLIN;
}

static void fd_watch(void *arg)
{
	struct test_fd *self = arg;

	ensure(reactor_fd_add(harness_reactor(), &self->watch, self->events) == 0);
}

static void fd_unwatch(void *arg)
{
	struct test_fd *self = arg;

	reactor_fd_remove(&self->watch);
	reactor_fd_remove(&self->watch);
}

static void fd_end(struct test_fd *self)
{
	harness_call(fd_unwatch, self);
	fd_close(&self->watch.fd);
}

static void test_fd_level_and_edge(void **state)
{
	struct test_fd level = {.read_it = false};
	struct test_fd edge = {.events = EPOLLIN | EPOLLET};

	fd_open(&level);
	fd_open(&edge);
	harness_call(fd_watch, &level);
	harness_call(fd_watch, &edge);
	fd_eventfd_signal(level.watch.fd);
	harness_wait_at_least(&level.calls, 50);
	harness_call(fd_unwatch, &level);
	unsigned int calls = load_relaxed(&level.calls);
	for (unsigned int i = 1; i <= 20; i++) {
		fd_eventfd_signal(edge.watch.fd);
		harness_wait_at_least(&edge.calls, i);
		usleep(500);
		assert_int_equal(load_relaxed(&edge.calls), i);
	}
	assert_int_equal(load_relaxed(&level.calls), calls);
	fd_end(&level);
	fd_end(&edge);
}

static void watch_and_signal(void *arg)
{
	struct test_fd *fds = arg;

	for (int i = 0; i < 3; i++) {
		fd_watch(&fds[i]);
		fd_eventfd_signal(fds[i].watch.fd);
	}
}

/* Three are ready in one batch. The first to run removes the other two: they must not be called,
 * though their events are in the batch; also if one of them is at once added again. */
static void test_fd_removed_in_batch(void **state)
{
	for (int variant = 0; variant < 2; variant++) {
		struct test_fd fds[3] = {{.read_it = true}, {.read_it = true}, {.read_it = true}};

		for (int i = 0; i < 3; i++)
			fd_open(&fds[i]);
		/* Whichever comes first of 0 and 1 removes the other; 2 removes itself. */
		fds[0].removes = &fds[1];
		fds[1].removes = &fds[0];
		fds[2].remove_self = true;
		harness_call(watch_and_signal, fds);
		harness_wait_at_least(&fds[2].calls, 1);
		harness_call(nothing, NULL);
		usleep(2000);
		harness_call(nothing, NULL);
		assert_int_equal(fds[0].calls + fds[1].calls, 1);
		assert_int_equal(fds[2].calls, 1);
		if (variant == 1) {
			struct test_fd *gone = fds[0].watch.registered ? &fds[1] : &fds[0];
			struct test_fd *there = gone == &fds[0] ? &fds[1] : &fds[0];
			/* Removed and added within one callback: served from then on. */
			there->removes = gone;
			there->adds = gone;
			gone->removes = NULL;
			harness_call(fd_watch, gone);
			fd_eventfd_signal(there->watch.fd);
			harness_wait_at_least(&there->calls, 2);
			fd_eventfd_signal(gone->watch.fd);
			harness_wait_at_least(&gone->calls, 1);
		}
		for (int i = 0; i < 3; i++)
			fd_end(&fds[i]);
	}
}

static void fd_modify_off(void *arg)
{
	struct test_fd *self = arg;

	ensure(reactor_fd_modify(&self->watch, EPOLLRDHUP) == 0);
}

static void test_fd_modify_and_refusal(void **state)
{
	struct test_fd self = {.read_it = false};
	FILE *regular = tmpfile();

	fd_open(&self);
	harness_call(fd_watch, &self);
	fd_eventfd_signal(self.watch.fd);
	harness_wait_at_least(&self.calls, 10);
	harness_call(fd_modify_off, &self);
	unsigned int calls = load_relaxed(&self.calls);
	usleep(2000);
	assert_int_equal(load_relaxed(&self.calls), calls);
	fd_end(&self);

	/* A regular file cannot be watched. */
	struct reactor_fd watch = {.fd = fileno(regular), .fn = fd_ready};
	assert_true(reactor_fd_add(harness_reactor(), &watch, EPOLLIN) < 0);
	assert_false(watch.registered);
	fclose(regular);
}

static int setup(void **state)
{
	harness_start(REACTOR_POLL_ADAPTIVE);
	return 0;
}

static int teardown(void **state)
{
	harness_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer_order_and_precision),
		cmocka_unit_test(test_timer_stops_in_callback),
		cmocka_unit_test(test_timer_restart_moves),
		cmocka_unit_test(test_timer_restarts_itself),
		cmocka_unit_test(test_timer_far_away),
		cmocka_unit_test(test_clock_conversions),
		cmocka_unit_test(test_fd_level_and_edge),
		cmocka_unit_test(test_fd_removed_in_batch),
		cmocka_unit_test(test_fd_modify_and_refusal),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
