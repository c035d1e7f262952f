/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration on disk: locking its directory, reading it, replacing it. Any thread; all of
 * this may block. */
#ifndef SLUICE_CONTROL_CONFIG_FILE_H
#define SLUICE_CONTROL_CONFIG_FILE_H

#include <jansson.h>
#include <stddef.h>
#include <sys/types.h>

/* Takes the directory for this process: an fd to be kept open, or -errno; -EBUSY if another process
 * has it, whose pid is then in *holder (0: not known). */
int config_dir_lock(const char *dir, pid_t *holder);

/* Reads a configuration in SPDK's format and checks its shape: 0; -ENOENT; -EINVAL and others with
 * a sentence in error. The caller owns *out. */
int config_file_read(const char *path, json_t **out, char *error, size_t error_bytes);
/* 0, or -EINVAL with a sentence that says where root is no configuration. */
int config_check(const json_t *root, char *error, size_t error_bytes);

/* Replaces path by text: after 0 the new file is on stable storage, after -errno the old one is
 * still there. */
int config_file_write(const char *path, const char *text, size_t len);

#endif
