/* SPDX-License-Identifier: Apache-2.0 */
/* Stamped blocks: every damage is seen and named; the book-keeping of units. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/bench_units.h"
#include "cli/bench_verify.h"

#define SEED 77u
#define OFFSET (3ull << 33)
#define GENERATION 5u
#define BLOCK 4096u

static _Alignas(8) uint8_t block[BLOCK];
static struct bench_finding found;

static enum bench_verdict check(uint32_t len)
{
	return bench_verify_check(block, len, SEED, OFFSET, GENERATION, &found);
}

static void test_good_block(void **state)
{
	static const uint32_t sizes[] = {512, 4096};

	for (size_t i = 0; i < 2; i++) {
		memset(block, 0xff, sizeof(block));
		bench_verify_fill(block, sizes[i], SEED, OFFSET, GENERATION);
		assert_int_equal(check(sizes[i]), BENCH_VERDICT_OK);
	}
}

static void test_every_damaged_byte_is_seen(void **state)
{
	bench_verify_fill(block, BLOCK, SEED, OFFSET, GENERATION);
	for (uint32_t i = 0; i < BLOCK; i++) {
		for (int bit = 0; bit < 8; bit += 7) {
			block[i] ^= (uint8_t)(1 << bit);
			assert_int_equal(check(BLOCK), i < BENCH_STAMP_BYTES ? BENCH_VERDICT_GARBAGE
									     : BENCH_VERDICT_TORN);
			if (i >= BENCH_STAMP_BYTES)
				assert_int_equal(found.bad_byte, i & ~7u);
			block[i] ^= (uint8_t)(1 << bit);
		}
	}
	assert_int_equal(check(BLOCK), BENCH_VERDICT_OK);
}

static void test_stale_block(void **state)
{
	bench_verify_fill(block, BLOCK, SEED, OFFSET, GENERATION - 1);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_OTHER_GENERATION);
	assert_int_equal(found.generation, GENERATION - 1);
	assert_int_equal(found.offset, OFFSET);
}

static void test_torn_between_generations(void **state)
{
	uint8_t older[BLOCK] __attribute__((aligned(8)));

	bench_verify_fill(older, BLOCK, SEED, OFFSET, GENERATION - 1);
	bench_verify_fill(block, BLOCK, SEED, OFFSET, GENERATION);
	memcpy(block + 512, older + 512, BLOCK - 512);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_TORN);
	assert_int_equal(found.bad_byte, 512);
	assert_int_equal(found.generation, GENERATION);
	bench_verify_fill(block, BLOCK, SEED, OFFSET, GENERATION);
	memcpy(block, older, 512);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_TORN);
	assert_int_equal(found.generation, GENERATION - 1);
}

static void test_foreign_blocks(void **state)
{
	bench_verify_fill(block, BLOCK, SEED, OFFSET + BLOCK, GENERATION);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_OTHER_OFFSET);
	assert_int_equal(found.offset, OFFSET + BLOCK);
	bench_verify_fill(block, BLOCK, SEED + 1, OFFSET, GENERATION);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_OTHER_RUN);
	memset(block, 0, BLOCK);
	assert_int_equal(check(BLOCK), BENCH_VERDICT_ZEROES);
	block[BLOCK - 1] = 1;
	assert_int_equal(check(BLOCK), BENCH_VERDICT_GARBAGE);
}

static void test_units(void **state)
{
	uint32_t unit = 0;

	assert_int_equal(bench_unit_expected(unit), 0);
	bench_unit_begin(&unit);
	assert_true(bench_unit_busy(unit));
	assert_int_equal(bench_unit_next_generation(unit), 1);
	bench_unit_end_write(&unit, true);
	assert_false(bench_unit_busy(unit));
	assert_int_equal(bench_unit_expected(unit), 1);
	bench_unit_begin(&unit);
	bench_unit_end_read(&unit);
	assert_int_equal(bench_unit_expected(unit), 1);
	/* A failed write: nothing is expected, and its generation is not used again. */
	bench_unit_begin(&unit);
	bench_unit_end_write(&unit, false);
	assert_int_equal(bench_unit_expected(unit), 0);
	assert_int_equal(bench_unit_next_generation(unit), 3);
	bench_unit_begin(&unit);
	bench_unit_end_write(&unit, true);
	assert_int_equal(bench_unit_expected(unit), 3);
	unit = BENCH_UNIT_GENERATION_MASK;
	assert_int_equal(bench_unit_next_generation(unit), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_block),
		cmocka_unit_test(test_every_damaged_byte_is_seen),
		cmocka_unit_test(test_stale_block),
		cmocka_unit_test(test_torn_between_generations),
		cmocka_unit_test(test_foreign_blocks),
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
