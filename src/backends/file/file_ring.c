/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring of a reactor. Requests are prepared as I/Os come in and submitted by one system call
 * at the end of the iteration; a poller reaps. While the poller is parked the ring's eventfd tells
 * that there are completions. On the reactor's thread only, which is also what the kernel is told
 * (SINGLE_ISSUER).
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backends/file/file_impl.h"
#include "base/assert.h"
#include "base/fd.h"

#define REAP_BATCH 32

enum file_ring_level file_ring_first_level = FILE_RING_DEFER;

static const unsigned int level_flags[FILE_RING_LEVEL_COUNT] = {
	[FILE_RING_DEFER] = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			    IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
	[FILE_RING_COOP] =
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
	[FILE_RING_PLAIN] = 0,
};

static _Thread_local struct file_ring *current_ring;

/* ---- submission -------------------------------------------------------------------------- */

static void ring_destroy(struct file_ring *ring);

static void push_pending(struct file_ring *ring, struct bdev_io *io)
{
	io->next = NULL;
	*ring->pending_last = io;
	ring->pending_last = &io->next;
}

/* The eventfd is silent while the poller runs: a completion then costs no signal. */
static void wake(struct file_ring *ring)
{
	io_uring_cq_eventfd_toggle(&ring->uring, false);
	poller_wake(&ring->poller);
}

/* What the kernel does not take now (EAGAIN, ENOMEM) stays in the queue; the poller tries again. */
static void submit_now(struct file_ring *ring)
{
	int rc = io_uring_submit_and_get_events(&ring->uring);

	if (unlikely(rc < 0 && rc != -EAGAIN && rc != -EBUSY && rc != -EINTR))
		log_limited(&ring->log, LOG_LEVEL_ERROR, "io_uring: cannot submit: %s",
			    strerror(-rc));
}

static void submit_deferred(struct reactor_deferred *deferred)
{
	struct file_ring *ring = container_of(deferred, struct file_ring, submit);

	/* The last channel went away while this was queued. */
	if (unlikely(ring->channel_count == 0)) {
		ring_destroy(ring);
		return;
	}
	if (io_uring_sq_ready(&ring->uring) > 0)
		submit_now(ring);
}

static struct io_uring_sqe *take_sqe(struct file_ring *ring)
{
	if (unlikely(ring->inflight_count >= FILE_RING_INFLIGHT_MAX))
		return NULL;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
	if (unlikely(sqe == NULL)) {
		submit_now(ring);
		sqe = io_uring_get_sqe(&ring->uring);
	}
	return sqe;
}

struct io_uring_sqe *file_ring_sqe(struct file_ring *ring, struct bdev_io *io)
{
	bool may = ring->pending_first == NULL || ring->issuing;
	struct io_uring_sqe *sqe = likely(may) ? take_sqe(ring) : NULL;

	if (unlikely(sqe == NULL)) {
		push_pending(ring, io);
		return NULL;
	}
	ring->inflight_count++;
	reactor_defer(ring->reactor, &ring->submit);
	if (unlikely(!ring->poller.active))
		wake(ring);
	return sqe;
}

/* Lets those in that found the ring full, oldest first, as far as there is room. */
static void issue_pending(struct file_ring *ring)
{
	uint32_t room = FILE_RING_INFLIGHT_MAX - ring->inflight_count;

	if (likely(ring->pending_first == NULL))
		return;
	ring->issuing = true;
	for (; room > 0 && ring->pending_first != NULL; room--) {
		struct bdev_io *io = ring->pending_first;
		ring->pending_first = io->next;
		if (ring->pending_first == NULL)
			ring->pending_last = &ring->pending_first;
		file_io_issue(io);
	}
	ring->issuing = false;
}

/* ---- completion -------------------------------------------------------------------------- */

/* Entries are copied and their places given back before any is acted upon: acting may submit. */
static unsigned int reap(struct file_ring *ring)
{
	struct io_uring_cq *cq = &ring->uring.cq;
	struct {
		struct bdev_io *io;
		int res;
	} batch[REAP_BATCH];
	unsigned int total = 0;

	for (;;) {
		unsigned int head = *cq->khead;
		unsigned int count = MIN(load_acquire(cq->ktail) - head, REAP_BATCH);

		if (count == 0)
			return total;
		for (unsigned int i = 0; i < count; i++) {
			const struct io_uring_cqe *cqe = &cq->cqes[(head + i) & cq->ring_mask];
			batch[i].io = (struct bdev_io *)(uintptr_t)cqe->user_data;
			batch[i].res = cqe->res;
		}
		store_release(cq->khead, head + count);
		ensure(count <= ring->inflight_count);
		ring->inflight_count -= count;
		for (unsigned int i = 0; i < count; i++)
			file_io_done(batch[i].io, batch[i].res);
		total += count;
		/* More may have come, but the other disks of the reactor want their turn. */
		if (total >= FILE_RING_SQ_COUNT)
			return total;
	}
}

/* True when the kernel holds completions that it posts once we enter it. */
static bool kernel_has_some(const struct file_ring *ring)
{
	return (load_relaxed(ring->uring.sq.kflags) &
		(IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* The ring may be gone after reap(): whoever holds the last channel may put it in a completion.
 * An extra reference held over the poll keeps it. */
static unsigned int ring_poll(struct poller *poller)
{
	struct file_ring *ring = container_of(poller, struct file_ring, poller);

	if (ring->inflight_count == 0)
		return 0;
	ring->channel_count++;
	unsigned int count = reap(ring);
	if (count == 0 && kernel_has_some(ring)) {
		io_uring_get_events(&ring->uring);
		count = reap(ring);
	}
	issue_pending(ring);
	if (unlikely(io_uring_sq_ready(&ring->uring) > 0))
		reactor_defer(ring->reactor, &ring->submit);
	file_ring_put(ring);
	return count;
}

/* ---- parking ----------------------------------------------------------------------------- */

static bool ring_park(struct poller *poller)
{
	struct file_ring *ring = container_of(poller, struct file_ring, poller);

	if (ring->inflight_count == 0)
		return true; /* the next submission wakes us */
	if (io_uring_sq_ready(&ring->uring) > 0)
		return false;
	io_uring_cq_eventfd_toggle(&ring->uring, true);
	/* Partner: the kernel posts a completion (or sets TASKRUN) and then reads whether the
	 * eventfd is enabled. Either it sees our store, or we see its. */
	atomic_thread_fence(memory_order_seq_cst);
	if (io_uring_cq_ready(&ring->uring) == 0 && !kernel_has_some(ring))
		return true;
	io_uring_cq_eventfd_toggle(&ring->uring, false);
	return false;
}

/* Edge-triggered: each signal is an event of its own, so the counter is never read. */
static void ring_event(struct reactor_fd *watch, uint32_t epoll_events)
{
	wake(container_of(watch, struct file_ring, event));
}

/* ---- registered files -------------------------------------------------------------------- */

static int files_init(struct file_ring *ring)
{
	uint32_t count = FILE_RING_FILE_COUNT;

	/* The table may not be longer than RLIMIT_NOFILE; without one all works by plain fds. */
	while (count >= 16 && io_uring_register_files_sparse(&ring->uring, count) < 0)
		count /= 2;
	if (count < 16)
		return 0;
	ring->file_free = calloc(count, sizeof(*ring->file_free));
	if (ring->file_free == NULL)
		return -ENOMEM;
	while (ring->file_free_count < count) {
		ring->file_free[ring->file_free_count] =
			(uint16_t)(count - 1 - ring->file_free_count);
		ring->file_free_count++;
	}
	return 0;
}

int file_ring_add_file(struct file_ring *ring, int fd)
{
	if (ring->file_free_count == 0)
		return -1;
	int index = ring->file_free[ring->file_free_count - 1];
	if (io_uring_register_files_update(&ring->uring, (unsigned int)index, &fd, 1) != 1)
		return -1;
	ring->file_free_count--;
	return index;
}

void file_ring_remove_file(struct file_ring *ring, int index)
{
	int none = -1;

	io_uring_register_files_update(&ring->uring, (unsigned int)index, &none, 1);
	ring->file_free[ring->file_free_count++] = (uint16_t)index;
}

/* ---- life -------------------------------------------------------------------------------- */

static int uring_init(struct file_ring *ring)
{
	int rc = -EINVAL;

	for (enum file_ring_level level = file_ring_first_level;
	     level < FILE_RING_LEVEL_COUNT && rc == -EINVAL; level++) {
		struct io_uring_params params = {
			.flags = IORING_SETUP_CQSIZE | level_flags[level],
			.cq_entries = FILE_RING_INFLIGHT_MAX,
		};
		rc = io_uring_queue_init_params(FILE_RING_SQ_COUNT, &ring->uring, &params);
	}
	if (rc < 0)
		log_error("io_uring: cannot make a ring: %s%s", strerror(-rc),
			  rc == -EPERM ? " (see sysctl kernel.io_uring_disabled)" : "");
	return rc;
}

/* The kernel's helper threads inherit the pinning of ours, and would fight with a reactor that
 * polls for its one core: give them the cores of the process' main thread instead. */
static void unpin_helpers(struct file_ring *ring)
{
	cpu_set_t set;

	if (reactor_cpu(ring->reactor) >= 0 && sched_getaffinity(getpid(), sizeof(set), &set) == 0)
		io_uring_register_iowq_aff(&ring->uring, sizeof(set), &set);
}

static int event_init(struct file_ring *ring)
{
	int fd = fd_eventfd_create();

	if (fd < 0)
		return fd;
	ring->event.fd = fd;
	ring->event.fn = ring_event;
	int rc = io_uring_register_eventfd(&ring->uring, fd);
	if (rc == 0)
		rc = reactor_fd_add(ring->reactor, &ring->event, EPOLLIN | EPOLLET);
	io_uring_cq_eventfd_toggle(&ring->uring, false);
	return rc;
}

static int ring_init(struct file_ring *ring)
{
	int rc = uring_init(ring);

	if (rc < 0)
		return rc;
	rc = file_bounce_init(&ring->bounce);
	if (rc < 0)
		goto exit_uring;
	rc = files_init(ring);
	if (rc < 0)
		goto fini_bounce;
	rc = event_init(ring);
	if (rc < 0)
		goto close_event;
	unpin_helpers(ring);
	return 0;

close_event:
	reactor_fd_remove(&ring->event);
	fd_close(&ring->event.fd);
	free(ring->file_free);
fini_bounce:
	file_bounce_fini(&ring->bounce);
exit_uring:
	io_uring_queue_exit(&ring->uring);
	return rc;
}

static int ring_create(struct reactor *reactor, struct file_ring **out)
{
	struct file_ring *ring = calloc(1, sizeof(*ring));

	if (ring == NULL)
		return -ENOMEM;
	ring->reactor = reactor;
	ring->event.fd = -1;
	ring->pending_last = &ring->pending_first;
	ring->submit.fn = submit_deferred;
	ring->poller.poll = ring_poll;
	ring->poller.park = ring_park;
	int rc = ring_init(ring);
	if (rc < 0) {
		free(ring);
		return rc;
	}
	poller_start(reactor, &ring->poller);
	*out = ring;
	return 0;
}

static void ring_destroy(struct file_ring *ring)
{
	ensure(ring->inflight_count == 0 && ring->pending_first == NULL);
	ensure(current_ring == ring);
	current_ring = NULL;
	poller_stop(&ring->poller);
	reactor_fd_remove(&ring->event);
	io_uring_queue_exit(&ring->uring);
	fd_close(&ring->event.fd);
	file_bounce_fini(&ring->bounce);
	free(ring->file_free);
	free(ring);
}

int file_ring_get(struct reactor *reactor, struct file_ring **out)
{
	if (current_ring == NULL) {
		int rc = ring_create(reactor, &current_ring);
		if (rc < 0)
			return rc;
	}
	ensure(current_ring->reactor == reactor);
	current_ring->channel_count++;
	*out = current_ring;
	return 0;
}

void file_ring_put(struct file_ring *ring)
{
	ensure(ring->channel_count > 0);
	if (--ring->channel_count == 0 && !ring->submit.queued)
		ring_destroy(ring);
}
