/* SPDX-License-Identifier: Apache-2.0 */
/* The SIGBUS guard: a file truncated under its mapping costs its region, not the process; any other
 * SIGBUS still ends it. */
#include <errno.h>
#include <linux/memfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "memory/guest_memory.h"
#include "memory/sigbus.h"

#define PAGE 4096ull
#define PAGES 16u

static unsigned int notices;

static void notice(void)
{
	counter_add(&notices, 1);
}

/* In each test: cmocka catches SIGBUS itself while one runs. */
static void install(void)
{
	assert_int_equal(sigbus_init(notice), 0);
}

/* Not fd_memfd_create(): that one seals against what is done here. */
static int shrinkable(unsigned int flags, uint64_t bytes)
{
	int fd = memfd_create("shrinkable", MFD_CLOEXEC | flags);

	if (fd >= 0 && ftruncate(fd, (off_t)bytes) < 0)
		fd_close(&fd);
	return fd;
}

static struct mem_region *map(int fd, uint64_t guest, uint64_t bytes)
{
	struct mem_region_desc desc = {
		.guest_addr = {guest},
		.user_addr = guest,
		.size_bytes = bytes,
	};
	struct mem_region *region = NULL;

	assert_int_equal(mem_region_map(fd, &desc, &region), 0);
	return region;
}

static void test_truncated(void **state)
{
	int fd = shrinkable(0, PAGES * PAGE);
	int other_fd = shrinkable(0, PAGES * PAGE);
	struct mem_region *regions[2] = {map(fd, 0, PAGES * PAGE),
					 map(other_fd, 1 << 20, PAGES * PAGE)};
	struct mem_table *table;
	unsigned int before = load_relaxed(&notices);

	install();
	assert_int_equal(mem_table_create(regions, 2, &table), 0);
	memset(regions[0]->host, 0x11, PAGES * PAGE);
	memset(regions[1]->host, 0x22, PAGES * PAGE);
	assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
	/* What is left of the file is still the file's. */
	assert_int_equal(regions[0]->host[4 * PAGE - 1], 0x11);
	assert_false(mem_table_faulted(table));
	/* A write far behind the end goes through; one fault covers all behind it. */
	volatile uint8_t *host = regions[0]->host;
	host[10 * PAGE + 5] = 0x33;
	assert_int_equal(host[10 * PAGE + 5], 0x33);
	assert_int_equal(host[PAGES * PAGE - 1], 0);
	assert_int_equal(load_relaxed(&notices), before + 1);
	assert_true(load_relaxed(&regions[0]->faulted));
	assert_true(mem_table_faulted(table));
	/* A read before it: another fault. What was written meanwhile need not be kept. */
	assert_int_equal(host[4 * PAGE], 0);
	assert_int_equal(load_relaxed(&notices), before + 2);
	assert_int_equal(host[0], 0x11);
	assert_false(load_relaxed(&regions[1]->faulted));
	for (uint64_t i = 0; i < PAGES * PAGE; i++)
		assert_int_equal(regions[1]->host[i], 0x22);
	mem_table_destroy(table);
	mem_region_put(regions[0]);
	/* The guard went with the region; the other one's still holds. */
	assert_int_equal(ftruncate(other_fd, 0), 0);
	assert_int_equal(*(volatile uint8_t *)regions[1]->host, 0);
	assert_true(load_relaxed(&regions[1]->faulted));
	mem_region_put(regions[1]);
	close(fd);
	close(other_fd);
}

/* errno of the interrupted code must survive the handler. */
static void test_errno_kept(void **state)
{
	int fd = shrinkable(0, PAGE);
	struct mem_region *region = map(fd, 0, PAGE);

	install();
	assert_int_equal(ftruncate(fd, 0), 0);
	errno = ENOTTY;
	assert_int_equal(*(volatile uint8_t *)region->host, 0);
	assert_int_equal(errno, ENOTTY);
	mem_region_put(region);
	close(fd);
}

/* A huge page of the pool that is not there raises SIGBUS as well, and can only be replaced whole.
 */
static void test_hugetlb(void **state)
{
	const uint64_t huge = 2u << 20;
	int fd = shrinkable(MFD_HUGETLB | MFD_HUGE_2MB, 2 * huge);
	struct mem_region_desc desc = {.size_bytes = 2 * huge};
	struct mem_region *region;

	if (fd < 0 || mem_region_map(fd, &desc, &region) < 0) {
		printf("# NOT TESTED: no mappings of 2 MiB pages on this machine\n");
		fd_close(&fd);
		return;
	}
	install();
	memset(region->host, 0x44, 2 * huge);
	if (load_relaxed(&region->faulted)) {
		printf("# tested: an empty pool of huge pages; NOT TESTED: one truncated\n");
		assert_int_equal(region->host[0], 0x44);
		assert_int_equal(region->host[2 * huge - 1], 0x44);
	} else {
		assert_int_equal(ftruncate(fd, (off_t)huge), 0);
		volatile uint8_t *host = region->host;
		assert_int_equal(host[huge + 12345], 0);
		host[2 * huge - 1] = 1;
		assert_true(load_relaxed(&region->faulted));
		assert_int_equal(host[huge - 1], 0x44);
	}
	mem_region_put(region);
	fd_close(&fd);
}

/* ---- what must still kill ----------------------------------------------------------------- */

static void touch_unguarded(void)
{
	int fd = shrinkable(0, PAGE);
	volatile uint8_t *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (ftruncate(fd, 0) == 0)
		base[0] = 1;
}

/* The guard is removed before the mapping is touched. */
static void touch_once_guarded(void)
{
	int fd = shrinkable(0, PAGE);
	volatile uint8_t *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	bool faulted = false;

	if (sigbus_guard_add((void *)base, PAGE, &faulted) < 0)
		return;
	sigbus_guard_remove((void *)base);
	if (ftruncate(fd, 0) == 0)
		base[0] = 1;
}

static void sent_to_process(void)
{
	kill(getpid(), SIGBUS);
}

static void sent_to_thread(void)
{
	raise(SIGBUS);
}

static int death_of(void (*fn)(void))
{
	int status;

	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit no_core = {0, 0};
		setrlimit(RLIMIT_CORE, &no_core);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_others_kill(void **state)
{
	install();
	assert_int_equal(death_of(touch_unguarded), SIGBUS);
	assert_int_equal(death_of(touch_once_guarded), SIGBUS);
	assert_int_equal(death_of(sent_to_process), SIGBUS);
	assert_int_equal(death_of(sent_to_thread), SIGBUS);
}

/* ---- the table of guards ------------------------------------------------------------------ */

#define SOME_GUARDS 2000u

static void test_guards_are_reused(void **state)
{
	static bool faulted[SOME_GUARDS];
	static uint8_t bases[SOME_GUARDS];

	for (unsigned int i = 0; i < SOME_GUARDS; i++)
		assert_int_equal(sigbus_guard_add(&bases[i], 1, &faulted[i]), 0);
	for (unsigned int round = 0; round < 50; round++) {
		for (unsigned int i = round % 7; i < SOME_GUARDS; i += 97)
			sigbus_guard_remove(&bases[i]);
		for (unsigned int i = round % 7; i < SOME_GUARDS; i += 97)
			assert_int_equal(sigbus_guard_add(&bases[i], 1, &faulted[i]), 0);
	}
	/* Removing what is not there is harmless. */
	for (unsigned int i = 0; i < SOME_GUARDS; i++) {
		sigbus_guard_remove(&bases[i]);
		sigbus_guard_remove(&bases[i]);
		assert_false(faulted[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated),         cmocka_unit_test(test_errno_kept),
		cmocka_unit_test(test_hugetlb),           cmocka_unit_test(test_others_kill),
		cmocka_unit_test(test_guards_are_reused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
