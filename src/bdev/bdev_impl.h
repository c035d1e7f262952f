/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the block device layer, for the files of this folder. Control thread. */
#ifndef SLUICE_BDEV_BDEV_IMPL_H
#define SLUICE_BDEV_BDEV_IMPL_H

#include "bdev/bdev.h"

/* Lets go of the storage of a bdev that nobody knows any more, on a worker if that may block, and
 * frees it; then calls done. */
void bdev_release(struct bdev *bdev, void (*done)(void *arg), void *arg);
/* Releases under way. */
unsigned int bdev_release_count(void);
/* After a release has ended: tells who waits for all changes to have ended. */
void bdev_changes_check(void);

#endif
