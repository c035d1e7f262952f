/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a generator thread: see bench_thread.h. */
#include "cli/bench_thread.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

/* Rounds without a completion: first as fast as can be, then politely to the other hardware thread,
 * and after some 50 us to whoever else wants this CPU, which may be the target. */
#define ROUNDS_EAGER 256u
#define ROUNDS_POLITE 2000u

/* Shorter pauses are spun away: the kernel's timers come some 50 us late. */
#define PAUSE_SPIN_NS 200000u

#define for_each_queue(queue, thread)                                              \
	for (struct bench_queue *queue = (thread)->queues + (thread)->queue_first; \
	     queue < (thread)->queues + (thread)->queue_count; queue += (thread)->queue_step)

static uint32_t poll_queues(struct bench_thread *thread)
{
	uint32_t count = 0;

	if (thread->verify) {
		for_each_queue(queue, thread) count += bench_queue_poll_verify(queue);
	} else {
		for_each_queue(queue, thread) count += bench_queue_poll(queue);
	}
	return count;
}

/* True when nothing can come any more. */
static bool is_finished(const struct bench_thread *thread)
{
	bool outstanding = false;

	for_each_queue(queue, thread)
	{
		if (queue->broken != NULL)
			return true;
		outstanding |= queue->outstanding != 0 || bench_queue_pauses(queue);
	}
	return !outstanding;
}

/* True when no request is outstanding on any queue. */
static bool all_pause(const struct bench_thread *thread)
{
	for_each_queue(queue, thread)
	{
		if (queue->outstanding != 0)
			return false;
	}
	return true;
}

/* Starts the queues whose pause is over and says so, or how long the shortest other pause still
 * takes: UINT64_MAX when no queue pauses. */
static bool resume_queues(struct bench_thread *thread, uint64_t *out_ticks)
{
	uint64_t now = ticks_now();
	bool resumed = false;

	*out_ticks = UINT64_MAX;
	/* A pause is no gap in what the target does. */
	if (all_pause(thread))
		thread->stats.last_completion_ticks = now;
	for_each_queue(queue, thread)
	{
		if (!bench_queue_pauses(queue))
			continue;
		if (queue->resume_ticks <= now) {
			bench_queue_start(queue);
			resumed = true;
		} else {
			*out_ticks = MIN(*out_ticks, queue->resume_ticks - now);
		}
	}
	return resumed;
}

/* A completion after the last look at a ring, which enabling its calls is, signals its eventfd. */
static bool enable_calls(struct bench_thread *thread)
{
	bool nothing = true;

	for_each_queue(queue, thread) nothing &= vring_driver_enable_calls(&queue->ring);
	return nothing;
}

/* Waits for a call, for the main thread, or for as long as said. */
static void wait_for_calls(struct bench_thread *thread, uint64_t ticks)
{
	uint64_t ns = ticks == UINT64_MAX ? 0 : ticks_to_ns(ticks);
	struct timespec limit = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};
	nfds_t count = 0;

	for_each_queue(queue, thread) thread->sources[count++] = (struct pollfd){
		.fd = queue->ring.call_fd,
		.events = POLLIN,
	};
	thread->sources[count++] = (struct pollfd){.fd = thread->wake_fd, .events = POLLIN};
	if (ppoll(thread->sources, count, ticks == UINT64_MAX ? NULL : &limit, NULL) <= 0)
		return;
	for (nfds_t i = 0; i < count; i++) {
		uint64_t value;
		if (thread->sources[i].revents & POLLIN &&
		    read(thread->sources[i].fd, &value, sizeof(value)) < 0)
			continue; /* somebody was faster: fine */
	}
}

static void sleep_for_calls(struct bench_thread *thread, uint64_t ticks)
{
	if (enable_calls(thread))
		wait_for_calls(thread, ticks);
	for_each_queue(queue, thread) vring_driver_disable_calls(&queue->ring);
}

static void wait_for_work(struct bench_thread *thread, uint32_t idle_rounds)
{
	uint64_t pause_ticks = UINT64_MAX;

	if (thread->think && resume_queues(thread, &pause_ticks))
		return;
	if (thread->sleep)
		sleep_for_calls(thread, pause_ticks);
	else if (thread->think && pause_ticks != UINT64_MAX &&
		 ticks_to_ns(pause_ticks) > PAUSE_SPIN_NS && all_pause(thread))
		wait_for_calls(thread, pause_ticks);
	else if (idle_rounds > ROUNDS_POLITE)
		sched_yield();
	else if (idle_rounds > ROUNDS_EAGER)
		cpu_relax();
}

static void enter_stage(struct bench_thread *thread, enum bench_stage stage)
{
	uint64_t now = ticks_now();

	if (stage == BENCH_STAGE_MEASURE)
		bench_stats_begin(&thread->stats, now);
	if (stage != BENCH_STAGE_DRAIN)
		return;
	for_each_queue(queue, thread) queue->remaining = 0;
}

/* What came back during DRAIN is no part of the measured time. */
struct measured {
	uint64_t reads;
	uint64_t writes;
	uint64_t flushes;
	uint64_t end_ticks;
};

static struct measured measure(const struct bench_stats *stats)
{
	return (struct measured){
		.reads = stats->reads,
		.writes = stats->writes,
		.flushes = stats->flushes,
		.end_ticks = ticks_now(),
	};
}

static void account_end(struct bench_thread *thread, const struct measured *measured)
{
	struct bench_stats *stats = &thread->stats;
	uint64_t lost = 0;

	stats->reads = measured->reads;
	stats->writes = measured->writes;
	stats->flushes = measured->flushes;
	stats->end_ticks = measured->end_ticks;
	for_each_queue(queue, thread) lost += queue->outstanding;
	if (lost == 0)
		return;
	stats->lost += lost;
	stats->errors += lost;
	stats->longest_gap_ticks =
		MAX(stats->longest_gap_ticks, ticks_now() - stats->last_completion_ticks);
}

static void run_loop(struct bench_thread *thread)
{
	/* A phase without warm-up starts measuring with its first I/O. Later stages, which may have
	 * come by now, are to be entered below. */
	enum bench_stage seen = MIN(load_relaxed(&thread->control->stage), BENCH_STAGE_MEASURE);
	struct measured measured = {0};
	uint32_t idle_rounds = 0;

	for (;;) {
		uint32_t count = poll_queues(thread);
		enum bench_stage stage = load_relaxed(&thread->control->stage);
		if (unlikely(stage != seen)) {
			if (seen <= BENCH_STAGE_MEASURE && stage > BENCH_STAGE_MEASURE)
				measured = measure(&thread->stats);
			if (stage == BENCH_STAGE_ABORT)
				break;
			enter_stage(thread, stage);
			seen = stage;
		}
		if (count != 0) {
			idle_rounds = 0;
			continue;
		}
		if (is_finished(thread))
			break;
		wait_for_work(thread, ++idle_rounds);
	}
	if (seen <= BENCH_STAGE_MEASURE && measured.end_ticks == 0)
		measured = measure(&thread->stats);
	account_end(thread, &measured);
}

static void *thread_main(void *arg)
{
	struct bench_thread *thread = arg;
	uint64_t now = ticks_now();

	bench_stats_begin(&thread->stats, now);
	thread->stats.last_completion_ticks = now;
	for_each_queue(queue, thread)
	{
		queue->stats = &thread->stats;
		bench_queue_start(queue);
	}
	run_loop(thread);
	fd_eventfd_signal(thread->control->done_fd);
	return NULL;
}

int bench_thread_init(struct bench_thread *thread)
{
	thread->sources = calloc(thread->queue_count + 1, sizeof(*thread->sources));
	if (thread->sources == NULL)
		return -ENOMEM;
	thread->wake_fd = fd_eventfd_create();
	return thread->wake_fd < 0 ? thread->wake_fd : 0;
}

void bench_thread_fini(struct bench_thread *thread)
{
	fd_close(&thread->wake_fd);
	free(thread->sources);
}

int bench_thread_start(struct bench_thread *thread)
{
	pthread_attr_t attr;
	cpu_set_t set;

	bench_stats_init(&thread->stats);
	int rc = pthread_attr_init(&attr);
	if (rc != 0)
		return -rc;
	if (thread->cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET((size_t)thread->cpu, &set);
		rc = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	if (rc == 0)
		rc = pthread_create(&thread->id, &attr, thread_main, thread);
	pthread_attr_destroy(&attr);
	return -rc;
}

void bench_thread_join(struct bench_thread *thread)
{
	pthread_join(thread->id, NULL);
}
