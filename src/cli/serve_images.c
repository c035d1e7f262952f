/* SPDX-License-Identifier: Apache-2.0 */
/* Images of the command line: names, sockets, making the missing ones. Main thread. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "bdev/bdev.h"
#include "cli/cli.h"
#include "cli/serve.h"

_Static_assert(sizeof(((struct engine_image *)0)->name) == BDEV_NAME_MAX,
	       "an image's name is a bdev's");

/* Room for what makes a name unique. */
#define NAME_BASE_MAX (BDEV_NAME_MAX - 8)

static bool name_taken(const struct engine_image *images, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(images[i].name, name) == 0)
			return true;
	}
	return false;
}

/* The file's name with everything replaced that a bdev's name may not have. */
static void name_make(struct engine_image *images, size_t index)
{
	struct engine_image *image = &images[index];
	const char *slash = strrchr(image->path, '/');
	char base[NAME_BASE_MAX];
	char name[BDEV_NAME_MAX];

	snprintf(base, sizeof(base), "%s", slash != NULL ? slash + 1 : image->path);
	for (char *p = base; *p != '\0'; p++) {
		bool first = p == base;
		if (!isalnum((unsigned char)*p) && (first || strchr("._:-", *p) == NULL))
			*p = '_';
	}
	snprintf(name, sizeof(name), "%s", base);
	for (unsigned int i = 2; name_taken(images, index, name); i++)
		snprintf(name, sizeof(name), "%s-%u", base, i);
	memcpy(image->name, name, sizeof(image->name));
}

static int image_init(struct engine_image *images, size_t index, const char *path,
		      const char *socket_dir)
{
	struct engine_image *image = &images[index];
	int n;

	if (path[0] == '\0' || path[strlen(path) - 1] == '/')
		return cli_usage("\"%s\": is no name of an image", path);
	image->path = cli_absolute_path(path);
	if (image->path == NULL)
		return cli_usage("%s: %s", path, strerror(errno));
	name_make(images, index);
	if (socket_dir != NULL)
		n = asprintf(&image->socket_path, "%s/%s", socket_dir, image->name);
	else
		n = asprintf(&image->socket_path, "%s.sock", image->path);
	if (n < 0) {
		image->socket_path = NULL;
		return cli_usage("out of memory");
	}
	return 0;
}

int serve_images_init(struct engine_image *images, char **paths, size_t count,
		      const char *socket_dir)
{
	for (size_t i = 0; i < count; i++) {
		int rc = image_init(images, i, paths[i], socket_dir);
		if (rc != 0)
			return rc;
	}
	return 0;
}

void serve_images_fini(struct engine_image *images, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(images[i].path);
		free(images[i].socket_path);
	}
	free(images);
}

static int image_make(const char *path, uint64_t size_bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0)
		return errno == EEXIST ? 0 : -errno;
	if (ftruncate(fd, (off_t)size_bytes) < 0) {
		rc = -errno;
		(void)unlink(path);
	}
	fd_close(&fd);
	return rc;
}

int serve_images_make(const struct engine_image *images, size_t count, uint64_t size_bytes)
{
	for (size_t i = 0; i < count; i++) {
		int rc = image_make(images[i].path, size_bytes);
		if (rc < 0) {
			fprintf(stderr, "sluice: --create: %s: %s\n", images[i].path,
				strerror(-rc));
			return CLI_EXIT_FAILED;
		}
	}
	return 0;
}

int serve_make_dir(const char *path, unsigned int mode)
{
	char partial[PATH_MAX];
	struct stat st;

	if (snprintf(partial, sizeof(partial), "%s", path) >= (int)sizeof(partial))
		return -ENAMETOOLONG;
	for (char *slash = partial + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		if (mkdir(partial, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	if (mkdir(partial, mode) < 0 && errno != EEXIST)
		return -errno;
	if (stat(partial, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}
