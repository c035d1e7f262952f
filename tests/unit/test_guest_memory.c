/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: what may be mapped, which tables are legal, and translation against a search that
 * knows nothing of hints and bisection. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/range.h"
#include "harness.h"
#include "memory/guest_memory.h"

#define PAGE 4096ull
#define FILE_BYTES (512 * PAGE)

static int file_fd;

static struct mem_region_desc desc_of(uint64_t guest, uint64_t user, uint64_t size, uint64_t offset)
{
	return (struct mem_region_desc){
		.guest_addr = {guest},
		.user_addr = user,
		.size_bytes = size,
		.mmap_offset = offset,
	};
}

static struct mem_region *map(uint64_t guest, uint64_t user, uint64_t size, uint64_t offset)
{
	struct mem_region_desc desc = desc_of(guest, user, size, offset);
	struct mem_region *region = NULL;

	assert_int_equal(mem_region_map(file_fd, &desc, &region), 0);
	assert_int_equal(region->ref_count, 1);
	return region;
}

/* ---- regions ------------------------------------------------------------------------------ */

static void test_map_refuses(void **state)
{
	static const struct {
		uint64_t guest, user, size, offset;
		int rc;
	} cases[] = {
		{0, 0, 0, 0, -EINVAL},
		{0, 0, FILE_BYTES + 1, 0, -EINVAL},
		{0, 0, PAGE, FILE_BYTES - PAGE + 1, -EINVAL},
		{0, 0, 1, FILE_BYTES, -EINVAL},
		{0, 0, PAGE, FILE_BYTES + PAGE, -EINVAL},
		{0, 0, PAGE, 1ull << 63, -EINVAL},
		{0, 0, PAGE, UINT64_MAX - PAGE, -EINVAL},
		{0, 0, PAGE, UINT64_MAX, -EINVAL},
		{0, 0, UINT64_MAX, 0, -EINVAL},
		{UINT64_MAX - PAGE + 1, 0, PAGE, 0, -EINVAL},
		{UINT64_MAX, 0, PAGE, 0, -EINVAL},
		{0, UINT64_MAX - PAGE + 1, PAGE, 0, -EINVAL},
		{0, UINT64_MAX, 2 * PAGE, 0, -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct mem_region_desc desc =
			desc_of(cases[i].guest, cases[i].user, cases[i].size, cases[i].offset);
		struct mem_region *region = NULL;
		assert_int_equal(mem_region_map(file_fd, &desc, &region), cases[i].rc);
		assert_null(region);
	}
}

static void test_map_refuses_fds(void **state)
{
	struct mem_region_desc desc = desc_of(0, 0, PAGE, 0);
	struct mem_region *region = NULL;
	char path[64];

	assert_int_equal(mem_region_map(-1, &desc, &region), -EBADF);
	int event_fd = fd_eventfd_create();
	assert_true(mem_region_map(event_fd, &desc, &region) < 0);
	fd_close(&event_fd);
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_true(mem_region_map(pipes[0], &desc, &region) < 0);
	close(pipes[0]);
	close(pipes[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
	int read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_only >= 0);
	assert_int_equal(mem_region_map(read_only, &desc, &region), -EACCES);
	close(read_only);
	/* Sparse and larger than any address space: an error, nothing worse. */
	int huge = fd_memfd_create("huge", INT64_MAX & ~(PAGE - 1), 0);
	if (huge >= 0) {
		desc.size_bytes = INT64_MAX & ~(PAGE - 1);
		assert_int_equal(mem_region_map(huge, &desc, &region), -ENOMEM);
		close(huge);
	}
	assert_null(region);
}

/* The host address is that of the offset asked for, whatever its alignment, up to the last byte. */
static void test_map_offsets(void **state)
{
	static const struct {
		uint64_t offset, size;
	} cases[] = {
		{0, FILE_BYTES},         {0, 1},       {1, 1},
		{PAGE - 1, 2},           {PAGE, PAGE}, {PAGE + 17, 3 * PAGE},
		{FILE_BYTES - 1, 1},     {100, 50},    {FILE_BYTES - PAGE - 5, PAGE + 5},
		{7, FILE_BYTES - 7 - 9},
	};
	uint8_t *all = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file_fd, 0);

	assert_ptr_not_equal(all, MAP_FAILED);
	harness_random_fill(all, FILE_BYTES);
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct mem_region *region = map(0x1000, 0, cases[i].size, cases[i].offset);
		assert_memory_equal(region->host, all + cases[i].offset, cases[i].size);
		region->host[cases[i].size - 1] ^= 0xff;
		assert_memory_equal(region->host, all + cases[i].offset, cases[i].size);
		mem_region_put(region);
	}
	munmap(all, FILE_BYTES);
}

static void test_matches(void **state)
{
	struct mem_region *region = map(PAGE, 7 * PAGE, 2 * PAGE, 3 * PAGE);
	struct mem_region_desc desc = region->desc;
	int same_file = dup(file_fd);
	int other_file = fd_memfd_create("other", FILE_BYTES, 0);

	assert_true(mem_region_matches(region, file_fd, &desc));
	assert_true(mem_region_matches(region, same_file, &desc));
	assert_false(mem_region_matches(region, other_file, &desc));
	assert_false(mem_region_matches(region, -1, &desc));
	for (int i = 0; i < 4; i++) {
		desc = region->desc;
		uint64_t *fields[] = {&desc.guest_addr.value, &desc.user_addr, &desc.size_bytes,
				      &desc.mmap_offset};
		(*fields[i])++;
		assert_false(mem_region_matches(region, file_fd, &desc));
	}
	store_relaxed(&region->faulted, true);
	assert_false(mem_region_matches(region, file_fd, &region->desc));
	mem_region_put(region);
	close(same_file);
	close(other_file);
}

/* ---- tables ------------------------------------------------------------------------------- */

static void test_overlaps(void **state)
{
	static const struct {
		uint64_t guest[2], user[2], size[2];
		int rc;
	} cases[] = {
		/* Adjacent, in either order. */
		{{0, PAGE}, {0, PAGE}, {PAGE, PAGE}, 0},
		{{PAGE, 0}, {PAGE, 0}, {PAGE, PAGE}, 0},
		{{0, PAGE}, {PAGE, 0}, {PAGE, PAGE}, 0},
		/* One byte in common, by guest or by user addresses. */
		{{0, PAGE - 1}, {0, 8 * PAGE}, {PAGE, PAGE}, -EINVAL},
		{{PAGE - 1, 0}, {0, 8 * PAGE}, {PAGE, PAGE}, -EINVAL},
		{{0, 8 * PAGE}, {0, PAGE - 1}, {PAGE, PAGE}, -EINVAL},
		{{0, 8 * PAGE}, {PAGE - 1, 0}, {PAGE, PAGE}, -EINVAL},
		/* Equal; one inside the other. */
		{{0, 0}, {0, 8 * PAGE}, {PAGE, PAGE}, -EINVAL},
		{{0, 8 * PAGE}, {0, 0}, {PAGE, PAGE}, -EINVAL},
		{{0, PAGE}, {0, 8 * PAGE}, {4 * PAGE, PAGE}, -EINVAL},
		{{PAGE, 0}, {0, 8 * PAGE}, {PAGE, 4 * PAGE}, -EINVAL},
		/* The ends of the address space. */
		{{0, UINT64_MAX - PAGE}, {0, UINT64_MAX - PAGE}, {PAGE, PAGE}, 0},
		{{UINT64_MAX - 2 * PAGE - 1, UINT64_MAX - PAGE - 1},
		 {0, 8 * PAGE},
		 {PAGE, PAGE},
		 0},
		{{UINT64_MAX - 2 * PAGE - 1, UINT64_MAX - PAGE - 1},
		 {0, 8 * PAGE},
		 {PAGE + 1, PAGE},
		 -EINVAL},
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct mem_region *regions[2];
		struct mem_table *table = NULL;
		bool expected_gap = true;
		for (int k = 0; k < 2; k++)
			regions[k] = map(cases[i].guest[k], cases[i].user[k], cases[i].size[k], 0);
		/* The table of cases against its own arithmetic, in 128 bits. */
		for (int space = 0; space < 2; space++) {
			const uint64_t *at = space == 0 ? cases[i].guest : cases[i].user;
			unsigned __int128 a = at[0], b = at[1];
			if (a < b + cases[i].size[1] && b < a + cases[i].size[0])
				expected_gap = false;
		}
		assert_int_equal(expected_gap ? 0 : -EINVAL, cases[i].rc);
		assert_int_equal(mem_table_create(regions, 2, &table), cases[i].rc);
		for (int k = 0; k < 2; k++) {
			assert_int_equal(regions[k]->ref_count, cases[i].rc == 0 ? 2 : 1);
			mem_region_put(regions[k]);
		}
		mem_table_destroy(table);
	}
}

static void test_table_sizes(void **state)
{
	struct mem_region *regions[MEM_SLOTS_MAX + 1];
	struct mem_table *table = NULL;
	uint32_t hint = 0;
	uint64_t run;

	assert_int_equal(mem_table_create(NULL, 0, &table), 0);
	assert_int_equal(table->slot_count, 0);
	assert_null(mem_translate(table, &hint, (gpa_t){0}, 1, &run));
	assert_null(mem_table_translate_user(table, 0, 0));
	assert_false(mem_table_faulted(table));
	mem_table_destroy(table);
	mem_table_destroy(NULL);

	for (uint32_t i = 0; i <= MEM_SLOTS_MAX; i++)
		regions[i] = map(i * PAGE, i * PAGE, PAGE, i * PAGE);
	assert_int_equal(mem_table_create(regions, MEM_SLOTS_MAX + 1, &table), -EINVAL);
	assert_int_equal(mem_table_create(regions, MEM_SLOTS_MAX, &table), 0);
	assert_false(mem_table_faulted(table));
	store_relaxed(&regions[MEM_SLOTS_MAX - 1]->faulted, true);
	assert_true(mem_table_faulted(table));
	for (uint32_t i = 0; i <= MEM_SLOTS_MAX; i++)
		mem_region_put(regions[i]);
	assert_int_equal(table->slots[0].region->ref_count, 1);
	mem_table_destroy(table);
}

/* ---- translation -------------------------------------------------------------------------- */

/* By trying every region. */
static void *translate_plainly(struct mem_region *const *regions, uint32_t count, uint64_t addr,
			       uint64_t len, uint64_t *run)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct mem_region_desc *desc = &regions[i]->desc;
		unsigned __int128 end =
			(unsigned __int128)desc->guest_addr.value + desc->size_bytes;
		if (addr < desc->guest_addr.value || addr >= end)
			continue;
		unsigned __int128 left = end - addr;
		*run = left < len ? (uint64_t)left : len;
		return regions[i]->host + (addr - desc->guest_addr.value);
	}
	return NULL;
}

/* Guest addresses with gaps and without, in a random order, up to the end of the space. */
static uint32_t random_regions(struct mem_region **regions)
{
	uint32_t count = 1 + (uint32_t)harness_random(MEM_SLOTS_MAX);
	uint64_t addr = harness_random(4) * PAGE;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t size = harness_random(3) == 0 ? 1 + harness_random(2 * PAGE)
						       : (1 + harness_random(4)) * PAGE;
		if (i == count - 1 && harness_random(2) == 0)
			addr = UINT64_MAX - size;
		regions[i] = map(addr, addr, size, harness_random(FILE_BYTES - size));
		addr += size + (harness_random(2) == 0 ? 0 : harness_random(8 * PAGE));
	}
	for (uint32_t i = count; i > 1; i--) {
		uint32_t k = (uint32_t)harness_random(i);
		struct mem_region *swap = regions[i - 1];
		regions[i - 1] = regions[k];
		regions[k] = swap;
	}
	return count;
}

static uint64_t random_address(struct mem_region *const *regions, uint32_t count)
{
	const struct mem_region_desc *desc = &regions[harness_random(count)]->desc;

	switch (harness_random(6)) {
	case 0: /* about the beginning */
		return desc->guest_addr.value + harness_random(5) - 2;
	case 1: /* about the end */
		return desc->guest_addr.value + desc->size_bytes + harness_random(5) - 2;
	case 2: /* anything, wrapping included */
		return harness_random(UINT64_MAX);
	case 3:
		return UINT64_MAX - harness_random(3);
	default:
		return desc->guest_addr.value + harness_random(desc->size_bytes);
	}
}

static uint64_t random_length(void)
{
	switch (harness_random(4)) {
	case 0:
		return 1;
	case 1:
		return UINT64_MAX - harness_random(2);
	default:
		return 1 + harness_random(8 * PAGE);
	}
}

static void test_translation_against_model(void **state)
{
	for (int round = 0; round < 40; round++) {
		struct mem_region *regions[MEM_SLOTS_MAX];
		uint32_t count = random_regions(regions);
		struct mem_table *table;
		uint32_t hint = 0;

		assert_int_equal(mem_table_create(regions, count, &table), 0);
		for (uint32_t i = 1; i < count; i++)
			assert_true(table->slots[i - 1].guest_addr < table->slots[i].guest_addr);
		for (int i = 0; i < 3000; i++) {
			uint64_t addr = random_address(regions, count);
			uint64_t len = random_length();
			uint64_t run = 0, expected_run = 0;
			if (harness_random(4) == 0)
				hint = (uint32_t)harness_random(
					harness_random(2) == 0 ? count + 2 : UINT32_MAX);
			void *expected =
				translate_plainly(regions, count, addr, len, &expected_run);
			void *got = mem_translate(table, &hint, (gpa_t){addr}, len, &run);
			assert_ptr_equal(got, expected);
			if (got != NULL)
				assert_int_equal(run, expected_run);
			const struct mem_slot *slot = mem_table_find_slot(table, addr);
			assert_int_equal(slot != NULL, expected != NULL);
			/* User addresses equal guest ones here: the range whole or not at all. */
			void *user = mem_table_translate_user(table, addr, len);
			assert_ptr_equal(user,
					 expected != NULL && expected_run == len ? expected : NULL);
		}
		mem_table_destroy(table);
		for (uint32_t i = 0; i < count; i++)
			mem_region_put(regions[i]);
	}
}

/* A range over two regions that adjoin in the guest but not here: two runs, and a hole ends it. */
static void test_runs(void **state)
{
	struct mem_region *regions[2] = {map(PAGE, 0, PAGE, 64 * PAGE),
					 map(2 * PAGE, 8 * PAGE, PAGE, 0)};
	struct mem_table *table;
	uint32_t hint = UINT32_MAX;
	uint64_t run = 0;

	assert_int_equal(mem_table_create(regions, 2, &table), 0);
	void *host = mem_translate(table, &hint, (gpa_t){PAGE + 100}, 2 * PAGE, &run);
	assert_ptr_equal(host, regions[0]->host + 100);
	assert_int_equal(run, PAGE - 100);
	host = mem_translate(table, &hint, (gpa_t){PAGE + 100 + run}, 2 * PAGE - run, &run);
	assert_ptr_equal(host, regions[1]->host);
	assert_int_equal(run, PAGE);
	assert_null(mem_translate(table, &hint, (gpa_t){3 * PAGE}, 100, &run));
	assert_null(mem_translate(table, &hint, (gpa_t){PAGE - 1}, 1, &run));
	/* User addresses never run on: a ring lies in one region. */
	assert_null(mem_table_translate_user(table, PAGE - 1, 2));
	assert_ptr_equal(mem_table_translate_user(table, PAGE - 1, 1), regions[0]->host + PAGE - 1);
	assert_null(mem_table_translate_user(table, PAGE, UINT64_MAX));
	mem_table_destroy(table);
	mem_region_put(regions[0]);
	mem_region_put(regions[1]);
}

static int setup(void **state)
{
	harness_seed();
	file_fd = fd_memfd_create("guest", FILE_BYTES, 0);
	return file_fd < 0;
}

static int teardown(void **state)
{
	fd_close(&file_fd);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map_refuses),
		cmocka_unit_test(test_map_refuses_fds),
		cmocka_unit_test(test_map_offsets),
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_overlaps),
		cmocka_unit_test(test_table_sizes),
		cmocka_unit_test(test_translation_against_model),
		cmocka_unit_test(test_runs),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
