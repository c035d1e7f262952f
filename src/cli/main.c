/* SPDX-License-Identifier: Apache-2.0 */
/* The `sluice` command: picks the command and hands over. Main thread. */
#include <string.h>

#include "cli/bench.h"
#include "cli/cli.h"
#include "sluice_config.h"

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *usage; /* NULL: verbs, listed from their own table */
	const char *help;
} commands[] = {
	{"serve", serve_main, "serve [options] [IMAGE...]", "serve disks to VMs"},
	{"bdev", verb_main, NULL, NULL},
	{"vhost", verb_main, NULL, NULL},
	{"reactor", verb_main, NULL, NULL},
	{"reactors", verb_main, NULL, NULL},
	{"status", verb_main, NULL, NULL},
	{"rpc", rpc_main, "rpc [options] METHOD [PARAMS]", "call any method of the daemon"},
	{"bench", bench_main, "bench [options] vhost-blk:SOCKET", "generate load on a disk"},
};

static void help_print(FILE *out)
{
	fprintf(out, "Sluice serves disks to virtual machines from user space.\n\n"
		     "Usage: sluice COMMAND ...\n\n");
	for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
		if (commands[i].usage != NULL)
			fprintf(out, "  %-36s  %s\n", commands[i].usage, commands[i].help);
		else if (strcmp(commands[i].name, "reactors") != 0)
			verb_print_list(out, commands[i].name);
	}
	fprintf(out,
		"\n`sluice COMMAND --help` explains a command. `sluice --version` prints the "
		"version.\n\n"
		"Commands that talk to the daemon find it by --rpc-socket, by $SLUICE_RPC_SOCKET, "
		"or in\n/run/sluice (as root) or $XDG_RUNTIME_DIR/sluice.\n\n"
		"Exit codes: 0 done; 1 the daemon answered with an error; 2 wrong command line;\n"
		"3 the daemon cannot be reached, or does not answer within --timeout.\n");
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		help_print(stderr);
		return CLI_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		help_print(stdout);
		return CLI_EXIT_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("sluice " SLUICE_VERSION "\n");
		return CLI_EXIT_OK;
	}
	for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
		if (strcmp(commands[i].name, argv[1]) == 0)
			return commands[i].main(argc - 1, argv + 1);
	}
	return cli_usage("%s: there is no such command; see sluice --help", argv[1]);
}
