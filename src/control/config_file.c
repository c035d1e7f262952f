/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration on disk. Any thread; blocks. */
#include "control/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fd.h"

/* ---- the lock ---------------------------------------------------------------------------- */

static pid_t holder_read(int fd)
{
	char text[24] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

int config_dir_lock(const char *dir, pid_t *holder)
{
	char path[PATH_MAX];
	char text[24];
	int rc;

	*holder = 0;
	if (snprintf(path, sizeof(path), "%s/lock", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		*holder = holder_read(fd);
		fd_close(&fd);
		return rc;
	}
	/* For people and for the message of the next one who tries; the lock itself is the flock.
	 */
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len) {
		rc = errno != 0 ? -errno : -EIO;
		fd_close(&fd);
		return rc;
	}
	return fd;
}

/* ---- reading ----------------------------------------------------------------------------- */

static int entry_check(const json_t *entry, const char *subsystem, size_t index, char *error,
		       size_t error_bytes)
{
	const json_t *params = json_object_get(entry, "params");

	if (json_is_string(json_object_get(entry, "method")) &&
	    (params == NULL || json_is_null(params) || json_is_object(params)))
		return 0;
	snprintf(error, error_bytes,
		 "entry %zu of subsystem \"%.64s\" must be an object with a string \"method\" and "
		 "an "
		 "object \"params\"",
		 index, subsystem);
	return -EINVAL;
}

static int subsystem_check(const json_t *subsystem, size_t index, char *error, size_t error_bytes)
{
	const char *name = json_string_value(json_object_get(subsystem, "subsystem"));
	const json_t *config = json_object_get(subsystem, "config");
	size_t i;
	json_t *entry;

	if (name == NULL || !(config == NULL || json_is_null(config) || json_is_array(config))) {
		snprintf(error, error_bytes,
			 "subsystems: entry %zu must be an object with a string \"subsystem\" and "
			 "an "
			 "array \"config\"",
			 index);
		return -EINVAL;
	}
	json_array_foreach (config, i, entry) {
		int rc = entry_check(entry, name, i, error, error_bytes);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int config_check(const json_t *root, char *error, size_t error_bytes)
{
	const json_t *subsystems = json_object_get(root, "subsystems");
	size_t i;
	json_t *subsystem;

	if (!json_is_array(subsystems)) {
		snprintf(error, error_bytes, "there is no array \"subsystems\"");
		return -EINVAL;
	}
	json_array_foreach (subsystems, i, subsystem) {
		int rc = subsystem_check(subsystem, i, error, error_bytes);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int config_file_read(const char *path, json_t **out, char *error, size_t error_bytes)
{
	json_error_t json_error;
	char what[200];
	FILE *file = fopen(path, "re");

	if (file == NULL) {
		int rc = -errno;
		snprintf(error, error_bytes, "%s: %s", path, strerror(-rc));
		return rc;
	}
	json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &json_error);
	fclose(file);
	if (root == NULL) {
		snprintf(error, error_bytes, "%s is not valid JSON: line %d, column %d: %s", path,
			 json_error.line, json_error.column, json_error.text);
		return -EINVAL;
	}
	int rc = config_check(root, what, sizeof(what));
	if (rc < 0) {
		snprintf(error, error_bytes, "%s is not a configuration: %s", path, what);
		json_decref(root);
		return rc;
	}
	*out = root;
	return 0;
}

/* ---- writing ----------------------------------------------------------------------------- */

static int write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int temporary_write(const char *path, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	int rc = write_all(fd, text, len);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	/* Some file systems report a lost write only here. */
	if (close(fd) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

static int directory_sync(const char *path)
{
	char dir[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int rc = 0;

	if (slash == NULL)
		snprintf(dir, sizeof(dir), ".");
	else
		snprintf(dir, sizeof(dir), "%.*s", MAX((int)(slash - path), 1), path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		rc = -errno;
	fd_close(&fd);
	return rc;
}

int config_file_write(const char *path, const char *text, size_t len)
{
	char temporary[PATH_MAX];

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	int rc = temporary_write(temporary, text, len);
	if (rc == 0 && rename(temporary, path) < 0)
		rc = -errno;
	if (rc < 0) {
		(void)unlink(temporary);
		return rc;
	}
	return directory_sync(path);
}
