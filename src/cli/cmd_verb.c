/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying out a verb: its options are the parameters of its RPC method. Main thread. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/verbs.h"
#include "control/rpc.h"

enum { OPTION_RPC_SOCKET, OPTION_TIMEOUT, OPTION_JSON, OPTION_PARAMS };
static const struct cli_option common_options[] = {
	[OPTION_RPC_SOCKET] = {"rpc-socket", "PATH", "the daemon's RPC socket"},
	[OPTION_TIMEOUT] = {"timeout", "SECONDS", CLI_OPTION_TIMEOUT_HELP},
	[OPTION_JSON] = {"json", NULL, "print the result as JSON"},
};

/* The options of a verb: the common ones, then one a parameter that is not positional. */
struct verb_options {
	struct cli_option options[CLI_OPTION_MAX];
	const struct rpc_param *params[CLI_OPTION_MAX];
	char names[CLI_OPTION_MAX][32];
	size_t count;
};

/* ---- finding ----------------------------------------------------------------------------- */

/* How many words of argv the verb consists of; 0: it is another one. */
static int verb_match(const struct verb *verb, int argc, char **argv)
{
	const char *p = verb->words;
	int count = 0;

	while (*p != '\0') {
		size_t len = strcspn(p, " ");
		if (count == argc || strlen(argv[count]) != len ||
		    strncmp(argv[count], p, len) != 0)
			return 0;
		count++;
		p += len + (p[len] == ' ');
	}
	return count;
}

static const struct verb *verb_find(int argc, char **argv, int *word_count)
{
	for (size_t i = 0; i < verb_count; i++) {
		*word_count = verb_match(&verbs[i], argc, argv);
		if (*word_count > 0)
			return &verbs[i];
	}
	return NULL;
}

static bool has_prefix(const char *words, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(words, prefix, len) == 0 && (words[len] == ' ' || words[len] == '\0');
}

static void usage_line(const struct verb *verb, char *text, size_t text_bytes)
{
	size_t len = (size_t)snprintf(text, text_bytes, "%s", verb->words);

	for (size_t i = 0; verb->positionals[i] != NULL && len < text_bytes; i++) {
		bool required = i < verb->required_count;
		size_t start = len;
		len += (size_t)snprintf(text + len, text_bytes - len, required ? " %s" : " [%s]",
					verb->positionals[i]);
		for (size_t c = start; c < len && c < text_bytes; c++)
			text[c] = (char)toupper((unsigned char)text[c]);
	}
}

void verb_print_list(FILE *out, const char *prefix)
{
	char line[128];

	for (size_t i = 0; i < verb_count; i++) {
		if (prefix != NULL && !has_prefix(verbs[i].words, prefix))
			continue;
		usage_line(&verbs[i], line, sizeof(line));
		fprintf(out, "  %-36s  %s\n", line, verbs[i].help);
	}
}

/* `sluice bdev`, `sluice bdev create --help`, `sluice bdev frobnicate`. */
static int group_help(int argc, char **argv)
{
	char prefix[64] = "";
	bool help = false;
	const char *unknown = NULL;

	for (int i = 0; i < argc; i++) {
		char longer[64];
		bool known = false;
		help = help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
		if (argv[i][0] == '-' || unknown != NULL)
			continue;
		snprintf(longer, sizeof(longer), "%s%s%s", prefix, i ? " " : "", argv[i]);
		for (size_t v = 0; v < verb_count; v++)
			known = known || has_prefix(verbs[v].words, longer);
		if (known)
			snprintf(prefix, sizeof(prefix), "%s", longer);
		else
			unknown = argv[i];
	}
	if (unknown != NULL)
		cli_usage("%s: there is no %s", prefix, unknown);
	else if (!help)
		cli_usage("%s: what? One of:", prefix);
	fprintf(help ? stdout : stderr, "Usage:\n");
	verb_print_list(help ? stdout : stderr, prefix);
	return help && unknown == NULL ? CLI_EXIT_OK : CLI_EXIT_USAGE;
}

/* ---- options ----------------------------------------------------------------------------- */

static const char *value_name(enum rpc_type type)
{
	static const char *const names[RPC_TYPE_COUNT] = {
		[RPC_TYPE_NAME] = "NAME", [RPC_TYPE_STRING] = "TEXT",  [RPC_TYPE_CHOICE] = "WORD",
		[RPC_TYPE_UUID] = "UUID", [RPC_TYPE_U32] = "N",        [RPC_TYPE_U64] = "N",
		[RPC_TYPE_SIZE] = "SIZE", [RPC_TYPE_CPUMASK] = "CPUS",
	};

	return names[type];
}

static bool is_positional(const struct verb *verb, const char *name)
{
	for (size_t i = 0; verb->positionals[i] != NULL; i++) {
		if (strcmp(verb->positionals[i], name) == 0)
			return true;
	}
	return false;
}

/* `sluice rpc` reaches parameters that are called as an option of every verb. */
static bool is_common(const char *name)
{
	for (size_t i = 0; i < ARRAY_COUNT(common_options); i++) {
		if (strcmp(common_options[i].name, name) == 0)
			return true;
	}
	return false;
}

static void options_build(const struct verb *verb, struct verb_options *built)
{
	const struct rpc_method *method = rpc_method_find(verb->method);

	ensure(method != NULL);
	memset(built, 0, sizeof(*built));
	memcpy(built->options, common_options, sizeof(common_options));
	built->count = OPTION_PARAMS;
	for (size_t i = 0; i < method->param_count; i++) {
		const struct rpc_param *param = &method->params[i];
		char *name = built->names[built->count];
		if (param->offset == RPC_PARAM_IGNORED || is_positional(verb, param->name) ||
		    is_common(param->name) || strlen(param->name) >= sizeof(built->names[0]))
			continue;
		ensure(built->count < CLI_OPTION_MAX);
		snprintf(name, sizeof(built->names[0]), "%s", param->name);
		for (char *p = name; *p != '\0'; p++) {
			if (*p == '_')
				*p = '-';
		}
		built->options[built->count] =
			(struct cli_option){name, value_name(param->type), param->help};
		built->params[built->count++] = param;
	}
}

static const struct rpc_param *param_of(const struct verb *verb, const char *name)
{
	const struct rpc_method *method = rpc_method_find(verb->method);

	for (size_t i = 0; i < method->param_count; i++) {
		if (strcmp(method->params[i].name, name) == 0)
			return &method->params[i];
	}
	return NULL;
}

/* ---- values ------------------------------------------------------------------------------ */

static json_t *bool_value(const char *text)
{
	if (strcmp(text, "") == 0 || strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 ||
	    strcmp(text, "on") == 0)
		return json_true();
	if (strcmp(text, "false") == 0 || strcmp(text, "no") == 0 || strcmp(text, "off") == 0)
		return json_false();
	return NULL;
}

static json_t *number_value(const char *text)
{
	uint64_t number;

	if (text_parse_size(text, &number) < 0 || number > INT64_MAX)
		return NULL;
	return json_integer((json_int_t)number);
}

/* "0,2-3" as people write it; the dialect wants brackets around a list. */
static json_t *cpus_value(const char *text)
{
	if (text[0] == '[' || strncmp(text, "0x", 2) == 0)
		return json_string(text);
	return json_sprintf("[%s]", text);
}

/* The daemon has a working directory of its own. */
static json_t *text_value(const struct rpc_param *param, const char *text)
{
	if (strcmp(param->name, "filename") != 0)
		return json_string(text);
	char *path = cli_absolute_path(text);
	json_t *value = json_string(path);
	free(path);
	return value;
}

static json_t *value_parse(const struct rpc_param *param, const char *text)
{
	switch (param->type) {
	case RPC_TYPE_BOOL:
		return bool_value(text);
	case RPC_TYPE_U32:
	case RPC_TYPE_U64:
		return number_value(text);
	case RPC_TYPE_CPUMASK:
		return cpus_value(text);
	default:
		return text_value(param, text);
	}
}

/* False: a message has been printed. */
static bool param_set(json_t *params, const struct rpc_param *param, const char *text)
{
	json_t *value = value_parse(param, text);
	char bounds[256];

	if (value == NULL) {
		rpc_param_describe(param, bounds, sizeof(bounds));
		cli_usage("%s: must be %s, not \"%s\"", param->name, bounds, text);
		return false;
	}
	return json_object_set_new(params, param->name, value) == 0;
}

/* NULL: a message has been printed. */
static json_t *params_build(const struct verb *verb, const struct verb_options *built,
			    const struct cli_args *args)
{
	json_t *params = json_object();
	bool ok = true;

	for (size_t i = 0; ok && i < args->positional_count; i++)
		ok = param_set(params, param_of(verb, verb->positionals[i]), args->positionals[i]);
	for (size_t i = OPTION_PARAMS; ok && i < built->count; i++) {
		if (args->values[i] != NULL)
			ok = param_set(params, built->params[i], args->values[i]);
	}
	if (!ok) {
		json_decref(params);
		return NULL;
	}
	return params;
}

/* ---- carrying out ------------------------------------------------------------------------ */

static void result_print(const struct verb *verb, const json_t *result, bool json)
{
	const json_t *rows = result;

	if (verb->rows_key != NULL)
		rows = json_object_get(result, verb->rows_key);
	if (json) {
		json_dumpf(result, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
		putchar('\n');
	} else if (verb->columns != NULL) {
		table_print(stdout, verb->columns, verb->column_count, rows, result);
	} else if (json_is_object(result)) {
		table_print_fields(stdout, result);
	} else if (json_is_string(result)) {
		printf("%s\n", json_string_value(result));
	}
}

static int verb_call(const struct verb *verb, const struct verb_options *built,
		     const struct cli_args *args)
{
	unsigned int timeout_s;
	char *socket_path;
	json_t *result;

	if (!cli_parse_timeout(args->values[OPTION_TIMEOUT], &timeout_s))
		return CLI_EXIT_USAGE;
	json_t *params = params_build(verb, built, args);
	if (params == NULL)
		return CLI_EXIT_USAGE;
	socket_path = cli_rpc_socket(args->values[OPTION_RPC_SOCKET]);
	if (socket_path == NULL) {
		json_decref(params);
		return cli_usage("--rpc-socket: is required (XDG_RUNTIME_DIR is not set)");
	}
	int rc = cli_call(socket_path, timeout_s, verb->method, params, &result);
	if (rc == CLI_EXIT_OK) {
		result_print(verb, result, args->values[OPTION_JSON] != NULL);
		json_decref(result);
	}
	free(socket_path);
	return rc;
}

static int verb_help(const struct verb *verb, const struct verb_options *built)
{
	char line[128];

	usage_line(verb, line, sizeof(line));
	printf("Usage: sluice %s [options]\n\n", line);
	cli_print_wrapped(stdout, rpc_method_find(verb->method)->help, 0, 0);
	printf("\n");
	for (size_t i = 0; verb->positionals[i] != NULL; i++) {
		printf("  %-24s  ", verb->positionals[i]);
		cli_print_wrapped(stdout, param_of(verb, verb->positionals[i])->help, 28, 28);
	}
	printf("%sOptions:\n", verb->positionals[0] != NULL ? "\n" : "");
	cli_print_options(stdout, built->options, built->count);
	printf("\nThe same as: sluice rpc %s\n", verb->method);
	return CLI_EXIT_OK;
}

int verb_main(int argc, char **argv)
{
	struct verb_options built;
	struct cli_args args;
	int word_count;
	const struct verb *verb = verb_find(argc, argv, &word_count);
	size_t positional_max = 0;

	if (verb == NULL)
		return group_help(argc, argv);
	options_build(verb, &built);
	if (!cli_parse(built.options, built.count, argc - word_count + 1, argv + word_count - 1,
		       &args))
		return CLI_EXIT_USAGE;
	if (args.help)
		return verb_help(verb, &built);
	while (verb->positionals[positional_max] != NULL)
		positional_max++;
	if (args.positional_count < verb->required_count)
		return cli_usage("%s: %s is missing; see --help", verb->words,
				 verb->positionals[args.positional_count]);
	if (args.positional_count > positional_max)
		return cli_usage("%s: too many arguments: %s", verb->words,
				 args.positionals[positional_max]);
	return verb_call(verb, &built, &args);
}
