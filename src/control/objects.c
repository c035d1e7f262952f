/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration entries of the live bdevs and controllers. Control thread. */
#include "control/objects.h"

#include <string.h>

#include "base/compiler.h"
#include "bdev/bdev.h"
#include "control/controllers.h"
#include "control/rpc_param.h"
#include "vhost/vhost.h"

static int entry_append(json_t *entries, const char *method, json_t *params)
{
	json_t *entry = json_pack("{s:s, s:o}", "method", method, "params", params);

	return entry == NULL ? -1 : json_array_append_new(entries, entry);
}

static bool skipped(const char *name, const char *skip)
{
	return skip != NULL && strcmp(name, skip) == 0;
}

static int bdev_append(json_t *entries, const struct bdev *bdev)
{
	char uuid[RPC_UUID_TEXT_BYTES + 1];
	const char *method;
	json_t *params = json_object();
	json_t *rest = bdev->ops->config(bdev, &method);

	uuid_unparse_lower(bdev->uuid, uuid);
	json_object_set_new(params, "name", json_string(bdev->name));
	json_object_update(params, rest);
	json_object_set_new(params, "uuid", json_string(uuid));
	json_decref(rest);
	return entry_append(entries, method, params);
}

static json_t *bdevs_generate(const char *skip)
{
	json_t *entries = json_array();

	for (struct bdev *b = bdev_next(NULL); b != NULL; b = bdev_next(b)) {
		if (!b->removing && !skipped(b->name, skip) && bdev_append(entries, b) < 0) {
			json_decref(entries);
			return NULL;
		}
	}
	return entries;
}

static json_t *controllers_generate(const char *skip)
{
	struct vhost_controller *c = NULL;
	json_t *entries = json_array();

	while ((c = vhost_controller_next(c)) != NULL) {
		const char *method;
		const char *name = vhost_controller_name(c);
		if (skipped(name, skip) || controllers_deleting(name) ||
		    vhost_controller_is_orphan(c))
			continue;
		json_t *params = vhost_controller_config(c, &method);
		if (entry_append(entries, method, params) < 0) {
			json_decref(entries);
			return NULL;
		}
	}
	return entries;
}

const struct config_source object_sources[] = {
	{OBJECTS_BDEV, bdevs_generate},
	{OBJECTS_VHOST_BLK, controllers_generate},
};
const size_t object_source_count = ARRAY_COUNT(object_sources);
