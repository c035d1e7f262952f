/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines to stderr, one write(2) a line, any thread. Nothing on the path of an I/O logs; a
 * line that a guest, a device or a client can provoke goes through a struct log_limit.
 */
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. Default LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
/* 0, or -EINVAL for a name other than error, warn, info, debug. */
int log_level_parse(const char *name, enum log_level *out);

void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Lets through a burst of LOG_LIMIT_BURST lines, then one a LOG_LIMIT_PERIOD_MS. Owned by one
 * thread; zero-initialised. */
#define LOG_LIMIT_BURST 5
#define LOG_LIMIT_PERIOD_MS 10000
struct log_limit {
	uint64_t window_start_ns;
	uint32_t line_count;
	uint32_t dropped_count;
};
/* True when a line may be written now. */
bool log_limit_pass(struct log_limit *limit);

#define log_limited(limit, level, ...)                \
	do {                                          \
		if (log_limit_pass(limit))            \
			log_line(level, __VA_ARGS__); \
	} while (0)

#endif
