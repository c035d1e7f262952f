/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that change their size or go away while they are in use. The harness' reactor plays the
 * control reactor, too: what is told to a channel is a message all the same. */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/memory/bdev_memory.h"
#include "backends/memory/memory_impl.h"
#include "backends/null/bdev_null.h"
#include "base/assert.h"
#include "bdev/bdev_io.h"
#include "file_disk.h"
#include "harness.h"

#define BLOCK 4096u

/* ---- changes, from the main thread ------------------------------------------------------- */

struct change {
	struct bdev *bdev;
	uint64_t block_count;
	bool settle;
	int rc;
	bool ended; /* the reactor's */
	sem_t done;
};

static void change_init(struct change *change, struct bdev *bdev, uint64_t block_count, bool settle)
{
	*change = (struct change){.bdev = bdev, .block_count = block_count, .settle = settle};
	sem_init(&change->done, 0, 0);
}

static void change_wait(struct change *change)
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

static int resize(struct bdev *bdev, uint64_t block_count)
{
	struct change change;

	change_init(&change, bdev, block_count, true);
	harness_call(resize_run, &change);
	if (change.rc == 0)
		change_wait(&change);
	return change.rc;
}

static void remove_run(void *arg)
{
	struct change *change = arg;

	change->rc = bdev_remove(change->bdev, change_done, change);
}

static struct {
	unsigned int resize_count;
	unsigned int remove_count;
	uint64_t block_count;
} seen;

static void on_event(struct bdev_open *open, enum bdev_event event, void *arg)
{
	ensure(arg == &seen);
	seen.resize_count += event == BDEV_EVENT_RESIZE;
	seen.remove_count += event == BDEV_EVENT_REMOVE;
	seen.block_count = open->bdev->block_count;
}

static void disk_open(struct harness_disk *disk, struct bdev *bdev)
{
	harness_disk_open(disk, bdev, true);
	memset(&seen, 0, sizeof(seen));
	bdev_open_watch(disk->open, on_event, &seen);
}

/* What an owner does with the channel of a disk that is gone. */
static void channel_stop(void *arg)
{
	bdev_channel_stop(arg);
}

static void disk_drop(struct harness_disk *disk)
{
	harness_call(channel_stop, disk->channel);
	bdev_channel_free(disk->channel);
}

/* ---- a back-end that ends I/O when it is told to ----------------------------------------- */

static struct {
	struct bdev_io *ios[16];
	unsigned int count;
	unsigned int put_count;
	unsigned int destroy_count;
} slow;

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

static struct bdev *create_slow(void)
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

/* An I/O whose end is looked at, not waited for. */
struct loose_io {
	struct bdev_io io;
	struct iovec iov;
	struct bdev_channel *channel;
	enum bdev_status status;
};

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

static void loose_submit(struct loose_io *loose, struct harness_disk *disk, uint64_t block)
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

static void slow_end_all(void *arg)
{
	unsigned int count = slow.count;

	slow.count = 0;
	for (unsigned int i = 0; i < count; i++)
		bdev_io_complete(slow.ios[i], BDEV_STATUS_OK);
}

static void nothing(void *arg)
{
}

/* Time for the reactor to do what it should not. */
static void a_while(void)
{
	for (int i = 0; i < 20; i++) {
		harness_call(nothing, NULL);
		usleep(500);
	}
}

/* ---- size -------------------------------------------------------------------------------- */

static void test_null(void **state)
{
	struct bdev_null_options options = {"n", NULL, 100, BLOCK, 0};
	struct harness_disk disk;
	struct bdev *bdev;
	static char buf[BLOCK];
	const char *method;

	assert_int_equal(bdev_null_create(&options, &bdev), 0);
	disk_open(&disk, bdev);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 100 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(resize(bdev, 200), 0);
	assert_int_equal(seen.resize_count, 1);
	assert_int_equal(seen.block_count, 200);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 199 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 10), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 10 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 9 * BLOCK, buf, BLOCK), BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 10), 0);
	assert_int_equal(seen.resize_count, 2); /* no change, no event */
	assert_int_equal(resize(bdev, 0), -EINVAL);
	assert_int_equal(resize(bdev, INT64_MAX / BLOCK + 1), -EINVAL);
	json_t *params = bdev->ops->config(bdev, &method);
	assert_int_equal(json_integer_value(json_object_get(params, "num_blocks")), 10);
	json_decref(params);
	harness_disk_destroy(&disk);
}

static uint64_t resident_bytes(const struct bdev *bdev)
{
	struct stat st;

	assert_int_equal(fstat(memory_bdev(bdev)->fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void memory_cycle(struct harness_disk *disk, uint32_t block_size)
{
	uint64_t small = (1u << 20) / block_size + 1; /* not a whole number of pages */
	uint64_t large = (8u << 20) / block_size;
	char *buf = malloc(8u << 20), *back = malloc(8u << 20);

	assert_int_equal(resize(disk->bdev, large), 0);
	harness_random_fill(buf, 8u << 20);
	assert_int_equal(harness_io(disk, BDEV_IO_WRITE, 0, 0, buf, 8u << 20), BDEV_STATUS_OK);
	assert_int_equal(resize(disk->bdev, small), 0);
	assert_true(resident_bytes(disk->bdev) <= (1u << 20) + (4u << 20));
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, small * block_size),
			 BDEV_STATUS_OK);
	assert_memory_equal(back, buf, small * block_size);
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, (small + 1) * block_size),
			 BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(resize(disk->bdev, large), 0);
	memset(buf + small * block_size, 0, (8u << 20) - small * block_size);
	assert_int_equal(harness_io(disk, BDEV_IO_READ, 0, 0, back, 8u << 20), BDEV_STATUS_OK);
	assert_memory_equal(back, buf, 8u << 20);
	free(buf);
	free(back);
}

static void test_memory(void **state)
{
	static const uint32_t block_sizes[] = {512, 4096};

	for (size_t i = 0; i < ARRAY_COUNT(block_sizes); i++) {
		for (int hugetlb = 0; hugetlb < 2; hugetlb++) {
			struct bdev_memory_options options = {"m", NULL,        100, block_sizes[i],
							      0,   hugetlb != 0};
			struct harness_disk disk;
			struct bdev *bdev;
			assert_int_equal(bdev_memory_create(&options, &bdev), 0);
			disk_open(&disk, bdev);
			for (int n = 0; n < 3; n++)
				memory_cycle(&disk, block_sizes[i]);
			harness_disk_destroy(&disk);
		}
	}
}

/* A size that could not be saved: storage was found, and the disk stays as it is. */
static void test_undo(void **state)
{
	struct bdev_memory_options options = {"m", NULL, 100, BLOCK, 0, false};
	static char buf[BLOCK] = "data", back[BLOCK];
	struct harness_disk disk;
	struct change change;
	struct bdev *bdev;

	assert_int_equal(bdev_memory_create(&options, &bdev), 0);
	disk_open(&disk, bdev);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 99 * BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(bdev_reserve(bdev, 1000), 0);
	assert_true(bdev_is_changing(bdev));
	assert_int_equal(bdev_config_block_count(bdev), 1000);
	assert_int_equal(bdev_reserve(bdev, 2000), -EBUSY);
	change_init(&change, bdev, 100, false);
	harness_call(resize_run, &change);
	change_wait(&change);
	assert_int_equal(bdev->block_count, 100);
	assert_int_equal(bdev_config_block_count(bdev), 100);
	assert_int_equal(seen.resize_count, 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 99 * BLOCK, back, BLOCK),
			 BDEV_STATUS_OK);
	assert_memory_equal(back, buf, BLOCK);
	harness_disk_destroy(&disk);
}

static void test_shrink_waits(void **state)
{
	struct bdev *bdev = create_slow();
	struct loose_io old, kept, beyond;
	struct harness_disk disk;
	struct change change;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 90);
	change_init(&change, bdev, 50, false);
	harness_call(resize_run, &change);
	a_while();
	loose_submit(&beyond, &disk, 50);
	loose_submit(&kept, &disk, 49);
	a_while();
	assert_int_equal(beyond.status, BDEV_STATUS_OUT_OF_RANGE);
	assert_int_equal(kept.status, BDEV_STATUS_COUNT);
	assert_int_equal(slow.count, 1); /* the new one is held back */
	assert_false(change.ended);
	harness_call(slow_end_all, NULL);
	change_wait(&change);
	assert_int_equal(old.status, BDEV_STATUS_OK); /* it was before the change */
	assert_int_equal(seen.block_count, 50);
	harness_call(slow_end_all, NULL);
	assert_int_equal(kept.status, BDEV_STATUS_OK);
	harness_disk_destroy(&disk);
}

static void test_file(void **state)
{
	char path[] = "test_bdev_change.XXXXXX";
	static char buf[BLOCK];
	uint64_t block_count = 0;
	struct harness_disk disk;
	struct change change;
	char error[256] = "";

	close(mkstemp(path));
	file_disk_make(path, 1u << 20);
	struct bdev *bdev = file_disk_create(path, 512, false);
	disk_open(&disk, bdev);
	/* Ours to resize. */
	assert_int_equal(resize(bdev, 4096), 0);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, (2u << 20) - BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(resize(bdev, 1024), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), 0);
	assert_int_equal(block_count, 1024);
	/* Resized by somebody else. */
	assert_int_equal(truncate(path, 3u << 20), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), 0);
	assert_int_equal(block_count, 6144);
	change_init(&change, bdev, block_count, false);
	harness_call(resize_run, &change);
	change_wait(&change);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, (3u << 20) - BLOCK, buf, BLOCK),
			 BDEV_STATUS_OK);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(bdev_file_block_count(bdev, &block_count, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, path));
	harness_disk_destroy(&disk);
	unlink(path);
}

/* ---- removal ----------------------------------------------------------------------------- */

static void test_remove(void **state)
{
	struct bdev *bdev = create_slow();
	struct harness_disk disk;
	struct loose_io old, new;
	struct change change;
	struct bdev_open *open;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 1);
	change_init(&change, bdev, 0, false);
	harness_call(remove_run, &change);
	assert_int_equal(change.rc, 0);
	assert_int_equal(seen.remove_count, 1);
	assert_null(bdev_find("slow"));
	assert_int_equal(bdev_open("slow", "t", false, &open, NULL), -ENODEV);
	a_while();
	loose_submit(&new, &disk, 1);
	assert_int_equal(new.status, BDEV_STATUS_ABORTED);
	assert_false(change.ended);
	assert_int_equal(slow.put_count, 0);
	harness_call(slow_end_all, NULL);
	change_wait(&change);
	assert_int_equal(old.status, BDEV_STATUS_OK);
	assert_int_equal(slow.put_count, 1);
	assert_int_equal(slow.destroy_count, 1);
	/* The channel refuses as long as somebody has it. */
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_ABORTED);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, NULL, 0), BDEV_STATUS_ABORTED);
	disk_drop(&disk);
}

static void end_and_stop(void *arg)
{
	slow_end_all(NULL);
	bdev_channel_stop(arg);
}

static void free_channel(void *arg)
{
	bdev_channel_free(arg);
}

/* The owner lets go of the channel before the notice has been answered. */
static void test_remove_overtaken(void **state)
{
	struct bdev *bdev = create_slow();
	struct harness_disk disk;
	struct change change;
	struct loose_io old;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 1);
	change_init(&change, bdev, 0, false);
	harness_call(remove_run, &change);
	a_while();
	harness_call(end_and_stop, disk.channel);
	harness_call(free_channel, disk.channel);
	change_wait(&change);
	assert_int_equal(slow.put_count, 1);
	assert_int_equal(slow.destroy_count, 1);
}

static void test_remove_refused(void **state)
{
	struct bdev *bdev = create_slow();
	struct harness_disk disk;
	struct change shrink, removal;
	struct loose_io old;

	harness_disk_open(&disk, bdev, true);
	change_init(&removal, bdev, 0, false);
	harness_call(remove_run, &removal);
	assert_int_equal(removal.rc, -EBUSY); /* nobody would be told */
	assert_int_equal(bdev_reserve(bdev, 10), -EOPNOTSUPP);
	memset(&seen, 0, sizeof(seen));
	bdev_open_watch(disk.open, on_event, &seen);
	loose_submit(&old, &disk, 1);
	change_init(&shrink, bdev, 50, false);
	harness_call(resize_run, &shrink);
	harness_call(remove_run, &removal);
	assert_int_equal(removal.rc, -EBUSY); /* it is changing */
	harness_call(slow_end_all, NULL);
	change_wait(&shrink);
	harness_call(remove_run, &removal);
	assert_int_equal(removal.rc, 0);
	change_wait(&removal);
	disk_drop(&disk);
}

static void channel_start(void *arg)
{
	ensure(bdev_channel_start(arg) == 0);
}

static void test_channel_of_nothing(void **state)
{
	struct harness_disk disk = {0};

	assert_int_equal(bdev_channel_alloc(NULL, harness_reactor(), &disk.channel), 0);
	harness_call(channel_start, disk.channel);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, NULL, 0), BDEV_STATUS_ABORTED);
	disk_drop(&disk);
}

static int setup(void **state)
{
	harness_seed();
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
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_undo),
		cmocka_unit_test(test_shrink_waits),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_remove_overtaken),
		cmocka_unit_test(test_remove_refused),
		cmocka_unit_test(test_channel_of_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
