/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs that are one RPC each: `sluice bdev list` and the like. Fixed data. */
#ifndef SLUICE_CLI_VERBS_H
#define SLUICE_CLI_VERBS_H

#include "cli/table.h"

#define VERB_POSITIONAL_MAX 3

struct verb {
	const char *words;  /* "bdev create null" */
	const char *method; /* options come from its parameters */
	const char *help;
	/* Parameters given by position; those of [0, required_count) have to be. */
	const char *positionals[VERB_POSITIONAL_MAX + 1];
	size_t required_count;
	/* How the result is shown: a table of the array rows_key (NULL: the result itself), or,
	 * without columns, plainly. */
	const char *rows_key;
	const struct table_column *columns;
	size_t column_count;
};

extern const struct verb verbs[];
extern const size_t verb_count;

#endif
