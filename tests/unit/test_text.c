/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers of sizes, numbers and CPU sets; range checks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/range.h"
#include "base/text.h"

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t bytes;
	} cases[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"4k", 0, 4096},
		{"4KiB", 0, 4096},
		{"512M", 0, 512ull << 20},
		{"2T", 0, 2ull << 40},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999P", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"4x", -EINVAL, 0},
		{"k", -EINVAL, 0},
		{"4 k", -EINVAL, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;
		assert_int_equal(text_parse_size(cases[i].text, &bytes), cases[i].rc);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_cpus(void **state)
{
	uint64_t words[2];

	assert_int_equal(text_parse_cpus("0,2-3", words, 2), 0);
	assert_int_equal(words[0], 0xd);
	assert_int_equal(text_parse_cpus("[1,64]", words, 2), 0);
	assert_int_equal(words[0], 0x2);
	assert_int_equal(words[1], 0x1);
	assert_int_equal(text_parse_cpus("0x1F", words, 2), 0);
	assert_int_equal(words[0], 0x1f);
	assert_int_equal(text_parse_cpus("128", words, 2), -ERANGE);
	assert_int_equal(text_parse_cpus("0-99999999999", words, 2), -ERANGE);
	assert_int_equal(text_parse_cpus("3-1", words, 2), -EINVAL);
	assert_int_equal(text_parse_cpus("", words, 2), -EINVAL);
	assert_int_equal(text_parse_cpus("0x0", words, 2), -EINVAL);
	assert_int_equal(text_parse_cpus("1,", words, 2), -EINVAL);
	assert_int_equal(text_parse_cpus("[1", words, 2), -EINVAL);
}

static void test_ranges(void **state)
{
	assert_true(range_within(0, 10, 10));
	assert_true(range_within(10, 0, 10));
	assert_false(range_within(1, 10, 10));
	assert_false(range_within(11, 0, 10));
	assert_false(range_within(UINT64_MAX, 2, 10));
	assert_false(range_within(1, UINT64_MAX, UINT64_MAX));
	assert_true(range_overlaps(0, 10, 9, 1));
	assert_false(range_overlaps(0, 10, 10, 1));
	assert_true(range_overlaps(UINT64_MAX - 1, 1, 0, UINT64_MAX));
	assert_false(range_overlaps(5, 0, 0, 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
