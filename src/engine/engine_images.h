/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are served straight from the command line: a file bdev and a controller each. Control
 * thread. */
#ifndef SLUICE_ENGINE_ENGINE_IMAGES_H
#define SLUICE_ENGINE_ENGINE_IMAGES_H

#include "engine/engine.h"

/* Makes bdev and controller of every image: 0, or -errno with a log line (what was made so far
 * stays, and ends with the engine). */
int engine_images_create(const struct engine_options *options);

#endif
