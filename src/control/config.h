/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: made anew from the live objects each time it is wanted, never from a log of
 * what was asked. Control thread.
 *
 * An entry that could not be carried out at start (its file is missing today) is kept, and stays
 * part of what is saved, until an object takes its name or somebody deletes it.
 */
#ifndef SLUICE_CONTROL_CONFIG_H
#define SLUICE_CONTROL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "base/list.h"
#include "reactor/worker.h"

/* Where the entries of one subsystem come from: an array of {"method", "params"}, in the order in
 * which they have to be carried out, without the object called skip (which may be NULL). */
struct config_source {
	const char *subsystem;
	json_t *(*generate)(const char *skip);
};

struct config {
	const struct config_source *sources;
	size_t source_count;
	char *path; /* NULL: nothing is kept on disk */
	struct list kept;
};

/* path may be NULL. 0 or -ENOMEM. */
int config_init(struct config *config, const struct config_source *sources, size_t source_count,
		const char *path);
void config_fini(struct config *config);

/* The whole configuration, without the object skip of a subsystem (both may be NULL). New
 * reference; NULL if there is no memory. */
json_t *config_generate(const struct config *config, const char *subsystem, const char *skip);

/* ---- what could not be carried out ------------------------------------------------------- */

struct config_kept {
	struct list link;
	char *subsystem;
	json_t *entry;
	char *error;
};
/* The name of the object that an entry makes; NULL if it has none. Borrowed from entry. */
const char *config_entry_name(const json_t *entry);
/* Keeps an entry (a reference of our own is taken), once. */
void config_keep(struct config *config, const char *subsystem, json_t *entry, const char *error);
bool config_is_kept(const struct config *config, const char *subsystem, const char *name);
void config_forget(struct config *config, const char *subsystem, const char *name);

/* ---- saving ------------------------------------------------------------------------------ */

struct config_save {
	struct worker_job job; /* config.c's own */
	const char *path;
	char *text;
	int rc;
	void (*done)(struct config_save *save, int rc);
};
/* Writes the configuration, without the object skip, on a worker. done is called on the control
 * reactor when it is on stable storage or has failed; at once when nothing is kept on disk. */
void config_save_start(struct config *config, const char *subsystem, const char *skip,
		       struct config_save *save);

#endif
