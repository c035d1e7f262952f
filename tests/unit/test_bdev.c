/* SPDX-License-Identifier: Apache-2.0 */
/* The block device layer: names, registry, claims, what submission refuses, statistics. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backends/null/bdev_null.h"
#include "bdev/bdev_io.h"
#include "harness.h"

#define SIZE_BYTES (1000ull * 4096)

static struct bdev *create_null(const char *name, const char *uuid)
{
	struct bdev_null_options options = {
		.name = name,
		.uuid = uuid,
		.block_count = 1000,
		.block_size_bytes = 4096,
	};
	struct bdev *bdev = NULL;

	assert_int_equal(bdev_null_create(&options, &bdev), 0);
	return bdev;
}

static void test_names(void **state)
{
	char longest[BDEV_NAME_MAX + 1];

	memset(longest, 'a', sizeof(longest));
	longest[BDEV_NAME_MAX] = 0;
	assert_false(bdev_name_valid(longest));
	longest[BDEV_NAME_MAX - 1] = 0;
	assert_true(bdev_name_valid(longest));
	assert_true(bdev_name_valid("Malloc0"));
	assert_true(bdev_name_valid("a:b-c_d.e"));
	assert_false(bdev_name_valid(""));
	assert_false(bdev_name_valid("-a"));
	assert_false(bdev_name_valid(".a"));
	assert_false(bdev_name_valid("a/b"));
	assert_false(bdev_name_valid("a b"));
	assert_false(bdev_name_valid("\xc3\xa9"));
}

static void test_registry(void **state)
{
	static const char uuid[] = "00112233-4455-6677-8899-aabbccddeeff";
	struct bdev *a = create_null("a", NULL);
	struct bdev *b = create_null("b", uuid);
	struct bdev_null_options same_name = {"a", NULL, 10, 512, 0};
	struct bdev_null_options same_uuid = {"c", uuid, 10, 512, 0};
	struct bdev_null_options name_is_uuid = {uuid, NULL, 10, 512, 0};
	struct bdev *out;

	assert_ptr_equal(bdev_find("a"), a);
	assert_ptr_equal(bdev_find("b"), b);
	assert_ptr_equal(bdev_find(uuid), b);
	assert_null(bdev_find("c"));
	assert_ptr_equal(bdev_next(NULL), a);
	assert_ptr_equal(bdev_next(a), b);
	assert_null(bdev_next(b));
	assert_false(uuid_is_null(a->uuid));
	assert_int_equal(bdev_null_create(&same_name, &out), -EEXIST);
	assert_int_equal(bdev_null_create(&same_uuid, &out), -EEXIST);
	assert_int_equal(bdev_null_create(&name_is_uuid, &out), -EEXIST);
	assert_int_equal(bdev_destroy(a), 0);
	assert_null(bdev_find("a"));
	assert_int_equal(bdev_destroy(b), 0);
	assert_null(bdev_next(NULL));
}

static void test_bad_options(void **state)
{
	static const struct bdev_null_options cases[] = {
		{NULL, NULL, 10, 512, 0},
		{"x/y", NULL, 10, 512, 0},
		{"x", "not-a-uuid", 10, 512, 0},
		{"x", NULL, 0, 512, 0},
		{"x", NULL, 10, 0, 0},
		{"x", NULL, 10, 1024 + 1, 0},
		{"x", NULL, 10, 256, 0},
		{"x", NULL, 10, 4096, 512},
		{"x", NULL, 10, 512, 1000},
		{"x", NULL, UINT64_MAX, 512, 0},
		{"x", NULL, (UINT64_MAX / 4096) + 1, 4096, 0},
	};
	struct bdev *out;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
		assert_int_equal(bdev_null_create(&cases[i], &out), -EINVAL);
	assert_null(bdev_next(NULL));
}

static void test_claims(void **state)
{
	struct bdev *bdev = create_null("disk", NULL);
	struct bdev_open *reader1, *reader2, *writer;
	const char *who = NULL;

	assert_int_equal(bdev_open("nobody", "t", true, &writer, NULL), -ENODEV);
	assert_int_equal(bdev_open("disk", "first", true, &writer, NULL), 0);
	assert_int_equal(bdev_open("disk", "second", true, &reader1, &who), -EBUSY);
	assert_string_equal(who, "first");
	assert_int_equal(bdev_open("disk", "second", false, &reader1, NULL), -EBUSY);
	assert_int_equal(bdev_destroy(bdev), -EBUSY);
	bdev_close(writer);
	assert_int_equal(bdev_open("disk", "r1", false, &reader1, NULL), 0);
	assert_int_equal(bdev_open("disk", "r2", false, &reader2, NULL), 0);
	assert_int_equal(bdev_open("disk", "w", true, &writer, &who), -EBUSY);
	assert_string_equal(who, "r1");
	bdev_close(reader1);
	bdev_close(reader2);
	assert_int_equal(bdev_destroy(bdev), 0);
}

static void test_refusals(void **state)
{
	static const struct {
		enum bdev_io_type type;
		uint64_t offset;
		uint64_t len;
		enum bdev_status status;
	} cases[] = {
		{BDEV_IO_READ, 0, 4096, BDEV_STATUS_OK},
		{BDEV_IO_READ, 0, SIZE_BYTES, BDEV_STATUS_OK},
		{BDEV_IO_READ, SIZE_BYTES - 4096, 4096, BDEV_STATUS_OK},
		{BDEV_IO_READ, SIZE_BYTES, 0, BDEV_STATUS_OK},
		{BDEV_IO_WRITE, 4096, 0, BDEV_STATUS_OK},
		{BDEV_IO_FLUSH, 0, 0, BDEV_STATUS_OK},
		{BDEV_IO_READ, SIZE_BYTES, 4096, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_READ, SIZE_BYTES + 4096, 0, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_READ, SIZE_BYTES - 4096, 8192, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_READ, -4096ull, 4096, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_READ, -4096ull, 8192, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_WRITE, 4096, -4096ull, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_DISCARD, SIZE_BYTES, 4096, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_WRITE_ZEROES, 0, SIZE_BYTES + 4096, BDEV_STATUS_OUT_OF_RANGE},
		{BDEV_IO_READ, 512, 4096, BDEV_STATUS_MISALIGNED},
		{BDEV_IO_READ, 0, 4095, BDEV_STATUS_MISALIGNED},
		{BDEV_IO_WRITE, 1, 0, BDEV_STATUS_MISALIGNED},
		{BDEV_IO_DISCARD, 0, 512, BDEV_STATUS_MISALIGNED},
	};
	static char buf[4096];
	struct harness_disk disk;
	struct bdev_stats stats;
	uint64_t errors = 0;

	harness_disk_open(&disk, create_null("disk", NULL), true);
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		assert_int_equal(
			harness_io(&disk, cases[i].type, 0, cases[i].offset, buf, cases[i].len),
			cases[i].status);
		errors += cases[i].type == BDEV_IO_READ && cases[i].status != BDEV_STATUS_OK;
	}
	bdev_get_stats(disk.bdev, &stats);
	assert_int_equal(stats.types[BDEV_IO_READ].error_count, errors);
	assert_int_equal(stats.types[BDEV_IO_READ].op_count, 3);
	harness_disk_destroy(&disk);
}

static void test_reader_writes(void **state)
{
	static char buf[4096];
	struct harness_disk disk;

	harness_disk_open(&disk, create_null("disk", NULL), false);
	assert_int_equal(harness_io(&disk, BDEV_IO_READ, 0, 0, buf, 4096), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_FLUSH, 0, 0, NULL, 0), BDEV_STATUS_OK);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, 4096), BDEV_STATUS_READ_ONLY);
	assert_int_equal(harness_io(&disk, BDEV_IO_DISCARD, 0, 0, NULL, 4096),
			 BDEV_STATUS_READ_ONLY);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE_ZEROES, 0, 0, NULL, 4096),
			 BDEV_STATUS_READ_ONLY);
	harness_disk_destroy(&disk);
}

/* A back-end with nothing but READ and WRITE, which fail. */
static void bare_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	bdev_io_complete(io, BDEV_STATUS_NO_SPACE);
}

static void bare_destroy(struct bdev *bdev)
{
	free(bdev);
}

static json_t *bare_describe(const struct bdev *bdev)
{
	return json_object();
}

static json_t *bare_config(const struct bdev *bdev, const char **method)
{
	*method = "none";
	return json_object();
}

static void test_unsupported_and_stats(void **state)
{
	static const struct bdev_ops ops = {
		.driver = "bare",
		.destroy = bare_destroy,
		.submit = bare_submit,
		.describe = bare_describe,
		.config = bare_config,
	};
	static char buf[4096];
	struct harness_disk disk;
	struct bdev_stats stats;
	struct bdev *bdev = bdev_alloc(sizeof(*bdev));

	assert_non_null(bdev);
	assert_int_equal(bdev_set_identity(bdev, "bare", NULL), 0);
	bdev->ops = &ops;
	bdev->block_count = 10;
	bdev->limits.block_size_bytes = 512;
	bdev->limits.physical_block_size_bytes = 512;
	assert_int_equal(bdev_register(bdev), 0);
	harness_disk_open(&disk, bdev, true);
	assert_int_equal(harness_io(&disk, BDEV_IO_DISCARD, 0, 0, NULL, 512),
			 BDEV_STATUS_UNSUPPORTED);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE_ZEROES, 0, 0, NULL, 512),
			 BDEV_STATUS_UNSUPPORTED);
	assert_int_equal(harness_io(&disk, BDEV_IO_WRITE, 0, 0, buf, 512), BDEV_STATUS_NO_SPACE);
	harness_disk_close(&disk);
	/* Counters outlive their channel. */
	bdev_get_stats(bdev, &stats);
	assert_int_equal(stats.types[BDEV_IO_WRITE].op_count, 1);
	assert_int_equal(stats.types[BDEV_IO_WRITE].error_count, 1);
	assert_int_equal(stats.types[BDEV_IO_WRITE].bytes, 0);
	assert_int_equal(stats.types[BDEV_IO_DISCARD].error_count, 1);
	assert_int_equal(stats.types[BDEV_IO_DISCARD].op_count, 0);
	assert_int_equal(bdev_destroy(bdev), 0);
}

static void test_words(void **state)
{
	assert_string_equal(bdev_io_type_name(BDEV_IO_WRITE_ZEROES), "write_zeroes");
	for (int i = 0; i < BDEV_STATUS_COUNT; i++)
		assert_non_null(bdev_status_name((enum bdev_status)i));
	assert_int_equal(bdev_status_from_errno(0), BDEV_STATUS_OK);
	assert_int_equal(bdev_status_from_errno(-ENOSPC), BDEV_STATUS_NO_SPACE);
	assert_int_equal(bdev_status_from_errno(-EDQUOT), BDEV_STATUS_NO_SPACE);
	assert_int_equal(bdev_status_from_errno(-EIO), BDEV_STATUS_IO_ERROR);
	assert_int_equal(bdev_status_from_errno(-EOPNOTSUPP), BDEV_STATUS_UNSUPPORTED);
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
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_registry),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_reader_writes),
		cmocka_unit_test(test_unsupported_and_stats),
		cmocka_unit_test(test_words),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
