/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assertions that stay on in release builds. They state what only a bug of ours can break: bytes
 * of a guest, a device or a client are checked and answered with an error, never asserted.
 */
#ifndef SLUICE_BASE_ASSERT_H
#define SLUICE_BASE_ASSERT_H

#include "base/compiler.h"

__attribute__((noreturn, cold)) void assert_failed(const char *expr, const char *file, int line,
						   const char *func);

#define ensure(expr)                                                        \
	do {                                                                \
		if (unlikely(!(expr)))                                      \
			assert_failed(#expr, __FILE__, __LINE__, __func__); \
	} while (0)

#endif
