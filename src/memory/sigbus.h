/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guards mappings of files that somebody else may truncate. Touching a page beyond the new end
 * raises SIGBUS; for a guarded mapping the handler puts zero pages there, raises a flag and lets
 * the access go on, so that one front-end's fault does not end the process. Any other SIGBUS is
 * fatal as usual.
 */
#ifndef SLUICE_MEMORY_SIGBUS_H
#define SLUICE_MEMORY_SIGBUS_H

#include <stdbool.h>
#include <stddef.h>

/* Installs the handler. Once, before the first guard. 0 or -errno. notify, called from the signal
 * handler after a fault was patched, must be async-signal-safe. */
int sigbus_init(void (*notify)(void));

/* Any thread. *faulted is set to true from the handler; base is the start of a mapping.
 * 0, or -ENOSPC when SIGBUS_GUARD_MAX mappings are guarded. */
#define SIGBUS_GUARD_MAX 65536
int sigbus_guard_add(void *base, size_t len_bytes, bool *faulted);
/* Any thread; before munmap. */
void sigbus_guard_remove(void *base);

#endif
