/* SPDX-License-Identifier: Apache-2.0 */
/* Where the daemon runs and keeps its state. Main thread. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static char *join(const char *dir, const char *rest)
{
	char *path;

	if (dir == NULL || dir[0] != '/' || asprintf(&path, "%s/%s", dir, rest) < 0)
		return NULL;
	return path;
}

char *cli_default_run_dir(void)
{
	return geteuid() == 0 ? strdup("/run/sluice") : join(getenv("XDG_RUNTIME_DIR"), "sluice");
}

char *cli_default_state_dir(void)
{
	char *dir;

	if (geteuid() == 0)
		return strdup("/var/lib/sluice");
	dir = join(getenv("XDG_STATE_HOME"), "sluice");
	return dir != NULL ? dir : join(getenv("HOME"), ".local/state/sluice");
}

char *cli_rpc_socket(const char *given)
{
	const char *path = given != NULL ? given : getenv("SLUICE_RPC_SOCKET");
	char *run_dir, *joined;

	if (path != NULL && path[0] != '\0')
		return strdup(path);
	run_dir = cli_default_run_dir();
	joined = join(run_dir, "sluice.sock");
	free(run_dir);
	return joined;
}
