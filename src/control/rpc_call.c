/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an RPC request from method name to outcome. Control thread. */
#include "control/rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "control/control.h"

static void request_run(struct rpc_request *request)
{
	if (request->step != NULL)
		request->step(request, request->step_arg);
	else
		request->method->handler(request, request->args);
}

/* ---- changes run one at a time ----------------------------------------------------------- */

void rpc_changes_init(struct rpc_changes *changes)
{
	memset(changes, 0, sizeof(*changes));
	list_init(&changes->waiting);
}

static void changes_check_idle(struct rpc_changes *changes)
{
	void (*idle)(void *arg) = changes->idle;

	if (!changes->closed || changes->running || idle == NULL)
		return;
	changes->idle = NULL;
	idle(changes->idle_arg);
}

void rpc_changes_close(struct rpc_changes *changes, void (*idle)(void *arg), void *arg)
{
	ensure(!changes->closed);
	changes->closed = true;
	changes->idle = idle;
	changes->idle_arg = arg;
	changes_check_idle(changes);
}

static void changes_add(struct rpc_changes *changes, struct rpc_request *request)
{
	if (changes->closed) {
		rpc_reply_error(request, -ESHUTDOWN, "sluice is shutting down");
		return;
	}
	if (changes->running) {
		list_add_tail(&changes->waiting, &request->link);
		return;
	}
	changes->running = true;
	request->holds_change = true;
	request_run(request);
}

/* A loop, not a recursion: a change that ends inside its handler comes back here. */
void rpc_changes_next(struct rpc_changes *changes)
{
	struct list *node;

	if (changes == NULL)
		return;
	changes->running = false;
	if (changes->draining)
		return;
	changes->draining = true;
	while (!changes->running && (node = list_pop(&changes->waiting)) != NULL) {
		struct rpc_request *next = list_entry(node, struct rpc_request, link);
		changes->running = true;
		next->holds_change = true;
		request_run(next);
	}
	changes->draining = false;
	changes_check_idle(changes);
}

struct rpc_changes *rpc_change_detach(struct rpc_request *request)
{
	bool held = request->holds_change;

	request->holds_change = false;
	return held ? &request->control->changes : NULL;
}

void rpc_change_attach(struct rpc_request *request,
		       void (*step)(struct rpc_request *request, void *arg), void *arg)
{
	ensure(!request->holds_change);
	request->step = step;
	request->step_arg = arg;
	if (request->origin == RPC_ORIGIN_CLIENT) {
		ensure(!request->control->changes.closed);
		changes_add(&request->control->changes, request);
	} else {
		request_run(request);
	}
}

/* ---- outcome ----------------------------------------------------------------------------- */

static void request_finish(struct rpc_request *request, json_t *result, int code,
			   const char *message)
{
	request->done(request->arg, result, code, message);
	struct rpc_changes *changes = rpc_change_detach(request);
	json_decref(result);
	json_decref(request->params);
	free(request);
	rpc_changes_next(changes);
}

void rpc_reply(struct rpc_request *request, json_t *result)
{
	if (result == NULL)
		request_finish(request, NULL, -ENOMEM, "out of memory");
	else
		request_finish(request, result, 0, NULL);
}

void rpc_reply_error(struct rpc_request *request, int code, const char *fmt, ...)
{
	char message[RPC_ERROR_BYTES];
	va_list args;

	ensure(code < 0);
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	request_finish(request, NULL, code, message);
}

/* ---- calling ----------------------------------------------------------------------------- */

static struct rpc_request *request_create(const struct rpc_method *method, json_t *params)
{
	struct rpc_request *request = calloc(1, sizeof(*request) + method->args_bytes);

	if (request == NULL)
		return NULL;
	list_init(&request->link);
	request->method = method;
	request->params = params != NULL && !json_is_null(params) ? json_incref(params) : NULL;
	return request;
}

static void request_decode(struct rpc_request *request)
{
	const struct rpc_method *method = request->method;
	char error[RPC_ERROR_BYTES];

	if (request->params != NULL && !json_is_object(request->params)) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS,
				"params: must be an object of named parameters");
		return;
	}
	if (rpc_params_decode(method->params, method->param_count, request->params, request->args,
			      error, sizeof(error)) < 0) {
		rpc_reply_error(request, RPC_CODE_INVALID_PARAMS, "%s", error);
		return;
	}
	if (method->changes && request->origin == RPC_ORIGIN_CLIENT)
		changes_add(&request->control->changes, request);
	else
		request_run(request);
}

void rpc_call(struct control *control, const char *name, json_t *params, enum rpc_origin origin,
	      rpc_done_fn done, void *arg)
{
	const struct rpc_method *method = rpc_method_find(name);
	char message[RPC_ERROR_BYTES];

	if (method == NULL) {
		snprintf(message, sizeof(message), "%.64s: there is no such method", name);
		done(arg, NULL, RPC_CODE_NO_METHOD, message);
		return;
	}
	struct rpc_request *request = request_create(method, params);
	if (request == NULL) {
		done(arg, NULL, -ENOMEM, "out of memory");
		return;
	}
	request->control = control;
	request->origin = origin;
	request->done = done;
	request->arg = arg;
	request_decode(request);
}
