/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON-RPC call to the daemon. Main thread; blocks. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "cli/cli.h"

static int unreachable(const char *socket_path, const char *what)
{
	fprintf(stderr, "sluice: cannot reach the daemon at %s: %s\n", socket_path, what);
	return CLI_EXIT_UNREACHABLE;
}

/* ---- the timeout ------------------------------------------------------------------------- */

#define TIMEOUT_S_DEFAULT 60
#define TIMEOUT_S_MAX 86400

static char timeout_text[512];

bool cli_parse_timeout(const char *text, unsigned int *timeout_s)
{
	uint64_t value = TIMEOUT_S_DEFAULT;

	if (text != NULL && text_parse_u64(text, TIMEOUT_S_MAX, &value) < 0) {
		cli_usage("--timeout: must be a number of seconds up to %d, not \"%s\"",
			  TIMEOUT_S_MAX, text);
		return false;
	}
	*timeout_s = (unsigned int)value;
	return true;
}

/* Whatever the process is waiting in: connect(), send() or read(). */
static void timeout_expired(int number)
{
	ssize_t n = write(STDERR_FILENO, timeout_text, strlen(timeout_text));

	(void)n;
	_exit(CLI_EXIT_UNREACHABLE);
}

static void timeout_start(const char *socket_path, unsigned int timeout_s)
{
	const struct sigaction action = {.sa_handler = timeout_expired};

	if (timeout_s == 0)
		return;
	snprintf(timeout_text, sizeof(timeout_text),
		 "sluice: the daemon at %s did not answer within %u s (what was asked may still be "
		 "done)\n",
		 socket_path, timeout_s);
	sigaction(SIGALRM, &action, NULL);
	alarm(timeout_s);
}

/* ---- the call ---------------------------------------------------------------------------- */

static int request_send(int fd, const char *method, json_t *params)
{
	json_t *request = json_pack("{s:s, s:i, s:s, s:o*}", "jsonrpc", "2.0", "id", 1, "method",
				    method, "params", params);
	char *text = json_dumps(request, JSON_COMPACT);
	size_t len = text != NULL ? strlen(text) : 0;
	size_t sent = 0;
	ssize_t n = text != NULL ? 0 : -ENOMEM;

	while (n >= 0 && sent < len) {
		n = fd_send(fd, text + sent, len - sent, NULL, 0);
		if (n > 0)
			sent += (size_t)n;
	}
	free(text);
	json_decref(request);
	return n < 0 ? (int)n : 0;
}

static size_t answer_read(void *buffer, size_t len, void *data)
{
	ssize_t n;

	do {
		n = read(*(int *)data, buffer, len);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? 0 : (size_t)n;
}

static int answer_examine(const char *method, json_t *answer, json_t **result)
{
	const json_t *error = json_object_get(answer, "error");
	json_t *value = json_object_get(answer, "result");

	if (value != NULL) {
		*result = json_incref(value);
		return CLI_EXIT_OK;
	}
	const char *message = json_string_value(json_object_get(error, "message"));
	fprintf(stderr, "sluice: %s: %s (code %lld)\n", method,
		message != NULL ? message : "an answer without result or error",
		(long long)json_integer_value(json_object_get(error, "code")));
	return CLI_EXIT_FAILED;
}

int cli_call(const char *socket_path, unsigned int timeout_s, const char *method, json_t *params,
	     json_t **result)
{
	json_error_t error;

	timeout_start(socket_path, timeout_s);
	int fd = fd_unix_connect(socket_path);
	int rc;

	if (fd < 0) {
		json_decref(params);
		return unreachable(socket_path, strerror(-fd));
	}
	/* A daemon that refuses the connection has answered before it reads: look even then. */
	(void)request_send(fd, method, params);
	json_t *answer = json_load_callback(answer_read, &fd, JSON_DISABLE_EOF_CHECK, &error);
	alarm(0);
	if (answer == NULL)
		rc = unreachable(socket_path, "the connection ended before an answer came");
	else
		rc = answer_examine(method, answer, result);
	json_decref(answer);
	fd_close(&fd);
	return rc;
}
