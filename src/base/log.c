/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines and assertion failures. Any thread. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define LINE_MAX_BYTES 1024

static enum log_level current_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

void log_set_level(enum log_level level)
{
	store_relaxed(&current_level, level);
}

int log_level_parse(const char *name, enum log_level *out)
{
	for (size_t i = 0; i < ARRAY_COUNT(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	struct timespec now;
	struct tm tm;
	va_list args;

	if (level > load_relaxed(&current_level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	size_t len = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(line + len, sizeof(line) - len, ".%03ld %-5s ",
				now.tv_nsec / 1000000, level_names[level]);
	va_start(args, fmt);
	int n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, args);
	va_end(args);
	if (n > 0)
		len = MIN(len + (size_t)n, sizeof(line) - 2);
	/* A name chosen by a client must not be able to forge a line of its own. */
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)line[i] < 0x20)
			line[i] = '?';
	}
	line[len++] = '\n';
	ssize_t unused = write(STDERR_FILENO, line, len);
	(void)unused;
}

bool log_limit_pass(struct log_limit *limit)
{
	uint64_t now_ns = clock_ns();

	if (now_ns - limit->window_start_ns > LOG_LIMIT_PERIOD_MS * 1000000ull) {
		if (limit->dropped_count > 0)
			log_warn("(%u similar lines were not written)", limit->dropped_count);
		limit->window_start_ns = now_ns;
		limit->line_count = 0;
		limit->dropped_count = 0;
	}
	if (limit->line_count < LOG_LIMIT_BURST) {
		limit->line_count++;
		return true;
	}
	limit->dropped_count++;
	return false;
}

void assert_failed(const char *expr, const char *file, int line, const char *func)
{
	log_error("assertion failed: %s, in %s() at %s:%d", expr, func, file, line);
	abort();
}
