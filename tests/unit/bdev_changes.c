/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers for tests of disks that change; see bdev_changes.h. */
#include "bdev_changes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "bdev/bdev_io.h"

#define BLOCK 4096u

/* ---- changes, from the main thread ------------------------------------------------------- */

static void change_init(struct change *change, struct bdev *bdev, uint64_t block_count, bool settle)
{
	*change = (struct change){.bdev = bdev, .block_count = block_count, .settle = settle};
	sem_init(&change->done, 0, 0);
}

void change_wait(struct change *change)
{
	while (sem_wait(&change->done) != 0)
		;
	sem_destroy(&change->done);
}

static void change_done(void *arg)
{
	struct change *change = arg;

	change->ended = true;
	sem_post(&change->done);
}

static void resize_run(void *arg)
{
	struct change *change = arg;

	change->rc = change->settle ? bdev_reserve(change->bdev, change->block_count) : 0;
	if (change->rc == 0)
		bdev_resize(change->bdev, change->block_count, change->settle, change_done, change);
}

void change_resize(struct change *change, struct bdev *bdev, uint64_t block_count, bool settle)
{
	change_init(change, bdev, block_count, settle);
	harness_call(resize_run, change);
}

int resize(struct bdev *bdev, uint64_t block_count)
{
	struct change change;

	change_resize(&change, bdev, block_count, true);
	if (change.rc == 0)
		change_wait(&change);
	return change.rc;
}

static void remove_run(void *arg)
{
	struct change *change = arg;

	change->rc = bdev_remove(change->bdev, change_done, change);
}

void change_remove(struct change *change, struct bdev *bdev)
{
	change_init(change, bdev, 0, false);
	harness_call(remove_run, change);
}

struct change_events seen;

static void on_event(struct bdev_open *open, enum bdev_event event, void *arg)
{
	ensure(arg == &seen);
	seen.resize_count += event == BDEV_EVENT_RESIZE;
	seen.remove_count += event == BDEV_EVENT_REMOVE;
	seen.block_count = open->bdev->block_count;
}

void disk_watch(struct harness_disk *disk)
{
	memset(&seen, 0, sizeof(seen));
	bdev_open_watch(disk->open, on_event, &seen);
}

void disk_open(struct harness_disk *disk, struct bdev *bdev)
{
	harness_disk_open(disk, bdev, true);
	disk_watch(disk);
}

static void channel_stop(void *arg)
{
	bdev_channel_stop(arg);
}

void disk_drop(struct harness_disk *disk)
{
	harness_call(channel_stop, disk->channel);
	bdev_channel_free(disk->channel);
}

/* ---- a back-end that ends I/O when it is told to ----------------------------------------- */

struct slow_state slow;

static void slow_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	slow.ios[slow.count++] = io;
}

static void slow_put(struct bdev_channel *channel)
{
	slow.put_count++;
}

static void slow_destroy(struct bdev *bdev)
{
	ensure(slow.count == 0 && slow.put_count == 1);
	slow.destroy_count++;
	free(bdev);
}

static json_t *slow_describe(const struct bdev *bdev)
{
	return json_object();
}

static json_t *slow_config(const struct bdev *bdev, const char **method)
{
	*method = "none";
	return json_object();
}

struct bdev *slow_create(void)
{
	static const struct bdev_ops ops = {
		.driver = "slow",
		.destroy = slow_destroy,
		.channel_put = slow_put,
		.submit = slow_submit,
		.describe = slow_describe,
		.config = slow_config,
	};
	struct bdev *bdev = bdev_alloc(sizeof(*bdev));

	memset(&slow, 0, sizeof(slow));
	assert_int_equal(bdev_set_identity(bdev, "slow", NULL), 0);
	bdev->ops = &ops;
	bdev->block_count = 100;
	bdev->limits.block_size_bytes = BLOCK;
	bdev->limits.physical_block_size_bytes = BLOCK;
	assert_int_equal(bdev_register(bdev), 0);
	return bdev;
}

static void loose_complete(struct bdev_io *io, enum bdev_status status)
{
	struct loose_io *loose = container_of(io, struct loose_io, io);

	ensure(loose->status == BDEV_STATUS_COUNT);
	loose->status = status;
}

static void loose_run(void *arg)
{
	struct loose_io *loose = arg;

	bdev_submit(loose->channel, &loose->io);
}

void loose_submit(struct loose_io *loose, struct harness_disk *disk, uint64_t block)
{
	static char buf[BLOCK];

	*loose = (struct loose_io){
		.iov = {buf, BLOCK},
		.channel = disk->channel,
		.status = BDEV_STATUS_COUNT,
	};
	loose->io.type = BDEV_IO_WRITE;
	loose->io.iovs = &loose->iov;
	loose->io.iov_count = 1;
	loose->io.offset_bytes = block * BLOCK;
	loose->io.len_bytes = BLOCK;
	loose->io.complete = loose_complete;
	harness_call(loose_run, loose);
}

void slow_end_all(void *arg)
{
	unsigned int count = slow.count;

	slow.count = 0;
	for (unsigned int i = 0; i < count; i++)
		bdev_io_complete(slow.ios[i], BDEV_STATUS_OK);
}

static void nothing(void *arg)
{
}

void a_while(void)
{
	for (int i = 0; i < 20; i++) {
		harness_call(nothing, NULL);
		usleep(500);
	}
}
