/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of `sluice` share: exit codes, options, talking to the daemon. Main thread. */
#ifndef SLUICE_CLI_CLI_H
#define SLUICE_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/compiler.h"

enum cli_exit {
	CLI_EXIT_OK = 0,
	CLI_EXIT_FAILED = 1,      /* the daemon answered with an error, or serving failed */
	CLI_EXIT_USAGE = 2,       /* a wrong command line */
	CLI_EXIT_UNREACHABLE = 3, /* no daemon, or no answer from it in time */
};

/* ---- options ----------------------------------------------------------------------------- */

struct cli_option {
	const char *name;  /* without "--" */
	const char *value; /* what the value is called in help; NULL: a flag */
	const char *help;
};

#define CLI_OPTION_MAX 48

struct cli_args {
	const char *values[CLI_OPTION_MAX]; /* by index of the option; NULL: not given; flags: "" */
	char **positionals;
	size_t positional_count;
	bool help; /* --help or -h was given */
};

/* Sorts argv[1..] into options (--name VALUE, --name=VALUE) and positionals; "--" ends options. A
 * flag may be given a value as --name=VALUE. False: a message has been printed. */
bool cli_parse(const struct cli_option *options, size_t option_count, int argc, char **argv,
	       struct cli_args *args);
void cli_print_options(FILE *out, const struct cli_option *options, size_t option_count);

/* Text in lines of at most 96 columns, the first begun at column, the others indented, and a
 * newline. */
void cli_print_wrapped(FILE *out, const char *text, int column, int indent);

/* "sluice: ..." on stderr; returns CLI_EXIT_USAGE. */
int cli_usage(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* An absolute path for one that may be relative to the working directory: allocated, NULL if there
 * is no memory. Symbolic links stay as they are. */
char *cli_absolute_path(const char *path);

/* ---- places ------------------------------------------------------------------------------ */

/* Where the daemon runs and keeps its state unless told otherwise. Allocated, NULL if the
 * environment does not say. */
char *cli_default_run_dir(void);
char *cli_default_state_dir(void);
/* The socket a client talks to: what was given, $SLUICE_RPC_SOCKET, or the default. Allocated. */
char *cli_rpc_socket(const char *given);

/* ---- the daemon -------------------------------------------------------------------------- */

#define CLI_OPTION_TIMEOUT_HELP "how long to wait for the daemon's answer (60); 0: for ever"
/* The value of --timeout, or the default for NULL. False: a message has been printed. */
bool cli_parse_timeout(const char *text, unsigned int *timeout_s);

/* Calls a method: CLI_EXIT_OK and *result (a new reference), or another code with a message
 * printed. params is taken over and may be NULL. When no answer comes within timeout_s (0: no
 * bound) the process ends with CLI_EXIT_UNREACHABLE. */
int cli_call(const char *socket_path, unsigned int timeout_s, const char *method, json_t *params,
	     json_t **result);

/* ---- commands: main thread, argv[0] is the command --------------------------------------- */

int serve_main(int argc, char **argv);
int rpc_main(int argc, char **argv);
/* bdev, vhost, reactor, status: the table of verbs. */
int verb_main(int argc, char **argv);
void verb_print_list(FILE *out, const char *prefix);

#endif
