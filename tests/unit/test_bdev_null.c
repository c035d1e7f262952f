/* SPDX-License-Identifier: Apache-2.0 */
/* The null back-end: every type ends well, limits and configuration are declared, it is counted,
 * and what an I/O costs is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "backends/null/bdev_null.h"
#include "bdev/bdev_io.h"
#include "harness.h"

static struct bdev *create(void)
{
	struct bdev_null_options options = {
		.name = "null0",
		.block_count = 1u << 20,
		.block_size_bytes = 512,
		.physical_block_size_bytes = 4096,
	};
	struct bdev *bdev = NULL;

	assert_int_equal(bdev_null_create(&options, &bdev), 0);
	return bdev;
}

static void test_every_type(void **state)
{
	static char buf[4096];
	struct harness_disk disk;
	struct bdev_stats stats;

	memset(buf, 0x5a, sizeof(buf));
	harness_disk_open(&disk, create(), true);
	for (int i = 0; i < BDEV_IO_TYPE_COUNT; i++)
		assert_int_equal(harness_io(&disk, (enum bdev_io_type)i, 0, 0, buf, sizeof(buf)),
				 BDEV_STATUS_OK);
	assert_int_equal(buf[17], 0x5a);
	bdev_get_stats(disk.bdev, &stats);
	for (int i = 0; i < BDEV_IO_TYPE_COUNT; i++) {
		assert_int_equal(stats.types[i].op_count, 1);
		assert_int_equal(stats.types[i].bytes, sizeof(buf));
		assert_int_equal(stats.types[i].error_count, 0);
	}
	harness_disk_destroy(&disk);
}

static void test_config(void **state)
{
	struct bdev *bdev = create();
	const char *method = NULL;
	json_t *params = bdev->ops->config(bdev, &method);
	json_t *driver = bdev->ops->describe(bdev);

	assert_string_equal(method, "bdev_null_create");
	assert_int_equal(json_integer_value(json_object_get(params, "num_blocks")), 1 << 20);
	assert_int_equal(json_integer_value(json_object_get(params, "block_size")), 512);
	assert_int_equal(json_integer_value(json_object_get(params, "physical_block_size")), 4096);
	assert_true(json_is_object(driver));
	json_decref(params);
	json_decref(driver);
	assert_int_equal(bdev_destroy(bdev), 0);
}

/* ---- cost -------------------------------------------------------------------------------- */

#define COST_IO_COUNT 1000000u

struct cost {
	struct bdev_channel *channel;
	uint64_t ticks;
};

static void cost_complete(struct bdev_io *io, enum bdev_status status)
{
	io->flags = status;
}

static void cost_run(void *arg)
{
	static char buf[4096];
	static struct bdev_io ios[128];
	struct cost *cost = arg;
	struct iovec iov = {buf, sizeof(buf)};
	uint64_t start = ticks_now();

	for (unsigned int i = 0; i < COST_IO_COUNT; i++) {
		struct bdev_io *io = &ios[i % ARRAY_COUNT(ios)];
		io->type = BDEV_IO_READ;
		io->iovs = &iov;
		io->iov_count = 1;
		io->offset_bytes = (uint64_t)(i % 1000) * 4096;
		io->len_bytes = sizeof(buf);
		io->complete = cost_complete;
		bdev_submit(cost->channel, io);
	}
	cost->ticks = ticks_now() - start;
}

/* Not a bar: machines differ, and sanitizers more so. The figure is there to be seen. */
static void test_cost(void **state)
{
	struct harness_disk disk;

	harness_disk_open(&disk, create(), true);
	struct cost cost = {.channel = disk.channel};
	harness_call(cost_run, &cost);
	printf("# null read: %.1f ticks (%.1f ns)\n", (double)cost.ticks / COST_IO_COUNT,
	       (double)ticks_to_ns(cost.ticks) / COST_IO_COUNT);
	harness_disk_destroy(&disk);
}

static int setup(void **state)
{
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
		cmocka_unit_test(test_every_type),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_cost),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
