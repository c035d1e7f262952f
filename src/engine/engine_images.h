/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are served straight from the command line: a file bdev and a controller each. Control
 * thread. */
#ifndef SLUICE_ENGINE_ENGINE_IMAGES_H
#define SLUICE_ENGINE_ENGINE_IMAGES_H

#include "engine/engine.h"

/* Makes bdev and controller of every image, then calls done: with 0, or with -errno after a log
 * line (what was made so far stays, and ends with the engine). options must live until then. */
void engine_images_start(const struct engine_options *options, void (*done)(void *arg, int rc),
			 void *arg);

#endif
