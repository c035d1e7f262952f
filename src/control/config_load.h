/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying out a configuration: its entries are calls of the method table, one after the other.
 * Control thread. */
#ifndef SLUICE_CONTROL_CONFIG_LOAD_H
#define SLUICE_CONTROL_CONFIG_LOAD_H

#include <jansson.h>
#include <stdbool.h>

#include "control/rpc.h"

struct control;

struct config_load_result {
	unsigned int done_count;
	unsigned int failed_count;
	int first_code;                    /* of the first failure */
	char first_error[RPC_ERROR_BYTES]; /* a sentence */
};

struct config_load_options {
	struct control *control;
	json_t *root;       /* as config_check() wants it; borrowed, a reference is taken */
	const char *origin; /* for log lines; must outlive the load */
	bool keep_failed;   /* entries that fail are kept, not lost */
	bool skip_existing; /* an object that exists already is as good as made */
	/* Entries that find their storage busy are tried again for that long: after a crash the
	 * kernel may hold our predecessor's locks for a moment. */
	unsigned int patience_ms;
	/* Files may take that long to open, all together. One that takes longer is given up, or,
	 * with keep_failed, left behind: the walk goes on, and when it opens after all, the entries
	 * that failed are tried again. */
	unsigned int open_patience_ms;
	void (*done)(void *arg, const struct config_load_result *result);
	void *arg;
};

/* done is called exactly once, maybe at once. 0 or -ENOMEM (done is not called). Saves nothing. */
int config_load_start(const struct config_load_options *options);

#endif
