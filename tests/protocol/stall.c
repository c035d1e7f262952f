/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD under tests: open() and close() of files called *.slow hang for as long as the
 * file $STALL_WHILE exists, as they would on a network mount that is dead. Passed on to the next
 * library, not to the kernel: ThreadSanitizer must hear of fds that come and go.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void stall(const char *path)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	const char *gate = getenv("STALL_WHILE");
	size_t len = strlen(path);

	if (gate == NULL || len < 5 || strcmp(path + len - 5, ".slow") != 0)
		return;
	while (access(gate, F_OK) == 0)
		nanosleep(&pause, NULL);
}

int open(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = va_arg(args, mode_t);
	va_end(args);
	stall(path);
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	return next(path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int close(int fd)
{
	char link[64], path[4096];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	if (n > 0) {
		path[n] = '\0';
		stall(path);
	}
	int (*next)(int) = dlsym(RTLD_NEXT, "close");
	return next(fd);
}
