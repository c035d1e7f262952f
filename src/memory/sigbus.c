/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SIGBUS handler and its table of guarded mappings. The table is a fixed array that the
 * handler reads without locks; writers take a mutex and publish the base last.
 */
#include "memory/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/compiler.h"

struct guard {
	uintptr_t base; /* 0: free */
	size_t len_bytes;
	bool *faulted;
};

static struct guard guards[SIGBUS_GUARD_MAX];
static unsigned int guard_high; /* entries ever used */
static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*fault_notify)(void);

static struct guard *find_guard(uintptr_t addr)
{
	unsigned int high = load_acquire(&guard_high);

	for (unsigned int i = 0; i < high; i++) {
		uintptr_t base = load_acquire(&guards[i].base);
		if (base != 0 && addr >= base && addr - base < load_relaxed(&guards[i].len_bytes))
			return &guards[i];
	}
	return NULL;
}

static void die_by_default(int signo, const siginfo_t *info)
{
	struct sigaction action = {.sa_handler = SIG_DFL};

	/* Returning runs the instruction again, which now kills the process with a core. */
	sigaction(signo, &action, NULL);
	/* One that was sent has no such instruction; it comes again when we return. */
	if (info->si_code <= 0)
		raise(signo);
}

/* Puts zero pages from the faulting page to the end: one fault a mapping, not one a page. A
 * mapping of huge pages can only be cut at one of theirs, hence the sizes tried. */
static bool patch_over(const struct guard *guard, uintptr_t addr)
{
	static const uintptr_t page_bytes[] = {4096, 65536, 2u << 20, 1u << 30};
	uintptr_t end = guard->base + guard->len_bytes;

	for (size_t i = 0; i < ARRAY_COUNT(page_bytes); i++) {
		uintptr_t start = MAX(addr & ~(page_bytes[i] - 1), guard->base);
		if (mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			 0) != MAP_FAILED)
			return true;
	}
	return false;
}

static void on_sigbus(int signo, siginfo_t *info, void *context)
{
	int saved_errno = errno;
	uintptr_t addr = (uintptr_t)info->si_addr;
	struct guard *guard = info->si_code == BUS_ADRERR ? find_guard(addr) : NULL;

	(void)context;
	if (guard == NULL || !patch_over(guard, addr)) {
		die_by_default(signo, info);
		return;
	}
	store_relaxed(guard->faulted, true);
	if (fault_notify != NULL)
		fault_notify();
	errno = saved_errno;
}

int sigbus_init(void (*notify)(void))
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	fault_notify = notify;
	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

int sigbus_guard_add(void *base, size_t len_bytes, bool *faulted)
{
	int rc = -ENOSPC;

	pthread_mutex_lock(&guard_lock);
	for (unsigned int i = 0; i < SIGBUS_GUARD_MAX; i++) {
		if (guards[i].base != 0)
			continue;
		guards[i].faulted = faulted;
		store_relaxed(&guards[i].len_bytes, len_bytes);
		store_release(&guards[i].base, (uintptr_t)base);
		if (i >= guard_high)
			store_release(&guard_high, i + 1);
		rc = 0;
		break;
	}
	pthread_mutex_unlock(&guard_lock);
	return rc;
}

void sigbus_guard_remove(void *base)
{
	pthread_mutex_lock(&guard_lock);
	for (unsigned int i = 0; i < guard_high; i++) {
		if (guards[i].base == (uintptr_t)base) {
			store_release(&guards[i].base, 0);
			break;
		}
	}
	pthread_mutex_unlock(&guard_lock);
}
