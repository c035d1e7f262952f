/* SPDX-License-Identifier: Apache-2.0 */
/* Reactors: pollers, deferred work, life and statistics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* ---- pollers ----------------------------------------------------------------------------- */

struct test_poller {
	struct poller poller;
	unsigned int polls;
	unsigned int parks;
	unsigned int max_in_iteration;
	unsigned int in_iteration;
	uint64_t iteration;
	struct test_poller *other;
	bool stop_other;
	bool start_other;
	bool stop_self;
	bool restart_self;
	bool wake_other;
	bool free_self;
};

static unsigned int test_poll(struct poller *poller)
{
	struct test_poller *self = container_of(poller, struct test_poller, poller);
	struct reactor *reactor = poller->reactor;
	uint64_t now = reactor_now_ticks(reactor);

	counter_add(&self->polls, 1);
	self->in_iteration = now == self->iteration ? self->in_iteration + 1 : 1;
	self->iteration = now;
	self->max_in_iteration = MAX(self->max_in_iteration, self->in_iteration);
	/* A pass without end would hang the test instead of failing it. */
	if (self->in_iteration > 100)
		return 0;
	if (self->stop_other)
		poller_stop(&self->other->poller);
	if (self->start_other && self->other->poller.reactor == NULL)
		poller_start(reactor, &self->other->poller);
	if (self->wake_other)
		poller_wake(&self->other->poller);
	if (self->stop_self || self->restart_self || self->free_self)
		poller_stop(poller);
	if (self->restart_self)
		poller_start(reactor, poller);
	if (self->free_self) {
		memset(self, 0xa5, sizeof(*self));
		free(self);
		return 1;
	}
	return 0;
}

static bool test_park(struct poller *poller)
{
	counter_add(&container_of(poller, struct test_poller, poller)->parks, 1);
	return true;
}

static void start_poller(void *arg)
{
	struct test_poller *self = arg;

	self->poller.poll = test_poll;
	poller_start(harness_reactor(), &self->poller);
}

static void start_pair(void *arg)
{
	struct test_poller *pair = arg;

	/* What starts last is polled first. */
	start_poller(&pair[1]);
	start_poller(&pair[0]);
}

static void stop_pair(void *arg)
{
	struct test_poller *pair = arg;

	poller_stop(&pair[0].poller);
	poller_stop(&pair[1].poller);
}

static uint64_t poller_count(void)
{
	struct reactor_stats stats;

	harness_call(nothing, NULL);
	reactor_get_stats(harness_reactor(), &stats);
	assert_true(stats.active_poller_count <= stats.poller_count);
	return stats.poller_count;
}

static void test_poller_stops_itself(void **state)
{
	struct test_poller pair[2] = {{.stop_self = true}, {.polls = 0}};

	harness_call(start_pair, pair);
	harness_wait_at_least(&pair[1].polls, 100);
	assert_int_equal(load_relaxed(&pair[0].polls), 1);
	harness_call(stop_pair, pair);
	harness_call(stop_pair, pair);
	assert_int_equal(poller_count(), 0);
}

/* The next on the list, where the walk will go, and the one before, where it was. */
static void test_poller_stops_other(void **state)
{
	struct test_poller next[2] = {{.other = &next[1], .stop_other = true}, {.polls = 0}};

	harness_call(start_pair, next);
	harness_wait_at_least(&next[0].polls, 100);
	assert_int_equal(load_relaxed(&next[1].polls), 0);
	harness_call(stop_pair, next);

	struct test_poller before[2] = {{.polls = 0}, {.other = &before[0], .stop_other = true}};
	harness_call(start_pair, before);
	harness_wait_at_least(&before[1].polls, 100);
	assert_int_equal(load_relaxed(&before[0].polls), 1);
	harness_call(stop_pair, before);
	assert_int_equal(poller_count(), 0);
}

static void test_poller_starts_other(void **state)
{
	struct test_poller pair[2] = {
		{.other = &pair[1], .start_other = true},
		{.stop_self = true},
	};

	pair[1].poller.poll = test_poll;
	harness_call(start_poller, &pair[0]);
	harness_wait_at_least(&pair[1].polls, 100);
	harness_call(stop_pair, pair);
	assert_int_equal(poller_count(), 0);
}

/* Each goes to the back of the list while the walk is under way; the walk must end all the same. */
static void test_pollers_restart_themselves(void **state)
{
	struct test_poller pair[2] = {{.restart_self = true}, {.restart_self = true}};

	harness_call(start_pair, pair);
	harness_wait_at_least(&pair[0].polls, 1000);
	harness_wait_at_least(&pair[1].polls, 1000);
	harness_call(stop_pair, pair);
	assert_true(pair[0].max_in_iteration <= 2);
	assert_true(pair[1].max_in_iteration <= 2);
	assert_int_equal(poller_count(), 0);
}

static void test_poller_frees_itself(void **state)
{
	for (int i = 0; i < 10; i++) {
		struct test_poller *self = calloc(1, sizeof(*self));
		self->free_self = true;
		harness_call(start_poller, self);
	}
	harness_call(nothing, NULL);
	assert_int_equal(poller_count(), 0);
}

/* In mode NEVER each parks after its poll, and was woken by the other before. */
static void test_pollers_wake_each_other(void **state)
{
	struct test_poller pair[2] = {
		{.other = &pair[1], .wake_other = true, .poller.park = test_park},
		{.other = &pair[0], .wake_other = true, .poller.park = test_park},
	};

	harness_stop();
	harness_start(REACTOR_POLL_NEVER);
	harness_call(start_pair, pair);
	harness_wait_at_least(&pair[0].polls, 1000);
	harness_wait_at_least(&pair[1].parks, 1000);
	harness_call(stop_pair, pair);
	assert_true(pair[0].max_in_iteration <= 2);
	assert_int_equal(poller_count(), 0);
	harness_stop();
	harness_start(REACTOR_POLL_ADAPTIVE);
}

static void wake_poller(void *arg)
{
	struct test_poller *self = arg;

	poller_wake(&self->poller);
	poller_wake(&self->poller);
}

static void stop_poller(void *arg)
{
	struct test_poller *self = arg;

	poller_stop(&self->poller);
	poller_wake(&self->poller);
}

static void test_poller_parks_and_wakes(void **state)
{
	struct test_poller self = {.poller.park = test_park};
	struct reactor_stats stats;

	harness_call(start_poller, &self);
	for (unsigned int i = 1; i <= 5; i++) {
		harness_wait_at_least(&self.parks, i);
		usleep(2000);
		assert_int_equal(load_relaxed(&self.parks), i);
		reactor_get_stats(harness_reactor(), &stats);
		assert_int_equal(stats.active_poller_count, 0);
		assert_int_equal(stats.poller_count, 1);
		harness_call(wake_poller, &self);
	}
	harness_wait_at_least(&self.parks, 6);
	harness_call(stop_poller, &self);
	assert_int_equal(poller_count(), 0);
}

static void test_poll_always_never_parks(void **state)
{
	struct test_poller self = {.poller.park = test_park};

	harness_stop();
	harness_start(REACTOR_POLL_ALWAYS);
	harness_call(start_poller, &self);
	usleep(20000);
	harness_call(stop_poller, &self);
	assert_int_equal(self.parks, 0);
	assert_true(self.polls > 10);
	harness_stop();
	harness_start(REACTOR_POLL_ADAPTIVE);
}

static bool park_by_stopping(struct poller *poller)
{
	struct test_poller *self = container_of(poller, struct test_poller, poller);

	counter_add(&self->parks, 1);
	poller_stop(poller);
	return true;
}

static void test_poller_stops_while_parking(void **state)
{
	struct test_poller self = {.poller.park = park_by_stopping};

	harness_call(start_poller, &self);
	harness_wait_at_least(&self.parks, 1);
	assert_int_equal(poller_count(), 0);
}

/* ---- deferred work ----------------------------------------------------------------------- */

struct test_deferred {
	struct reactor_deferred deferred;
	unsigned int runs;
	unsigned int again_count;
	struct test_deferred *other;
	uint64_t ran_at;
	unsigned int max_in_iteration;
	unsigned int in_iteration;
};

static void deferred_run(struct reactor_deferred *deferred)
{
	struct test_deferred *self = container_of(deferred, struct test_deferred, deferred);
	uint64_t now = reactor_now_ticks(harness_reactor());

	self->in_iteration = now == self->ran_at ? self->in_iteration + 1 : 1;
	self->max_in_iteration = MAX(self->max_in_iteration, self->in_iteration);
	self->ran_at = now;
	counter_add(&self->runs, 1);
	if (self->in_iteration > 100)
		return;
	if (self->other != NULL)
		reactor_defer(harness_reactor(), &self->other->deferred);
	if (self->again_count > 0) {
		self->again_count--;
		reactor_defer(harness_reactor(), deferred);
	}
}

static void defer_thrice(void *arg)
{
	struct test_deferred *self = arg;

	self->deferred.fn = deferred_run;
	for (int i = 0; i < 3; i++)
		reactor_defer(harness_reactor(), &self->deferred);
}

static void test_deferred_once(void **state)
{
	struct test_deferred self = {.runs = 0};

	for (unsigned int i = 1; i <= 10; i++) {
		harness_call(defer_thrice, &self);
		harness_call(nothing, NULL);
		assert_int_equal(load_relaxed(&self.runs), i);
	}
}

/* What another adds runs in the same iteration: a submission completes, the completion wants to
 * be published. */
static void test_deferred_chain(void **state)
{
	struct test_deferred second = {.deferred.fn = deferred_run};
	struct test_deferred first = {.other = &second};

	harness_call(defer_thrice, &first);
	harness_call(nothing, NULL);
	assert_int_equal(load_relaxed(&second.runs), 1);
	assert_int_equal(first.ran_at, second.ran_at);
}

static void part(void *arg)
{
	struct test_deferred *pair = arg;

	for (int i = 0; i < 2; i++) {
		pair[i].other = NULL;
		pair[i].again_count = 0;
	}
}

/* A back-end whose submission was refused asks for another try, which makes sense only after the
 * pollers ran: an iteration must end even if the work is never done. */
static void test_deferred_adds_itself(void **state)
{
	struct test_deferred self = {.again_count = 5000};

	harness_call(defer_thrice, &self);
	harness_wait_at_least(&self.runs, 5001);
	harness_call(nothing, NULL);
	assert_int_equal(load_relaxed(&self.runs), 5001);
	assert_int_equal(self.max_in_iteration, 1);

	struct test_deferred pair[2] = {{.other = &pair[1], .again_count = 3000},
					{.other = &pair[0], .again_count = 3000}};
	pair[1].deferred.fn = deferred_run;
	harness_call(defer_thrice, &pair[0]);
	harness_wait_at_least(&pair[0].runs, 3000);
	harness_wait_at_least(&pair[1].runs, 3000);
	harness_call(part, pair);
	harness_call(nothing, NULL);
	assert_int_equal(pair[0].max_in_iteration, 1);
	assert_int_equal(pair[1].max_in_iteration, 1);
}

/* ---- life and statistics ------------------------------------------------------------------ */

static void test_stop_while_asleep(void **state)
{
	struct reactor_options options = {.name = "stopped", .cpu = -1};

	for (unsigned int i = 0; i < 150; i++) {
		struct reactor *reactor;
		options.mode = (enum reactor_poll_mode)(i % 3);
		assert_int_equal(reactor_create(&options, &reactor), 0);
		assert_int_equal(reactor_start(reactor), 0);
		if (i % 2 == 0)
			usleep(i * 10);
		reactor_stop(reactor);
		reactor_join(reactor);
		reactor_destroy(reactor);
	}
	struct reactor *never_started;
	assert_int_equal(reactor_create(&options, &never_started), 0);
	reactor_join(never_started);
	reactor_destroy(never_started);
}

static void check_current(void *arg)
{
	struct reactor **out = arg;

	*out = reactor_current();
}

static void test_current_and_names(void **state)
{
	struct reactor *current = NULL;
	enum reactor_poll_mode mode;

	harness_call(check_current, &current);
	assert_ptr_equal(current, harness_reactor());
	assert_null(reactor_current());
	assert_string_equal(reactor_name(harness_reactor()), "test");
	assert_int_equal(reactor_cpu(harness_reactor()), -1);
	for (int i = 0; i < 3; i++) {
		const char *name = reactor_poll_mode_name((enum reactor_poll_mode)i);
		assert_int_equal(reactor_poll_mode_parse(name, &mode), 0);
		assert_int_equal(mode, i);
	}
	assert_true(reactor_poll_mode_parse("sometimes", &mode) < 0);
}

/* The sum of busy and idle over a span must be the span: asleep, polling, and mixed; also when
 * asked while the reactor sleeps. */
static bool span_adds_up(const char *what, unsigned int span_us)
{
	struct reactor_stats from, to;
	uint64_t start = ticks_now();

	reactor_get_stats(harness_reactor(), &from);
	usleep(span_us);
	uint64_t end = ticks_now();
	reactor_get_stats(harness_reactor(), &to);
	uint64_t sum = to.busy_ticks - from.busy_ticks + to.idle_ticks - from.idle_ticks;
	uint64_t span = end - start;
	uint64_t tolerance = span / 20;
	printf("# %s: busy and idle make %.1f %% of the time, asleep %.1f %%\n", what,
	       100.0 * (double)sum / (double)span,
	       100.0 * (double)(to.sleep_ticks - from.sleep_ticks) / (double)span);
	assert_true(to.sleep_ticks <= to.idle_ticks);
	assert_true(to.sleep_ticks >= from.sleep_ticks && to.idle_ticks >= from.idle_ticks);
	return sum + tolerance >= span && sum <= span + tolerance;
}

/* An iteration counts when it ends, and on a machine with more to do the scheduler may stop the
 * reactor in the middle of one for a while: one span of a few must add up. */
static void check_span(const char *what, unsigned int span_us)
{
	for (int i = 0; i < 10; i++) {
		if (span_adds_up(what, span_us))
			return;
	}
	fail();
}

static unsigned int busy_poll(struct poller *poller)
{
	return 1;
}

static void start_busy(void *arg)
{
	poller_start(harness_reactor(), arg);
}

static void stop_busy(void *arg)
{
	poller_stop(arg);
}

static struct reactor_timer ticking;

static void tick(struct reactor_timer *timer)
{
	reactor_timer_start(harness_reactor(), timer, 3 * MS);
}

static void start_ticking(void *arg)
{
	ticking.fn = tick;
	tick(&ticking);
}

static void stop_ticking(void *arg)
{
	reactor_timer_stop(&ticking);
}

static void test_stats_sum(void **state)
{
	struct poller busy = {.poll = busy_poll};
	struct reactor_stats before, after;

	usleep(1000);
	check_span("asleep throughout", 200000);
	harness_call(start_ticking, NULL);
	check_span("waking every 3 ms", 200000);
	harness_call(stop_ticking, NULL);
	harness_call(start_busy, &busy);
	reactor_get_stats(harness_reactor(), &before);
	check_span("busy", 200000);
	reactor_get_stats(harness_reactor(), &after);
	assert_int_equal(after.sleep_ticks, before.sleep_ticks);
	assert_true(after.busy_ticks > before.busy_ticks);
	harness_call(stop_busy, &busy);
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
		cmocka_unit_test(test_poller_stops_itself),
		cmocka_unit_test(test_poller_stops_other),
		cmocka_unit_test(test_poller_starts_other),
		cmocka_unit_test(test_pollers_restart_themselves),
		cmocka_unit_test(test_poller_frees_itself),
		cmocka_unit_test(test_pollers_wake_each_other),
		cmocka_unit_test(test_poller_parks_and_wakes),
		cmocka_unit_test(test_poll_always_never_parks),
		cmocka_unit_test(test_poller_stops_while_parking),
		cmocka_unit_test(test_deferred_once),
		cmocka_unit_test(test_deferred_chain),
		cmocka_unit_test(test_deferred_adds_itself),
		cmocka_unit_test(test_stop_while_asleep),
		cmocka_unit_test(test_current_and_names),
		cmocka_unit_test(test_stats_sum),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
