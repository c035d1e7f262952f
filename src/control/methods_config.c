/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods of the configuration as a whole. Control thread. */
#include <errno.h>
#include <string.h>

#include "control/change.h"
#include "control/config_file.h"
#include "control/config_load.h"
#include "control/control.h"
#include "control/methods.h"
#include "control/objects.h"

/* ---- looking ----------------------------------------------------------------------------- */

static void save_config(struct rpc_request *request, const void *args)
{
	rpc_reply(request, config_generate(&request->control->config, NULL, NULL));
}

static void get_subsystems(struct rpc_request *request, const void *args)
{
	rpc_reply(request,
		  json_pack("[{s:s, s:[]}, {s:s, s:[s]}]", "subsystem", OBJECTS_BDEV, "depends_on",
			    "subsystem", OBJECTS_VHOST_BLK, "depends_on", OBJECTS_BDEV));
}

struct get_config_args {
	const char *name;
};

static void get_config(struct rpc_request *request, const void *args)
{
	const char *name = ((const struct get_config_args *)args)->name;
	json_t *root = config_generate(&request->control->config, NULL, NULL);
	json_t *found = NULL;
	size_t i;
	json_t *subsystem;

	json_array_foreach (json_object_get(root, "subsystems"), i, subsystem) {
		if (strcmp(json_string_value(json_object_get(subsystem, "subsystem")), name) == 0)
			found = json_incref(json_object_get(subsystem, "config"));
	}
	json_decref(root);
	if (found != NULL)
		rpc_reply(request, found);
	else
		rpc_reply_error(request, -ENOENT, "name: there is no subsystem %s", name);
}

static const struct rpc_param get_config_params[] = {
	{.name = "name",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct get_config_args, name),
	 .min = 1,
	 .max = 64,
	 .help = "Name of the subsystem."},
};

/* How long all the files of a configuration together may take to open. */
#define OPEN_PATIENCE_MS 10000

/* ---- load_config ------------------------------------------------------------------------- */

struct load_config_args {
	const json_t *subsystems;
};

static void loaded_saved(struct rpc_request *request, const char *name, int rc)
{
	if (rc < 0)
		rpc_reply_error(request, rc,
				"the configuration is in effect but could not be saved: %s",
				strerror(-rc));
	else
		rpc_reply(request, json_true());
}

static void partly_saved(struct rpc_request *request, const char *name, int rc)
{
	rpc_reply_error(request, request->note, "%s", name);
}

static void load_done(void *arg, const struct config_load_result *result)
{
	struct rpc_request *request = arg;

	request->note = result->first_code;
	if (result->failed_count == 0)
		change_save(request, CHANGE_ADDED, "", "", loaded_saved);
	else
		change_save(request, CHANGE_ADDED, "", result->first_error, partly_saved);
}

static void load_root(struct rpc_request *request, json_t *root, bool keep_failed,
		      void (*done)(void *arg, const struct config_load_result *result))
{
	const struct config_load_options options = {
		.control = request->control,
		.root = root,
		.origin = request->method->name,
		.keep_failed = keep_failed,
		.open_patience_ms = OPEN_PATIENCE_MS,
		.done = done,
		.arg = request,
	};

	if (config_load_start(&options) < 0)
		rpc_reply_error(request, -ENOMEM, "out of memory");
	json_decref(root);
}

static void load_config(struct rpc_request *request, const void *args)
{
	char error[RPC_ERROR_BYTES];

	if (request->origin == RPC_ORIGIN_CONFIG) {
		rpc_reply_error(request, -EINVAL, "a configuration cannot load another one");
		return;
	}
	if (config_check(request->params, error, sizeof(error)) < 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS, "%s", error);
		return;
	}
	load_root(request, json_incref(request->params), false, load_done);
}

static const struct rpc_param load_config_params[] = {
	{.name = "subsystems",
	 .type = RPC_TYPE_ARRAY,
	 .required = true,
	 .offset = offsetof(struct load_config_args, subsystems),
	 .help = "As save_config shows it."},
};

/* ---- sluice_retry_config ----------------------------------------------------------------- */

static void retried_saved(struct rpc_request *request, const char *name, int rc)
{
	if (rc < 0)
		rpc_reply_error(request, rc,
				"what was restored is in effect but could not be saved: %s",
				strerror(-rc));
	else
		rpc_reply(request, json_pack("{s:i}", "failed", request->note));
}

static void retry_done(void *arg, const struct config_load_result *result)
{
	struct rpc_request *request = arg;

	request->note = (int)result->failed_count;
	change_save(request, CHANGE_ADDED, "", "", retried_saved);
}

static void retry_config(struct rpc_request *request, const void *args)
{
	json_t *subsystems = json_array();

	list_for_each (node, &request->control->config.kept) {
		const struct config_kept *kept = list_entry(node, struct config_kept, link);
		json_array_append_new(subsystems,
				      json_pack("{s:s, s:[O]}", "subsystem", kept->subsystem,
						"config", kept->entry));
	}
	load_root(request, json_pack("{s:o}", "subsystems", subsystems), true, retry_done);
}

/* ---- table ------------------------------------------------------------------------------- */

static const struct rpc_method methods[] = {
	{.name = "save_config",
	 .help = "Shows the whole configuration. (It is on disk already, if there is a state "
		 "directory.)",
	 .result = "An object {\"subsystems\": [...]} in SPDK's format.",
	 .handler = save_config},
	{.name = "load_config",
	 .help = "Carries out a configuration in SPDK's format on top of what there is. Entries "
		 "that only tune SPDK are passed over. If entries fail, the others are carried "
		 "out all the same, and the error is that of the first one.",
	 .result = "true",
	 RPC_PARAMS(load_config_params),
	 .args_bytes = sizeof(struct load_config_args),
	 .changes = true,
	 .handler = load_config},
	{.name = "sluice_retry_config",
	 .help = "Tries the entries of the configuration again that could not be carried out at "
		 "start, such as disks whose file was missing.",
	 .result = "An object with the count of entries that failed again.",
	 .changes = true,
	 .handler = retry_config},
	{.name = "framework_get_subsystems",
	 .help = "Shows the subsystems that have a configuration, in the order of loading.",
	 .result = "An array of objects with subsystem and depends_on.",
	 .handler = get_subsystems},
	{.name = "framework_get_config",
	 .help = "Shows the configuration of one subsystem.",
	 .result = "An array of objects with method and params.",
	 RPC_PARAMS(get_config_params),
	 .args_bytes = sizeof(struct get_config_args),
	 .handler = get_config},
};

const struct rpc_method_list methods_config = {methods, ARRAY_COUNT(methods)};
