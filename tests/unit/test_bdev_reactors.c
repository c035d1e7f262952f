/* SPDX-License-Identifier: Apache-2.0 */
/* One disk, a channel on each of several reactors, all busy at once: for TSan, and for the sums of
 * statistics. Some of the I/Os fail, so that the paths that reactors share are taken too. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "bdev/bdev_io.h"
#include "file_disk.h"
#include "reactor/worker.h"

#define REACTOR_COUNT 3
#define DEPTH 8
#define IO_COUNT 2000u
#define SIZE_BYTES (4ull << 20)

/* The traffic of one channel. After start() it belongs to its reactor until done is posted. */
struct traffic {
	struct reactor *reactor;
	struct bdev_channel *channel;
	struct reactor_msg msg;
	struct poller poller;
	struct bdev_io ios[DEPTH];
	struct iovec iovs[DEPTH];
	struct bdev_io *ready[DEPTH];
	unsigned int ready_count;
	unsigned int submitted_count;
	unsigned int ended_count;
	unsigned int error_count;
	sem_t done;
	char buffers[DEPTH][4096] __attribute__((aligned(4096)));
};
static struct traffic traffics[REACTOR_COUNT];

static void io_complete(struct bdev_io *io, enum bdev_status status)
{
	struct traffic *traffic = NULL;

	for (int i = 0; i < REACTOR_COUNT; i++) {
		if (traffics[i].channel == io->channel)
			traffic = &traffics[i];
	}
	ensure(traffic != NULL && reactor_current() == traffic->reactor);
	traffic->error_count += status != BDEV_STATUS_OK;
	traffic->ended_count++;
	traffic->ready[traffic->ready_count++] = io;
}

static void submit(struct traffic *traffic, struct bdev_io *io)
{
	unsigned int n = traffic->submitted_count++;

	io->type = n % 61 == 60   ? BDEV_IO_FLUSH
		   : n % 53 == 52 ? BDEV_IO_DISCARD
		   : n % 3 == 0   ? BDEV_IO_WRITE
				  : BDEV_IO_READ;
	io->offset_bytes = n % 1024 * 4096ull;
	io->len_bytes = io->type == BDEV_IO_FLUSH ? 0 : 4096;
	bdev_submit(traffic->channel, io);
}

static unsigned int traffic_poll(struct poller *poller)
{
	struct traffic *traffic = container_of(poller, struct traffic, poller);
	struct bdev_io *ready[DEPTH];
	unsigned int count = traffic->ready_count;

	if (traffic->ended_count == IO_COUNT) {
		poller_stop(poller);
		bdev_channel_stop(traffic->channel);
		sem_post(&traffic->done);
		return 1;
	}
	memcpy(ready, traffic->ready, count * sizeof(ready[0]));
	traffic->ready_count = 0;
	for (unsigned int i = 0; i < count && traffic->submitted_count < IO_COUNT; i++)
		submit(traffic, ready[i]);
	return count;
}

static void traffic_start(struct reactor_msg *msg)
{
	struct traffic *traffic = container_of(msg, struct traffic, msg);

	ensure(bdev_channel_start(traffic->channel) == 0);
	for (unsigned int i = 0; i < DEPTH; i++) {
		traffic->iovs[i] = (struct iovec){traffic->buffers[i], 4096};
		traffic->ios[i] = (struct bdev_io){
			.iovs = &traffic->iovs[i],
			.iov_count = 1,
			.complete = io_complete,
		};
		traffic->ready[traffic->ready_count++] = &traffic->ios[i];
	}
	poller_start(traffic->reactor, &traffic->poller);
}

/* Runs traffic on all reactors; errors counted into *errors. Destroys the bdev. */
static void run(struct bdev *bdev, uint64_t *errors)
{
	static const enum reactor_poll_mode modes[REACTOR_COUNT] = {
		REACTOR_POLL_ADAPTIVE,
		REACTOR_POLL_NEVER,
		REACTOR_POLL_ALWAYS,
	};
	struct bdev_stats stats;
	struct bdev_open *open;
	uint64_t ops = 0, stat_errors = 0;

	assert_int_equal(bdev_open(bdev->name, "test", true, &open, NULL), 0);
	ensure(worker_init(1) == 0);
	memset(traffics, 0, sizeof(traffics));
	for (int i = 0; i < REACTOR_COUNT; i++) {
		struct reactor_options options = {.name = "t", .cpu = -1, .mode = modes[i]};
		ensure(reactor_create(&options, &traffics[i].reactor) == 0);
		ensure(bdev_channel_alloc(open, traffics[i].reactor, &traffics[i].channel) == 0);
		traffics[i].poller.poll = traffic_poll;
		traffics[i].msg.fn = traffic_start;
		sem_init(&traffics[i].done, 0, 0);
	}
	for (int i = 0; i < REACTOR_COUNT; i++) {
		ensure(reactor_start(traffics[i].reactor) == 0);
		reactor_send(traffics[i].reactor, &traffics[i].msg);
	}
	/* Statistics may be read at any time. */
	for (int i = 0; i < 100; i++)
		bdev_get_stats(bdev, &stats);
	*errors = 0;
	for (int i = 0; i < REACTOR_COUNT; i++) {
		while (sem_wait(&traffics[i].done) != 0)
			;
		bdev_channel_free(traffics[i].channel);
		reactor_stop(traffics[i].reactor);
		reactor_join(traffics[i].reactor);
		*errors += traffics[i].error_count;
	}
	worker_fini();
	for (int i = 0; i < REACTOR_COUNT; i++) {
		reactor_destroy(traffics[i].reactor);
		sem_destroy(&traffics[i].done);
	}
	bdev_get_stats(bdev, &stats);
	for (int i = 0; i < BDEV_IO_TYPE_COUNT; i++) {
		ops += stats.types[i].op_count;
		stat_errors += stats.types[i].error_count;
	}
	assert_int_equal(ops, REACTOR_COUNT * IO_COUNT);
	assert_int_equal(stat_errors, *errors);
	bdev_close(open);
	assert_int_equal(bdev_destroy(bdev), 0);
}

/* Not on a memory disk: the reactors write the same blocks at once, as no guest that means well
 * does, and there it is our memcpy that TSan would rightly complain of. */
static void test_file(void **state)
{
	char path[] = "test_bdev_reactors.XXXXXX";
	uint64_t errors;

	close(mkstemp(path));
	file_disk_make(path, SIZE_BYTES);
	run(file_disk_create(path, 0, false), &errors);
	assert_int_equal(errors, 0);
	unlink(path);
}

static void test_file_shrunk(void **state)
{
	char path[] = "test_bdev_reactors.XXXXXX";
	uint64_t errors;

	close(mkstemp(path));
	file_disk_make(path, SIZE_BYTES);
	struct bdev *bdev = file_disk_create(path, 0, false);
	/* Writes grow it again from here on, reads before them fail. */
	assert_int_equal(truncate(path, 0), 0);
	run(bdev, &errors);
	assert_true(errors > 0);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_shrunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
