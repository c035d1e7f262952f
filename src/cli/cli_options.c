/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: options and positionals. Main thread. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "cli/cli.h"

#define HELP_COLUMNS 96
#define OPTION_COLUMNS 24

int cli_usage(const char *fmt, ...)
{
	va_list args;

	fputs("sluice: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	return CLI_EXIT_USAGE;
}

static size_t option_find(const struct cli_option *options, size_t option_count, const char *name,
			  size_t name_len)
{
	size_t i;

	for (i = 0; i < option_count; i++) {
		if (strlen(options[i].name) == name_len &&
		    strncmp(options[i].name, name, name_len) == 0)
			break;
	}
	return i;
}

/* Parses argv[*i], and argv[*i + 1] if that is its value. */
static bool option_parse(const struct cli_option *options, size_t option_count, int argc,
			 char **argv, int *i, struct cli_args *args)
{
	const char *name = argv[*i] + 2;
	const char *equals = strchr(name, '=');
	size_t name_len = equals != NULL ? (size_t)(equals - name) : strlen(name);
	size_t index = option_find(options, option_count, name, name_len);

	if (index == option_count) {
		cli_usage("--%.*s: unknown option; see --help", (int)name_len, name);
		return false;
	}
	if (equals != NULL) {
		args->values[index] = equals + 1;
	} else if (options[index].value == NULL) {
		args->values[index] = "";
	} else if (*i + 1 < argc) {
		args->values[index] = argv[++*i];
	} else {
		cli_usage("--%s: needs a value (%s)", options[index].name, options[index].value);
		return false;
	}
	return true;
}

bool cli_parse(const struct cli_option *options, size_t option_count, int argc, char **argv,
	       struct cli_args *args)
{
	bool options_over = false;

	ensure(option_count <= CLI_OPTION_MAX);
	memset(args, 0, sizeof(*args));
	args->positionals = argv + 1;
	for (int i = 1; i < argc; i++) {
		if (options_over || argv[i][0] != '-' || argv[i][1] == '\0') {
			/* Never ahead of what is still to be read. */
			args->positionals[args->positional_count++] = argv[i];
		} else if (strcmp(argv[i], "--") == 0) {
			options_over = true;
		} else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			args->help = true;
		} else if (argv[i][1] != '-') {
			cli_usage("%s: unknown option; see --help", argv[i]);
			return false;
		} else if (!option_parse(options, option_count, argc, argv, &i, args)) {
			return false;
		}
	}
	return true;
}

void cli_print_wrapped(FILE *out, const char *text, int column, int indent)
{
	while (*text != '\0') {
		int len = (int)strcspn(text, " ");
		if (column > indent && column + 1 + len > HELP_COLUMNS) {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", len, text);
		column += len;
		text += len;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

void cli_print_options(FILE *out, const struct cli_option *options, size_t option_count)
{
	char left[64];

	for (size_t i = 0; i < option_count; i++) {
		snprintf(left, sizeof(left), "--%s %s", options[i].name,
			 options[i].value != NULL ? options[i].value : "");
		if (strlen(left) > OPTION_COLUMNS)
			fprintf(out, "  %s\n%*s", left, OPTION_COLUMNS + 4, "");
		else
			fprintf(out, "  %-*s  ", OPTION_COLUMNS, left);
		cli_print_wrapped(out, options[i].help, OPTION_COLUMNS + 4, OPTION_COLUMNS + 4);
	}
}

char *cli_absolute_path(const char *path)
{
	char *cwd;
	char *absolute;

	if (path[0] == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (cwd == NULL || asprintf(&absolute, "%s/%s", cwd, path) < 0)
		absolute = NULL;
	free(cwd);
	return absolute;
}
