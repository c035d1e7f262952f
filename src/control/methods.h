/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the method table, one a file, and what they share. Control thread. */
#ifndef SLUICE_CONTROL_METHODS_H
#define SLUICE_CONTROL_METHODS_H

#include <stddef.h>

#include "bdev/bdev.h"
#include "control/rpc.h"

struct rpc_method_list {
	const struct rpc_method *methods;
	size_t count;
};
extern const struct rpc_method_list methods_bdev_create;
extern const struct rpc_method_list methods_bdev_delete;
extern const struct rpc_method_list methods_bdev_resize;
extern const struct rpc_method_list methods_bdev;
extern const struct rpc_method_list methods_vhost;
extern const struct rpc_method_list methods_placement;
extern const struct rpc_method_list methods_framework;
extern const struct rpc_method_list methods_config;

#define RPC_PARAMS(table) .params = (table), .param_count = ARRAY_COUNT(table)

/* The name under which SPDK's tools know the kind of a bdev: "malloc", "uring", ... */
const char *bdev_kind(const struct bdev *bdev);
/* The bdev of that name and kind (NULL: any). NULL: an error was replied, which names the method
 * "bdev_KIND_verb" that would do. */
struct bdev *bdev_of_kind(struct rpc_request *request, const char *name, const char *kind,
			  const char *verb);

#endif
