/* SPDX-License-Identifier: Apache-2.0 */
/* What crosses threads: messages, waking from sleep, parking against a producer, worker jobs. Each
 * test would hang or lose something if a wake-up could be missed; the sanitizer builds look at the
 * ordering. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/fd.h"
#include "harness.h"
#include "reactor/worker.h"

static const enum reactor_poll_mode modes[] = {
	REACTOR_POLL_ADAPTIVE,
	REACTOR_POLL_ALWAYS,
	REACTOR_POLL_NEVER,
};

/* ---- messages ----------------------------------------------------------------------------- */

#define SENDER_COUNT 4
#define SEND_COUNT 5000u

struct numbered {
	struct reactor_msg msg;
	unsigned int sender;
	unsigned int number;
};

struct sender {
	pthread_t thread;
	unsigned int index;
	struct numbered *messages;
	unsigned int received; /* the reactor's */
};
static struct sender senders[SENDER_COUNT];

static void receive(struct reactor_msg *msg)
{
	struct numbered *numbered = container_of(msg, struct numbered, msg);
	struct sender *sender = &senders[numbered->sender];

	ensure(reactor_current() == harness_reactor());
	ensure(numbered->number == sender->received);
	store_release(&sender->received, sender->received + 1);
}

static void *send_all(void *arg)
{
	struct sender *sender = arg;
	unsigned int seed = sender->index;

	for (unsigned int i = 0; i < SEND_COUNT; i++) {
		struct numbered *numbered = &sender->messages[i];
		numbered->msg.fn = receive;
		numbered->sender = sender->index;
		numbered->number = i;
		reactor_send(harness_reactor(), &numbered->msg);
		/* Now and then the reactor gets the time to fall asleep. */
		if (rand_r(&seed) % 64 == 0)
			usleep((useconds_t)rand_r(&seed) % 200);
	}
	return NULL;
}

static void test_messages_in_order(void **state)
{
	for (size_t m = 0; m < ARRAY_COUNT(modes); m++) {
		struct reactor_stats stats;

		harness_start(modes[m]);
		for (unsigned int i = 0; i < SENDER_COUNT; i++) {
			senders[i].index = i;
			senders[i].received = 0;
			senders[i].messages = calloc(SEND_COUNT, sizeof(struct numbered));
			assert_int_equal(
				pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
		}
		for (unsigned int i = 0; i < SENDER_COUNT; i++) {
			pthread_join(senders[i].thread, NULL);
			harness_wait_at_least(&senders[i].received, SEND_COUNT);
			free(senders[i].messages);
		}
		usleep(1000);
		reactor_get_stats(harness_reactor(), &stats);
		printf("# %s: %lu messages, %lu sleeps\n", reactor_poll_mode_name(modes[m]),
		       stats.message_count, stats.sleep_count);
		assert_true(stats.message_count >= SENDER_COUNT * SEND_COUNT - 1);
		harness_stop();
	}
}

#define CHAIN_COUNT 1000u

struct chain {
	struct reactor_msg msg;
	unsigned int count;
};

/* A message that sends itself again, from its own callback. */
static void chain_run(struct reactor_msg *msg)
{
	struct chain *chain = container_of(msg, struct chain, msg);

	if (chain->count + 1 < CHAIN_COUNT)
		reactor_send(harness_reactor(), msg);
	store_release(&chain->count, chain->count + 1);
}

static void test_message_sends_itself(void **state)
{
	struct chain chain = {.msg.fn = chain_run};

	harness_start(REACTOR_POLL_ADAPTIVE);
	reactor_send(harness_reactor(), &chain.msg);
	harness_wait_at_least(&chain.count, CHAIN_COUNT);
	harness_stop();
}

/* ---- two reactors, each asleep while the other has the ball -------------------------------- */

#define BOUNCE_COUNT 3000u

struct ball {
	struct reactor_msg msg;
	struct reactor *reactors[2];
	unsigned int bounces;
};

static void bounce(struct reactor_msg *msg)
{
	struct ball *ball = container_of(msg, struct ball, msg);
	unsigned int bounces = ball->bounces + 1;

	if (bounces < BOUNCE_COUNT) {
		ball->bounces = bounces;
		reactor_send(ball->reactors[bounces % 2], msg);
		return;
	}
	store_release(&ball->bounces, bounces);
}

static void test_ping_pong(void **state)
{
	for (size_t m = 0; m < ARRAY_COUNT(modes); m++) {
		struct reactor_options options = {.name = "pong", .cpu = -1, .mode = modes[m]};
		struct ball ball = {.msg.fn = bounce};

		for (int i = 0; i < 2; i++) {
			assert_int_equal(reactor_create(&options, &ball.reactors[i]), 0);
			assert_int_equal(reactor_start(ball.reactors[i]), 0);
		}
		reactor_send(ball.reactors[0], &ball.msg);
		/* Its owner changes with every message: only the end is read from here. */
		uint64_t end_ns = clock_ns() + 30000000000ull;
		struct reactor_stats stats;
		do {
			usleep(1000);
			uint64_t sum = 0;
			for (int i = 0; i < 2; i++) {
				reactor_get_stats(ball.reactors[i], &stats);
				sum += stats.message_count;
			}
			if (sum >= BOUNCE_COUNT)
				break;
			assert_true(clock_ns() < end_ns);
		} while (true);
		for (int i = 0; i < 2; i++) {
			reactor_stop(ball.reactors[i]);
			reactor_join(ball.reactors[i]);
			reactor_destroy(ball.reactors[i]);
		}
		assert_int_equal(ball.bounces, BOUNCE_COUNT);
	}
}

/* ---- parking ------------------------------------------------------------------------------ */

#define ITEM_COUNT 4000u

/* A queue of bare counts in the manner of a ring: the consumer asks for a notification before it
 * parks and looks once more; the producer notifies if asked. */
struct parking {
	struct poller poller;
	struct reactor_fd watch;
	unsigned int produced;
	unsigned int consumed;
	bool wants_notice;
	unsigned int notices; /* producer's */
	unsigned int parks;
};

static unsigned int parking_poll(struct poller *poller)
{
	struct parking *parking = container_of(poller, struct parking, poller);
	unsigned int count = load_acquire(&parking->produced) - parking->consumed;

	store_release(&parking->consumed, parking->consumed + count);
	return count;
}

static bool parking_park(struct poller *poller)
{
	struct parking *parking = container_of(poller, struct parking, poller);

	__atomic_store_n(&parking->wants_notice, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&parking->produced, __ATOMIC_SEQ_CST) == parking->consumed) {
		parking->parks++;
		return true;
	}
	store_relaxed(&parking->wants_notice, false);
	return false;
}

static void parking_noticed(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct parking *parking = container_of(watch, struct parking, watch);

	store_relaxed(&parking->wants_notice, false);
	poller_wake(&parking->poller);
}

static void parking_start(void *arg)
{
	struct parking *parking = arg;

	ensure(reactor_fd_add(harness_reactor(), &parking->watch, EPOLLIN | EPOLLET) == 0);
	poller_start(harness_reactor(), &parking->poller);
}

static void parking_stop(void *arg)
{
	struct parking *parking = arg;

	poller_stop(&parking->poller);
	reactor_fd_remove(&parking->watch);
}

static void parking_run(enum reactor_poll_mode mode, uint64_t quiet_us)
{
	struct parking parking = {
		.poller = {.poll = parking_poll, .park = parking_park},
		.watch = {.fd = fd_eventfd_create(), .fn = parking_noticed},
	};
	unsigned int seed = 1;

	harness_start(mode);
	harness_call(parking_start, &parking);
	for (unsigned int i = 1; i <= ITEM_COUNT; i++) {
		__atomic_store_n(&parking.produced, i, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&parking.wants_notice, __ATOMIC_SEQ_CST)) {
			parking.notices++;
			fd_eventfd_signal(parking.watch.fd);
		}
		/* One at a time for the most part: a lost notice would be the last one. */
		if (i % 4 != 0)
			for (unsigned int k = 0; load_acquire(&parking.consumed) < i; k++) {
				if (k > 200)
					harness_wait_at_least(&parking.consumed, i);
				sched_yield();
			}
		if (quiet_us > 0 && rand_r(&seed) % 64 == 0)
			usleep((useconds_t)(quiet_us - 20 + (unsigned int)rand_r(&seed) % 40));
	}
	harness_wait_at_least(&parking.consumed, ITEM_COUNT);
	harness_call(parking_stop, &parking);
	printf("# %s: %u items, %u parks, %u notices\n", reactor_poll_mode_name(mode), ITEM_COUNT,
	       parking.parks, parking.notices);
	if (mode == REACTOR_POLL_ALWAYS)
		assert_int_equal(parking.parks, 0);
	else
		assert_true(parking.parks > 0);
	harness_stop();
	fd_close(&parking.watch.fd);
}

static void test_parking(void **state)
{
	parking_run(REACTOR_POLL_NEVER, 0);
	/* Around the quiet spell, where parking and production meet. */
	parking_run(REACTOR_POLL_ADAPTIVE, 100);
	parking_run(REACTOR_POLL_ALWAYS, 0);
}

/* ---- workers ------------------------------------------------------------------------------ */

#define JOB_COUNT 2000u

struct test_job {
	struct worker_job job;
	struct reactor *origin;
	bool ran;
	unsigned int *done_count;
};

static void job_run(struct worker_job *job)
{
	struct test_job *self = container_of(job, struct test_job, job);

	ensure(reactor_current() == NULL);
	ensure(!self->ran);
	self->ran = true;
}

static void job_done(struct worker_job *job)
{
	struct test_job *self = container_of(job, struct test_job, job);
	unsigned int *done_count = self->done_count;

	ensure(reactor_current() == self->origin);
	ensure(self->ran);
	free(self);
	store_release(done_count, *done_count + 1);
}

static void submit_jobs(void *arg)
{
	for (unsigned int i = 0; i < JOB_COUNT; i++) {
		struct test_job *self = calloc(1, sizeof(*self));
		self->job.run = job_run;
		self->job.done = job_done;
		self->origin = reactor_current();
		self->done_count = arg;
		worker_submit(&self->job);
	}
}

struct submit_call {
	struct reactor_msg msg;
	unsigned int *done_count;
};

static void submit_from_message(struct reactor_msg *msg)
{
	submit_jobs(container_of(msg, struct submit_call, msg)->done_count);
}

static void test_worker_jobs(void **state)
{
	unsigned int done[2] = {0, 0};
	struct reactor_options options = {.name = "second", .cpu = -1};
	struct reactor *second;
	struct submit_call call = {.msg.fn = submit_from_message, .done_count = &done[1]};

	harness_start(REACTOR_POLL_ADAPTIVE);
	assert_int_equal(reactor_create(&options, &second), 0);
	assert_int_equal(reactor_start(second), 0);
	reactor_send(second, &call.msg);
	harness_call(submit_jobs, &done[0]);
	harness_wait_at_least(&done[0], JOB_COUNT);
	harness_wait_at_least(&done[1], JOB_COUNT);
	reactor_stop(second);
	reactor_join(second);
	harness_stop();
	reactor_destroy(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_in_order),
		cmocka_unit_test(test_message_sends_itself),
		cmocka_unit_test(test_ping_pong),
		cmocka_unit_test(test_parking),
		cmocka_unit_test(test_worker_jobs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
