/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `sluice serve`: images of the command line, and what to tell the VMM. Main thread.
 */
#ifndef SLUICE_CLI_SERVE_H
#define SLUICE_CLI_SERVE_H

#include "engine/engine.h"

/* Fills an image for each path: absolute paths, a name made of the file's, unique, and a socket
 * beside the file, or in socket_dir if that is not NULL. 0, or a cli_exit with a message printed.
 */
int serve_images_init(struct engine_image *images, char **paths, size_t count,
		      const char *socket_dir);
void serve_images_fini(struct engine_image *images, size_t count);
/* Makes those that are missing, sparse, of size_bytes. 0, or a cli_exit with a message printed. */
int serve_images_make(const struct engine_image *images, size_t count, uint64_t size_bytes);

/* Makes a directory and what is missing above it. 0 or -errno. */
int serve_make_dir(const char *path, unsigned int mode);

/* Arguments for QEMU and libvirt on standard output. */
void serve_hint_print(const struct engine_options *options);

#endif
