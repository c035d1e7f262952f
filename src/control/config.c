/* SPDX-License-Identifier: Apache-2.0 */
/* Generating, keeping and saving the configuration. Control thread. */
#include "control/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/config_file.h"

int config_init(struct config *config, const struct config_source *sources, size_t source_count,
		const char *path)
{
	memset(config, 0, sizeof(*config));
	list_init(&config->kept);
	config->sources = sources;
	config->source_count = source_count;
	if (path != NULL && (config->path = strdup(path)) == NULL)
		return -ENOMEM;
	return 0;
}

static void kept_free(struct config_kept *kept)
{
	list_remove(&kept->link);
	json_decref(kept->entry);
	free(kept->subsystem);
	free(kept->error);
	free(kept);
}

void config_fini(struct config *config)
{
	list_for_each_safe (node, &config->kept)
		kept_free(list_entry(node, struct config_kept, link));
	free(config->path);
}

/* ---- kept entries ------------------------------------------------------------------------ */

const char *config_entry_name(const json_t *entry)
{
	const json_t *params = json_object_get(entry, "params");
	const char *name = json_string_value(json_object_get(params, "name"));

	return name != NULL ? name : json_string_value(json_object_get(params, "ctrlr"));
}

static bool kept_matches(const struct config_kept *kept, const char *subsystem, const char *name)
{
	const char *kept_name = config_entry_name(kept->entry);

	return subsystem != NULL && name != NULL && kept_name != NULL &&
	       strcmp(kept->subsystem, subsystem) == 0 && strcmp(kept_name, name) == 0;
}

static void kept_set_error(struct config_kept *kept, const char *error)
{
	char *copy = strdup(error);

	if (copy == NULL)
		return;
	free(kept->error);
	kept->error = copy;
}

void config_keep(struct config *config, const char *subsystem, json_t *entry, const char *error)
{
	list_for_each (node, &config->kept) {
		struct config_kept *kept = list_entry(node, struct config_kept, link);
		if (strcmp(kept->subsystem, subsystem) == 0 && json_equal(kept->entry, entry)) {
			kept_set_error(kept, error);
			return;
		}
	}
	struct config_kept *kept = calloc(1, sizeof(*kept));
	if (kept == NULL || (kept->subsystem = strdup(subsystem)) == NULL) {
		free(kept);
		log_error("no memory to keep an entry of the configuration");
		return;
	}
	kept->entry = json_incref(entry);
	kept_set_error(kept, error);
	list_add_tail(&config->kept, &kept->link);
}

bool config_is_kept(const struct config *config, const char *subsystem, const char *name)
{
	list_for_each (node, &config->kept) {
		if (kept_matches(list_entry(node, struct config_kept, link), subsystem, name))
			return true;
	}
	return false;
}

void config_forget(struct config *config, const char *subsystem, const char *name)
{
	list_for_each_safe (node, &config->kept) {
		struct config_kept *kept = list_entry(node, struct config_kept, link);
		if (kept_matches(kept, subsystem, name))
			kept_free(kept);
	}
}

/* ---- generating -------------------------------------------------------------------------- */

/* The array of entries of a subsystem; made if it is not there yet. Borrowed. */
static json_t *entries_of(json_t *subsystems, const char *name)
{
	size_t i;
	json_t *subsystem;

	json_array_foreach (subsystems, i, subsystem) {
		if (strcmp(json_string_value(json_object_get(subsystem, "subsystem")), name) == 0)
			return json_object_get(subsystem, "config");
	}
	json_t *entries = json_array();
	json_array_append_new(subsystems,
			      json_pack("{s:s, s:o}", "subsystem", name, "config", entries));
	return entries;
}

static bool entries_have(const json_t *entries, const char *name)
{
	size_t i;
	json_t *entry;

	json_array_foreach (entries, i, entry) {
		const char *entry_name = config_entry_name(entry);
		if (name != NULL && entry_name != NULL && strcmp(name, entry_name) == 0)
			return true;
	}
	return false;
}

static void generate_kept(const struct config *config, json_t *subsystems, const char *subsystem,
			  const char *skip)
{
	list_for_each (node, &config->kept) {
		struct config_kept *kept = list_entry(node, struct config_kept, link);
		json_t *entries = entries_of(subsystems, kept->subsystem);
		/* An object that took the name has taken the entry's place. */
		if (!kept_matches(kept, subsystem, skip) &&
		    !entries_have(entries, config_entry_name(kept->entry)))
			json_array_append(entries, kept->entry);
	}
}

json_t *config_generate(const struct config *config, const char *subsystem, const char *skip)
{
	json_t *root = json_pack("{s:[]}", "subsystems");
	json_t *subsystems = json_object_get(root, "subsystems");

	for (size_t i = 0; i < config->source_count; i++) {
		const struct config_source *source = &config->sources[i];
		bool skips = subsystem != NULL && strcmp(subsystem, source->subsystem) == 0;
		json_t *entries = source->generate(skips ? skip : NULL);
		json_t *object =
			json_pack("{s:s, s:o}", "subsystem", source->subsystem, "config", entries);
		if (object == NULL || json_array_append_new(subsystems, object) < 0) {
			json_decref(root);
			return NULL;
		}
	}
	generate_kept(config, subsystems, subsystem, skip);
	return root;
}

/* ---- saving ------------------------------------------------------------------------------ */

static void save_run(struct worker_job *job)
{
	struct config_save *save = container_of(job, struct config_save, job);

	save->rc = config_file_write(save->path, save->text, strlen(save->text));
}

static void save_done(struct worker_job *job)
{
	struct config_save *save = container_of(job, struct config_save, job);

	free(save->text);
	save->text = NULL;
	save->done(save, save->rc);
}

void config_save_start(struct config *config, const char *subsystem, const char *skip,
		       struct config_save *save)
{
	if (config->path == NULL) {
		save->done(save, 0);
		return;
	}
	json_t *root = config_generate(config, subsystem, skip);
	save->text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (save->text == NULL) {
		save->done(save, -ENOMEM);
		return;
	}
	save->path = config->path;
	save->job.run = save_run;
	save->job.done = save_done;
	worker_submit(&save->job);
}
