/* SPDX-License-Identifier: Apache-2.0 */
/* Where the configuration comes from: the bdevs and the controllers of this process. Control
 * thread. */
#ifndef SLUICE_CONTROL_OBJECTS_H
#define SLUICE_CONTROL_OBJECTS_H

#include "control/config.h"

#define OBJECTS_BDEV "bdev"
#define OBJECTS_VHOST_BLK "vhost_blk"

extern const struct config_source object_sources[];
extern const size_t object_source_count;

#endif
