/* SPDX-License-Identifier: Apache-2.0 */
/* Phases of a load run and the watch over them: see bench_run.h. Main thread. */
#include "cli/bench_run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/bench_thread.h"

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

struct run {
	struct bench_setup *setup;
	struct bench_outcome *outcome;
	struct bench_stats *total;
	struct bench_control control;
	struct bench_thread *threads;
	unsigned int thread_count;
	unsigned int running;
	bool stalled;
};

/* For the signal handler, which can be given nothing. */
static int interrupt_fd = -1;

static void on_signal(int signo)
{
	(void)signo;
	fd_eventfd_signal(interrupt_fd);
}

/* The first signal ends the run in an orderly way, the second as signals do. */
static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static void release_signals(void)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
}

static void set_stage(struct run *run, enum bench_stage stage)
{
	if (run->control.stage >= stage)
		return;
	store_relaxed(&run->control.stage, stage);
	for (unsigned int i = 0; i < run->thread_count; i++)
		fd_eventfd_signal(run->threads[i].wake_fd);
}

static uint64_t total_progress(const struct run *run)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < run->thread_count; i++)
		sum += load_relaxed(&run->threads[i].stats.progress);
	return sum;
}

/* A target says nothing unasked, as no back-end channel was negotiated: the socket becomes
 * readable when it hangs up, or breaks the protocol. */
static void check_connection(struct run *run)
{
	char byte;
	ssize_t n = recv(run->setup->client.vhost.sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	fprintf(stderr, "sluice bench: %s\n",
		n > 0 ? "the target sent a message that nobody asked for; giving it up"
		      : "the target closed the connection during the run");
	run->outcome->connected = false;
	run->outcome->code = BENCH_EXIT_CONNECTION;
	set_stage(run, BENCH_STAGE_ABORT);
}

struct watch {
	uint64_t measure_at_ns; /* when the warm-up ends */
	uint64_t drain_at_ns;   /* when the measured time ends; UINT64_MAX: never */
	uint64_t progress;
	uint64_t progress_at_ns;
};

static void check_stall(struct run *run, struct watch *watch, uint64_t now)
{
	uint64_t progress = total_progress(run);

	/* While time is being measured an outage is part of the result, however long. */
	bool on_clock = run->control.stage < BENCH_STAGE_DRAIN && watch->drain_at_ns != UINT64_MAX;
	if (progress != watch->progress || on_clock) {
		watch->progress = progress;
		watch->progress_at_ns = now;
		return;
	}
	if (run->control.stage == BENCH_STAGE_ABORT ||
	    now - watch->progress_at_ns < BENCH_STALL_S * NS_PER_S)
		return;
	fprintf(stderr, "sluice bench: the target has completed nothing for %d s; giving it up\n",
		BENCH_STALL_S);
	run->stalled = true;
	set_stage(run, BENCH_STAGE_ABORT);
}

static void check_clock(struct run *run, struct watch *watch, uint64_t now)
{
	if (now >= watch->drain_at_ns)
		set_stage(run, BENCH_STAGE_DRAIN);
	else if (now >= watch->measure_at_ns)
		set_stage(run, BENCH_STAGE_MEASURE);
}

static int timeout_ms(const struct run *run, const struct watch *watch, uint64_t now)
{
	uint64_t next = run->control.stage == BENCH_STAGE_WARMUP    ? watch->measure_at_ns
			: run->control.stage == BENCH_STAGE_MEASURE ? watch->drain_at_ns
								    : UINT64_MAX;

	if (next <= now)
		return 0;
	return (int)MIN((next - now + NS_PER_MS - 1) / NS_PER_MS, 1000u);
}

static void drain_eventfd(int fd, uint64_t *out)
{
	if (read(fd, out, sizeof(*out)) < 0)
		*out = 0;
}

static void watch_once(struct run *run, struct watch *watch)
{
	struct pollfd fds[] = {
		{.fd = run->control.done_fd, .events = POLLIN},
		{.fd = interrupt_fd, .events = POLLIN},
		/* Ignored once it is lost. */
		{.fd = run->outcome->connected ? run->setup->client.vhost.sock : -1,
		 .events = POLLIN | POLLRDHUP},
	};
	uint64_t count;

	int ready = poll(fds, ARRAY_COUNT(fds), timeout_ms(run, watch, clock_ns()));
	uint64_t now = clock_ns();
	if (ready > 0 && fds[0].revents != 0) {
		drain_eventfd(run->control.done_fd, &count);
		run->running -= (unsigned int)count;
	}
	if (ready > 0 && fds[1].revents != 0) {
		drain_eventfd(interrupt_fd, &count);
		run->outcome->interrupted = true;
		set_stage(run, BENCH_STAGE_DRAIN);
	}
	if (ready > 0 && fds[2].revents != 0)
		check_connection(run);
	check_clock(run, watch, now);
	check_stall(run, watch, now);
}

static void start_threads(struct run *run)
{
	for (unsigned int i = 0; i < run->thread_count; i++) {
		int rc = bench_thread_start(&run->threads[i]);
		if (rc == 0) {
			run->running++;
			continue;
		}
		fprintf(stderr, "sluice bench: cannot run a thread on CPU %d: %s\n",
			run->threads[i].cpu,
			rc == -EINVAL ? "there is no such CPU for us" : strerror(-rc));
		run->outcome->code = BENCH_EXIT_USAGE;
		run->thread_count = i; /* those started end at once */
		set_stage(run, BENCH_STAGE_ABORT);
	}
}

/* False when the run is to end here. */
static bool conclude_phase(struct run *run, bool errors_only)
{
	bool go_on = run->outcome->code == BENCH_EXIT_OK && !run->outcome->interrupted;

	for (unsigned int i = 0; i < run->thread_count; i++) {
		bench_thread_join(&run->threads[i]);
		bench_stats_add(run->total, &run->threads[i].stats, errors_only);
	}
	for (uint32_t i = 0; i < run->setup->queue_count; i++) {
		const char *broken = run->setup->queues[i].broken;
		if (broken == NULL)
			continue;
		fprintf(stderr, "sluice bench: queue %u: %s\n", i, broken);
		run->stalled = true;
	}
	return go_on && !run->stalled && run->total->lost == 0;
}

/* duration_ns 0: until the queues have done what they were told. */
static bool run_phase(struct run *run, uint64_t warmup_ns, uint64_t duration_ns, bool errors_only)
{
	uint64_t now = clock_ns();
	struct watch watch = {
		.measure_at_ns = now + warmup_ns,
		.drain_at_ns = duration_ns == 0 ? UINT64_MAX : now + warmup_ns + duration_ns,
		.progress_at_ns = now,
	};

	run->control.stage = warmup_ns == 0 ? BENCH_STAGE_MEASURE : BENCH_STAGE_WARMUP;
	start_threads(run);
	while (run->running > 0)
		watch_once(run, &watch);
	return conclude_phase(run, errors_only);
}

static void prepare_phase(struct bench_setup *setup, enum bench_phase phase)
{
	const struct bench_options *options = setup->options;

	for (uint32_t i = 0; i < setup->queue_count; i++) {
		struct bench_queue *queue = &setup->queues[i];
		/* Read back what another queue has written: an acknowledged write must be visible
		 * on all of them. */
		uint32_t part = phase == BENCH_PHASE_READBACK ? (i + 1) % setup->queue_count : i;
		queue->phase = phase;
		queue->cursor = 0;
		bench_setup_part(setup, part, &queue->first_unit, &queue->unit_count);
		queue->remaining = queue->unit_count;
		if (phase != BENCH_PHASE_WORKLOAD)
			continue;
		if (setup->units == NULL && options->workload->random) {
			queue->first_unit = 0;
			queue->unit_count = setup->unit_count;
		}
		queue->remaining = UINT64_MAX;
		if (options->io_limit != 0)
			queue->remaining = options->io_limit / setup->queue_count +
					   (i < options->io_limit % setup->queue_count);
	}
}

static void run_phases(struct run *run)
{
	const struct bench_options *options = run->setup->options;

	if (options->verify && options->workload->reads) {
		prepare_phase(run->setup, BENCH_PHASE_FILL);
		if (!run_phase(run, 0, 0, true))
			return;
	}
	prepare_phase(run->setup, BENCH_PHASE_WORKLOAD);
	if (!run_phase(run, options->warmup_ns, options->runtime_ns, false) || !options->verify)
		return;
	prepare_phase(run->setup, BENCH_PHASE_READBACK);
	run_phase(run, 0, 0, true);
}

/* The CPUs of --cpu in order, one thread each, but no more threads than queues. */
static unsigned int list_cpus(const struct bench_options *options, int *cpus)
{
	unsigned int count = 0;

	if (!options->cpus_given) {
		cpus[0] = -1;
		return 1;
	}
	for (unsigned int cpu = 0; cpu < BENCH_CPU_WORDS * 64; cpu++) {
		if (((options->cpus[cpu / 64] >> (cpu % 64)) & 1) && count < options->queue_count)
			cpus[count++] = (int)cpu;
	}
	return count;
}

static int create_threads(struct run *run)
{
	int cpus[BENCH_CPU_WORDS * 64];
	unsigned int count = list_cpus(run->setup->options, cpus);

	run->threads = aligned_alloc(CACHE_LINE_BYTES, count * sizeof(*run->threads));
	if (run->threads == NULL)
		return -ENOMEM;
	memset(run->threads, 0, count * sizeof(*run->threads));
	for (unsigned int i = 0; i < count; i++) {
		struct bench_thread *thread = &run->threads[i];
		thread->control = &run->control;
		thread->queues = run->setup->queues;
		thread->queue_count = run->setup->queue_count;
		thread->queue_first = i;
		thread->queue_step = count;
		thread->cpu = cpus[i];
		thread->sleep = run->setup->options->sleep;
		thread->think = run->setup->options->think_ns != 0;
		thread->verify = run->setup->options->verify;
		run->thread_count++;
		int rc = bench_thread_init(thread);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int open_fds(struct run *run)
{
	run->control.done_fd = fd_eventfd_create();
	if (run->control.done_fd < 0)
		return run->control.done_fd;
	interrupt_fd = fd_eventfd_create();
	return interrupt_fd < 0 ? interrupt_fd : 0;
}

void bench_run(struct bench_setup *setup, struct bench_stats *total, struct bench_outcome *outcome)
{
	struct run run = {
		.setup = setup,
		.outcome = outcome,
		.total = total,
		.control = {.done_fd = -1},
	};

	*outcome = (struct bench_outcome){.code = BENCH_EXIT_OK, .connected = true};
	bench_stats_init(total);
	int rc = open_fds(&run);
	if (rc == 0)
		rc = create_threads(&run);
	unsigned int created = run.thread_count;
	outcome->thread_count = created;
	if (rc == 0) {
		catch_signals();
		run_phases(&run);
		release_signals();
	} else {
		fprintf(stderr, "sluice bench: cannot start: %s\n", strerror(-rc));
		outcome->code = BENCH_EXIT_USAGE;
	}
	if (outcome->code == BENCH_EXIT_OK &&
	    (run.stalled || total->errors != 0 || total->verify_errors != 0))
		outcome->code = BENCH_EXIT_IO;
	for (unsigned int i = 0; i < created; i++)
		bench_thread_fini(&run.threads[i]);
	free(run.threads);
	fd_close(&run.control.done_fd);
	fd_close(&interrupt_fd);
}
