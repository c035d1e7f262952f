/* SPDX-License-Identifier: Apache-2.0 */
/* `sluice serve`: from the command line to the options of the engine. Main thread. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/serve.h"
#include "engine/engine.h"
#include "vhost/vhost.h"

enum {
	OPTION_RUN_DIR,
	OPTION_STATE_DIR,
	OPTION_RPC_SOCKET,
	OPTION_CONFIG,
	OPTION_CORES,
	OPTION_POLL,
	OPTION_REBALANCE,
	OPTION_QUEUES,
	OPTION_READ_ONLY,
	OPTION_CREATE,
	OPTION_LOG_LEVEL,
};
static const struct cli_option options[] = {
	[OPTION_RUN_DIR] = {"run-dir", "DIR", "where sockets go: DIR/NAME for each controller"},
	[OPTION_STATE_DIR] = {"state-dir", "DIR", "where the configuration is kept"},
	[OPTION_RPC_SOCKET] = {"rpc-socket", "PATH", "the RPC socket; default RUN-DIR/sluice.sock"},
	[OPTION_CONFIG] =
		{"config", "FILE",
		 "a configuration in SPDK's format for the first start: it is imported when "
		 "the state directory has none yet, and not read after that"},
	[OPTION_CORES] = {"cores", "CPUS",
			  "the cores that serve, as 0,2-3 or 0xd; default: the first allowed one "
			  "other than 0"},
	[OPTION_POLL] = {"poll", "MODE", "adaptive (default), always or never"},
	[OPTION_REBALANCE] = {"rebalance", "on|off",
			      "move queues from hot cores to others; default: on"},
	[OPTION_QUEUES] = {"queues", "N", "the virtqueues of an IMAGE, 1 to 256; default: 4"},
	[OPTION_READ_ONLY] = {"read-only", NULL, "IMAGEs may only be read"},
	[OPTION_CREATE] = {"create", "SIZE", "make IMAGEs that are missing, as 10G"},
	[OPTION_LOG_LEVEL] = {"log-level", "LEVEL", "error, warn, info (default) or debug"},
};

/* What the engine's options borrow. */
struct serve {
	struct cli_args args;
	struct engine_options engine;
	struct engine_image *images;
	char *run_dir;
	char *state_dir;
	char *rpc_socket;
	uint64_t create_bytes;
};

static int help_print(void)
{
	printf("Usage: sluice serve [options] [IMAGE...]\n\n"
	       "With IMAGEs (files or block devices), serves each as a vhost-user-blk disk on the\n"
	       "socket IMAGE.sock, keeps no state, and prints arguments for the VMM. The RPC "
	       "socket\n"
	       "is then that of the first IMAGE, IMAGE.rpc. With --run-dir, sockets go there.\n\n"
	       "Without, serves what its configuration says, and keeps that up to date. As root "
	       "the\n"
	       "run directory is /run/sluice and the state directory /var/lib/sluice; else\n"
	       "$XDG_RUNTIME_DIR/sluice and $XDG_STATE_HOME/sluice (~/.local/state/sluice).\n\n"
	       "Options:\n");
	cli_print_options(stdout, options, ARRAY_COUNT(options));
	printf("\nSIGTERM and SIGINT stop it; disks are let go of when their I/O has ended.\n");
	return CLI_EXIT_OK;
}

/* ---- simple options ---------------------------------------------------------------------- */

static int parse_tuning(struct serve *serve)
{
	const char *const *values = serve->args.values;
	struct engine_options *engine = &serve->engine;
	enum log_level level = LOG_LEVEL_INFO;
	uint64_t queues = ENGINE_IMAGE_QUEUES_DEFAULT;

	if (values[OPTION_CORES] != NULL &&
	    text_parse_cpus(values[OPTION_CORES], engine->cores, REACTOR_CPU_WORDS) < 0)
		return cli_usage(
			"--cores: must be CPUs below %d as \"0,2-3\" or \"0xd\", not \"%s\"",
			REACTOR_CPU_MAX, values[OPTION_CORES]);
	engine->poll_mode = REACTOR_POLL_ADAPTIVE;
	if (values[OPTION_POLL] != NULL &&
	    reactor_poll_mode_parse(values[OPTION_POLL], &engine->poll_mode) < 0)
		return cli_usage("--poll: must be adaptive, always or never, not \"%s\"",
				 values[OPTION_POLL]);
	const char *rebalance = values[OPTION_REBALANCE];
	if (rebalance != NULL && strcmp(rebalance, "on") != 0 && strcmp(rebalance, "off") != 0)
		return cli_usage("--rebalance: must be on or off, not \"%s\"", rebalance);
	engine->rebalance = rebalance == NULL || strcmp(rebalance, "on") == 0;
	if (values[OPTION_QUEUES] != NULL &&
	    (text_parse_u64(values[OPTION_QUEUES], VHOST_QUEUE_MAX, &queues) < 0 || queues == 0))
		return cli_usage("--queues: must be a number from 1 to %d, not \"%s\"",
				 VHOST_QUEUE_MAX, values[OPTION_QUEUES]);
	if (values[OPTION_LOG_LEVEL] != NULL &&
	    log_level_parse(values[OPTION_LOG_LEVEL], &level) < 0)
		return cli_usage("--log-level: must be error, warn, info or debug, not \"%s\"",
				 values[OPTION_LOG_LEVEL]);
	log_set_level(level);
	engine->queue_count = (uint32_t)queues;
	engine->read_only = values[OPTION_READ_ONLY] != NULL;
	engine->config_file = values[OPTION_CONFIG];
	return 0;
}

static int parse_create(struct serve *serve)
{
	const char *text = serve->args.values[OPTION_CREATE];

	if (text == NULL)
		return 0;
	if (text_parse_size(text, &serve->create_bytes) < 0 || serve->create_bytes == 0 ||
	    serve->create_bytes > INT64_MAX || serve->create_bytes % 512 != 0)
		return cli_usage(
			"--create: must be a size such as 10G, a multiple of 512, not \"%s\"",
			text);
	return 0;
}

/* Options that speak of images mean nothing without one, and the other way round. */
static int check_combination(const struct serve *serve)
{
	static const int with_images[] = {OPTION_QUEUES, OPTION_READ_ONLY, OPTION_CREATE};
	const struct cli_args *args = &serve->args;

	if (args->positional_count > 0 && args->values[OPTION_STATE_DIR] != NULL)
		return cli_usage("--state-dir: cannot be used with an IMAGE, whose serving is not "
				 "remembered");
	for (size_t i = 0; args->positional_count == 0 && i < ARRAY_COUNT(with_images); i++) {
		if (args->values[with_images[i]] != NULL)
			return cli_usage("--%s: needs an IMAGE", options[with_images[i]].name);
	}
	return 0;
}

/* ---- places ------------------------------------------------------------------------------ */

static int make_dir(const char *option, const char *path, unsigned int mode)
{
	int rc = serve_make_dir(path, mode);

	if (rc == 0)
		return 0;
	fprintf(stderr, "sluice: --%s: %s: %s\n", option, path, strerror(-rc));
	return CLI_EXIT_FAILED;
}

static char *directory_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* With images: beside the first of them, unless told otherwise. */
static int place_images(struct serve *serve)
{
	struct cli_args *args = &serve->args;
	const char *run_dir = args->values[OPTION_RUN_DIR];
	int rc;

	serve->images = calloc(args->positional_count, sizeof(*serve->images));
	if (serve->images == NULL)
		return cli_usage("out of memory");
	if (run_dir != NULL && (serve->run_dir = cli_absolute_path(run_dir)) == NULL)
		return cli_usage("out of memory");
	rc = serve_images_init(serve->images, args->positionals, args->positional_count,
			       serve->run_dir);
	if (rc != 0)
		return rc;
	if (serve->run_dir == NULL)
		serve->run_dir = directory_of(serve->images[0].path);
	if (args->values[OPTION_RPC_SOCKET] == NULL && run_dir == NULL &&
	    asprintf(&serve->rpc_socket, "%s.rpc", serve->images[0].path) < 0)
		serve->rpc_socket = NULL;
	return 0;
}

static int place_state(struct serve *serve)
{
	const char *run_dir = serve->args.values[OPTION_RUN_DIR];
	const char *state_dir = serve->args.values[OPTION_STATE_DIR];

	serve->run_dir = run_dir != NULL ? cli_absolute_path(run_dir) : cli_default_run_dir();
	if (serve->run_dir == NULL)
		return cli_usage("--run-dir: is required (XDG_RUNTIME_DIR is not set)");
	serve->state_dir =
		state_dir != NULL ? cli_absolute_path(state_dir) : cli_default_state_dir();
	if (serve->state_dir == NULL)
		return cli_usage(
			"--state-dir: is required (neither XDG_STATE_HOME nor HOME is set)");
	return make_dir("state-dir", serve->state_dir, 0700);
}

static int place_rpc(struct serve *serve)
{
	const char *given = serve->args.values[OPTION_RPC_SOCKET];

	if (given != NULL)
		serve->rpc_socket = cli_absolute_path(given);
	else if (serve->rpc_socket == NULL &&
		 asprintf(&serve->rpc_socket, "%s/sluice.sock", serve->run_dir) < 0)
		serve->rpc_socket = NULL;
	return serve->rpc_socket != NULL ? 0 : cli_usage("out of memory");
}

static int place(struct serve *serve)
{
	int rc = serve->args.positional_count > 0 ? place_images(serve) : place_state(serve);

	if (rc == 0)
		rc = make_dir("run-dir", serve->run_dir, 0755);
	if (rc == 0)
		rc = place_rpc(serve);
	if (rc == 0 && serve->create_bytes > 0)
		rc = serve_images_make(serve->images, serve->args.positional_count,
				       serve->create_bytes);
	return rc;
}

/* ---- command ----------------------------------------------------------------------------- */

static int serve_run(struct serve *serve)
{
	struct engine_options *engine = &serve->engine;
	int rc;

	if ((rc = parse_tuning(serve)) != 0 || (rc = parse_create(serve)) != 0 ||
	    (rc = check_combination(serve)) != 0 || (rc = place(serve)) != 0)
		return rc;
	engine->run_dir = serve->run_dir;
	engine->state_dir = serve->state_dir;
	engine->rpc_socket = serve->rpc_socket;
	engine->images = serve->images;
	engine->image_count = serve->args.positional_count;
	engine->ready = serve_hint_print;
	return engine_run(engine) < 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
}

int serve_main(int argc, char **argv)
{
	struct serve serve = {.engine = {.run_dir = NULL}};

	if (!cli_parse(options, ARRAY_COUNT(options), argc, argv, &serve.args))
		return CLI_EXIT_USAGE;
	if (serve.args.help)
		return help_print();
	int rc = serve_run(&serve);
	if (serve.images != NULL)
		serve_images_fini(serve.images, serve.args.positional_count);
	free(serve.run_dir);
	free(serve.state_dir);
	free(serve.rpc_socket);
	return rc;
}
