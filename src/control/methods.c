/* SPDX-License-Identifier: Apache-2.0 */
/* The method table: looking up and walking. Fixed data, any thread. */
#include "control/methods.h"

#include <string.h>

static const struct rpc_method_list *const lists[] = {
	&methods_bdev_create, &methods_bdev_resize, &methods_bdev_delete, &methods_bdev,
	&methods_vhost,       &methods_placement,   &methods_framework,   &methods_config,
};

const struct rpc_method *rpc_method_next(const struct rpc_method *method)
{
	for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
		const struct rpc_method *first = lists[i]->methods;
		const struct rpc_method *end = first + lists[i]->count;
		if (method == NULL)
			return first;
		if (method < first || method >= end)
			continue;
		if (method + 1 < end)
			return method + 1;
		return i + 1 < ARRAY_COUNT(lists) ? lists[i + 1]->methods : NULL;
	}
	return NULL;
}

const struct rpc_method *rpc_method_find(const char *name)
{
	const struct rpc_method *method = NULL;

	while ((method = rpc_method_next(method)) != NULL) {
		if (strcmp(method->name, name) == 0 ||
		    (method->alias != NULL && strcmp(method->alias, name) == 0))
			return method;
	}
	return NULL;
}
