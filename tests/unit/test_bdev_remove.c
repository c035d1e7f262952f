/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that go away while they are in use. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/assert.h"
#include "bdev_changes.h"

static void test_remove(void **state)
{
	struct bdev *bdev = slow_create();
	struct harness_disk disk;
	struct loose_io old, new;
	struct change change;
	struct bdev_open *open;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 1);
	change_remove(&change, bdev);
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
	struct bdev *bdev = slow_create();
	struct harness_disk disk;
	struct change change;
	struct loose_io old;

	disk_open(&disk, bdev);
	loose_submit(&old, &disk, 1);
	change_remove(&change, bdev);
	a_while();
	harness_call(end_and_stop, disk.channel);
	harness_call(free_channel, disk.channel);
	change_wait(&change);
	assert_int_equal(slow.put_count, 1);
	assert_int_equal(slow.destroy_count, 1);
}

static void test_remove_refused(void **state)
{
	struct bdev *bdev = slow_create();
	struct harness_disk disk;
	struct change shrink, removal;
	struct loose_io old;

	harness_disk_open(&disk, bdev, true);
	change_remove(&removal, bdev);
	assert_int_equal(removal.rc, -EBUSY); /* nobody would be told */
	assert_int_equal(bdev_reserve(bdev, 10), -EOPNOTSUPP);
	disk_watch(&disk);
	loose_submit(&old, &disk, 1);
	change_resize(&shrink, bdev, 50, false);
	change_remove(&removal, bdev);
	assert_int_equal(removal.rc, -EBUSY); /* it is changing */
	harness_call(slow_end_all, NULL);
	change_wait(&shrink);
	change_remove(&removal, bdev);
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
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_remove_overtaken),
		cmocka_unit_test(test_remove_refused),
		cmocka_unit_test(test_channel_of_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
