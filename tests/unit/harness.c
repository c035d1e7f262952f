/* SPDX-License-Identifier: Apache-2.0 */
/* A reactor for tests; see harness.h. */
#include "harness.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "bdev/bdev_io.h"
#include "reactor/worker.h"

static struct reactor *reactor;
static uint64_t random_state;

struct reactor *harness_reactor(void)
{
	return reactor;
}

void harness_start(enum reactor_poll_mode mode)
{
	struct reactor_options options = {.name = "test", .cpu = -1, .mode = mode};

	ensure(reactor == NULL);
	ensure(worker_init(2) == 0);
	ensure(reactor_create(&options, &reactor) == 0);
	ensure(reactor_start(reactor) == 0);
}

void harness_stop(void)
{
	reactor_stop(reactor);
	reactor_join(reactor);
	/* A worker may still be about to wake the reactor. */
	worker_fini();
	reactor_destroy(reactor);
	reactor = NULL;
}

/* ---- calls ------------------------------------------------------------------------------- */

struct call {
	struct reactor_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void call_run(struct reactor_msg *msg)
{
	struct call *call = container_of(msg, struct call, msg);

	call->fn(call->arg);
	sem_post(&call->done);
}

static void sem_wait_always(sem_t *sem)
{
	while (sem_wait(sem) != 0)
		;
}

void harness_call(void (*fn)(void *arg), void *arg)
{
	struct call call = {.msg.fn = call_run, .fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	reactor_send(reactor, &call.msg);
	sem_wait_always(&call.done);
	sem_destroy(&call.done);
}

void harness_wait_at_least(const unsigned int *value, unsigned int target)
{
	uint64_t end_ns = clock_ns() + 20000000000ull;

	while (load_acquire(value) < target && clock_ns() < end_ns)
		usleep(200);
	ensure(load_acquire(value) >= target);
}

/* ---- disks ------------------------------------------------------------------------------- */

static void channel_start(void *arg)
{
	ensure(bdev_channel_start(arg) == 0);
}

static void channel_stop(void *arg)
{
	bdev_channel_stop(arg);
}

void harness_disk_open(struct harness_disk *disk, struct bdev *bdev, bool writable)
{
	disk->bdev = bdev;
	ensure(bdev_open(bdev->name, "test", writable, &disk->open, NULL) == 0);
	ensure(bdev_channel_alloc(disk->open, reactor, &disk->channel) == 0);
	harness_call(channel_start, disk->channel);
}

void harness_disk_close(struct harness_disk *disk)
{
	harness_call(channel_stop, disk->channel);
	bdev_channel_free(disk->channel);
	bdev_close(disk->open);
}

void harness_disk_destroy(struct harness_disk *disk)
{
	harness_disk_close(disk);
	ensure(bdev_destroy(disk->bdev) == 0);
}

/* ---- I/O --------------------------------------------------------------------------------- */

struct batch {
	struct bdev_channel *channel;
	struct bdev_io *ios;
	size_t count;
	enum bdev_status *statuses;
	size_t left_count;
	sem_t done;
};

/* One batch at a time; touched on the reactor only. */
static struct batch *current;

static void batch_complete(struct bdev_io *io, enum bdev_status status)
{
	struct batch *batch = current;
	size_t index = (size_t)(io - batch->ios);

	ensure(index < batch->count && batch->statuses[index] == BDEV_STATUS_COUNT);
	batch->statuses[index] = status;
	if (--batch->left_count == 0)
		sem_post(&batch->done);
}

static void batch_submit(void *arg)
{
	struct batch *batch = arg;

	current = batch;
	batch->left_count = batch->count;
	for (size_t i = 0; i < batch->count; i++)
		bdev_submit(batch->channel, &batch->ios[i]);
}

void harness_submit(struct harness_disk *disk, struct bdev_io *ios, size_t count,
		    enum bdev_status *statuses)
{
	struct batch batch = {
		.channel = disk->channel,
		.ios = ios,
		.count = count,
		.statuses = statuses,
	};

	sem_init(&batch.done, 0, 0);
	for (size_t i = 0; i < count; i++) {
		ios[i].complete = batch_complete;
		statuses[i] = BDEV_STATUS_COUNT;
	}
	harness_call(batch_submit, &batch);
	sem_wait_always(&batch.done);
	sem_destroy(&batch.done);
}

enum bdev_status harness_io(struct harness_disk *disk, enum bdev_io_type type, uint32_t flags,
			    uint64_t offset_bytes, void *buf, uint64_t len_bytes)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len_bytes};
	struct bdev_io io = {
		.type = type,
		.flags = flags,
		.iovs = &iov,
		.iov_count = buf != NULL ? 1 : 0,
		.offset_bytes = offset_bytes,
		.len_bytes = len_bytes,
	};
	enum bdev_status status;

	harness_submit(disk, &io, 1, &status);
	return status;
}

/* ---- chance ------------------------------------------------------------------------------ */

void harness_seed(void)
{
	const char *text = getenv("SLUICE_TEST_SEED");

	random_state = text != NULL ? strtoull(text, NULL, 0) : clock_ns();
	printf("# SLUICE_TEST_SEED=%llu\n", (unsigned long long)random_state);
	fflush(stdout);
}

/* splitmix64 */
static uint64_t random_next(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t harness_random(uint64_t below)
{
	return random_next() % below;
}

void harness_random_fill(void *buf, size_t len_bytes)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len_bytes; i += sizeof(uint64_t)) {
		uint64_t v = random_next();
		memcpy(p + i, &v, MIN(sizeof(v), len_bytes - i));
	}
}
