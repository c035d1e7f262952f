/* SPDX-License-Identifier: Apache-2.0 */
/* `sluice rpc`: any method, JSON in and out. Main thread. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "control/rpc.h"
#include "control/rpc_docs.h"

enum { OPTION_RPC_SOCKET, OPTION_TIMEOUT, OPTION_JSON, OPTION_DOCS };
static const struct cli_option options[] = {
	[OPTION_RPC_SOCKET] = {"rpc-socket", "PATH", "the daemon's RPC socket"},
	[OPTION_TIMEOUT] = {"timeout", "SECONDS", CLI_OPTION_TIMEOUT_HELP},
	[OPTION_JSON] = {"json", NULL, "print JSON (as this command always does)"},
	/* Not shown in help. */
	[OPTION_DOCS] = {"docs", NULL, "write docs/rpc.md to standard output"},
};

static int help_print(const char *method_name)
{
	const struct rpc_method *method;

	if (method_name != NULL) {
		method = rpc_method_find(method_name);
		if (method == NULL)
			return cli_usage("%s: there is no such method; see sluice rpc --help",
					 method_name);
		rpc_docs_help(stdout, method);
		return CLI_EXIT_OK;
	}
	printf("Usage: sluice rpc [options] METHOD [PARAMS]\n\n"
	       "Calls a method of the running daemon and prints its result as JSON. PARAMS is a\n"
	       "JSON object, or - to read it from standard input. `sluice rpc --help METHOD`\n"
	       "explains a method.\n\nOptions:\n");
	cli_print_options(stdout, options, OPTION_DOCS);
	printf("\nMethods:\n");
	rpc_docs_list(stdout);
	return CLI_EXIT_OK;
}

/* False: a message has been printed. */
static bool params_parse(const char *text, json_t **params)
{
	json_error_t error;

	*params = NULL;
	if (text == NULL)
		return true;
	if (strcmp(text, "-") == 0)
		*params = json_loadf(stdin, JSON_REJECT_DUPLICATES, &error);
	else
		*params = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (*params == NULL) {
		cli_usage("PARAMS is not valid JSON: line %d, column %d: %s", error.line,
			  error.column, error.text);
		return false;
	}
	if (!json_is_object(*params)) {
		cli_usage("PARAMS must be a JSON object");
		json_decref(*params);
		return false;
	}
	return true;
}

static int method_call(const struct cli_args *args)
{
	unsigned int timeout_s;
	json_t *params, *result;

	if (!cli_parse_timeout(args->values[OPTION_TIMEOUT], &timeout_s) ||
	    !params_parse(args->positional_count > 1 ? args->positionals[1] : NULL, &params))
		return CLI_EXIT_USAGE;
	char *socket_path = cli_rpc_socket(args->values[OPTION_RPC_SOCKET]);
	if (socket_path == NULL) {
		json_decref(params);
		return cli_usage("--rpc-socket: is required (XDG_RUNTIME_DIR is not set)");
	}
	int rc = cli_call(socket_path, timeout_s, args->positionals[0], params, &result);
	if (rc == CLI_EXIT_OK) {
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
		putchar('\n');
		json_decref(result);
	}
	free(socket_path);
	return rc;
}

int rpc_main(int argc, char **argv)
{
	struct cli_args args;

	if (!cli_parse(options, ARRAY_COUNT(options), argc, argv, &args))
		return CLI_EXIT_USAGE;
	if (args.help)
		return help_print(args.positional_count > 0 ? args.positionals[0] : NULL);
	if (args.values[OPTION_DOCS] != NULL) {
		rpc_docs_reference(stdout);
		return CLI_EXIT_OK;
	}
	if (args.positional_count == 0)
		return cli_usage("rpc: METHOD is missing; see sluice rpc --help");
	if (args.positional_count > 2)
		return cli_usage("rpc: too many arguments: %s", args.positionals[2]);
	return method_call(&args);
}
