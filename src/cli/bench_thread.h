/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A generator thread: drives its queues through one phase and ends. It is started anew for each
 * phase, so that phases are separated by a join and threads never wait for each other.
 */
#ifndef SLUICE_CLI_BENCH_THREAD_H
#define SLUICE_CLI_BENCH_THREAD_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/bench_queue.h"
#include "cli/bench_stats.h"

enum bench_stage {
	BENCH_STAGE_WARMUP,
	BENCH_STAGE_MEASURE,
	BENCH_STAGE_DRAIN, /* submit nothing more, wait for what is outstanding */
	BENCH_STAGE_ABORT, /* wait for nothing */
};

/* Written by the main thread, read by all generators in every round: alone on its line. */
struct bench_control {
	enum bench_stage stage CACHE_ALIGNED;
	int done_fd CACHE_ALIGNED; /* eventfd: counts generators that have ended */
};

struct bench_thread {
	struct bench_stats stats;
	struct bench_control *control; /* borrowed */
	struct bench_queue *queues;    /* borrowed: of all threads */
	uint32_t queue_count;          /* of all threads */
	uint32_t queue_first;          /* ours: first, first + step, ... */
	uint32_t queue_step;
	int cpu; /* -1: not pinned */
	bool sleep;
	bool think; /* queues pause between rounds */
	bool verify;
	int wake_fd;            /* owned; eventfd by which the main thread ends a sleep */
	struct pollfd *sources; /* owned; call eventfds and wake_fd, for sleeping */
	pthread_t id;
} CACHE_ALIGNED;

/* 0 or -errno. */
int bench_thread_init(struct bench_thread *thread);
void bench_thread_fini(struct bench_thread *thread);

/* Starts a phase for which the queues are set up; -EINVAL when there is no such CPU. */
int bench_thread_start(struct bench_thread *thread);
void bench_thread_join(struct bench_thread *thread);

#endif
