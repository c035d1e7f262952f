/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calling RPC methods, whoever asks: a client on the socket, or a configuration file. Control
 * thread.
 *
 * A handler answers with exactly one rpc_reply() or rpc_reply_error(), at once or later. Methods
 * that change configuration run one at a time, in the order in which they were called, so that
 * what is saved is always a state that existed (rpc_changes below).
 */
#ifndef SLUICE_CONTROL_RPC_H
#define SLUICE_CONTROL_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/list.h"
#include "control/rpc_param.h"

struct control;
struct rpc_request;

/* JSON-RPC 2.0's own codes. A failed operation has the code of its errno, as -EEXIST. */
enum rpc_code {
	RPC_CODE_PARSE = -32700,
	RPC_CODE_INVALID_REQUEST = -32600,
	RPC_CODE_NO_METHOD = -32601,
	RPC_CODE_INVALID_PARAMS = -32602,
	RPC_CODE_INTERNAL = -32603,
};

#define RPC_ERROR_BYTES 512

struct rpc_method {
	const char *name;
	const char *alias;  /* an older name that clients still use, or NULL */
	const char *help;   /* sentences */
	const char *result; /* what it returns, a phrase */
	const struct rpc_param *params;
	size_t param_count;
	size_t args_bytes; /* of the structure that params fill */
	bool changes;      /* configuration */
	void (*handler)(struct rpc_request *request, const void *args);
};

/* By name or alias; NULL. */
const struct rpc_method *rpc_method_find(const char *name);
/* In the order of the table; NULL starts, NULL ends. */
const struct rpc_method *rpc_method_next(const struct rpc_method *method);

/* ---- for callers ------------------------------------------------------------------------- */

/* result is borrowed and NULL on error; code is then not 0 and message a sentence. */
typedef void (*rpc_done_fn)(void *arg, json_t *result, int code, const char *message);

enum rpc_origin {
	RPC_ORIGIN_CLIENT,
	/* A configuration being loaded: not queued behind other changes, not saved one by one. */
	RPC_ORIGIN_CONFIG,
};

/* Calls a method. params is borrowed (a reference is taken for the length of the call) and may be
 * NULL. done runs exactly once, possibly before this returns. */
void rpc_call(struct control *control, const char *method, json_t *params, enum rpc_origin origin,
	      rpc_done_fn done, void *arg);

/* ---- for handlers ------------------------------------------------------------------------ */

struct rpc_request {
	struct control *control;
	const struct rpc_method *method;
	enum rpc_origin origin;
	json_t *params;
	int note; /* the handler's own, between its steps */

	/* rpc_call.c's own */
	struct list link;
	rpc_done_fn done;
	void *arg;
	bool holds_change;
	void (*step)(struct rpc_request *request, void *arg); /* NULL: the method's handler */
	void *step_arg;
	_Alignas(max_align_t) char args[];
};

/* Takes over the reference to result. The request is gone afterwards. */
void rpc_reply(struct rpc_request *request, json_t *result);
/* code: enum rpc_code or -errno. The request is gone afterwards. */
void rpc_reply_error(struct rpc_request *request, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* For a change whose effect on the configuration is complete, but whose reply has to wait: the
 * request gives up its turn, and the next change begins with rpc_changes_next(). The result is NULL
 * for a request that has none. */
struct rpc_changes *rpc_change_detach(struct rpc_request *request);
/* For a change that gave up its turn while it prepared something: step is called when it has a turn
 * again, maybe at once. Not after rpc_changes_close(). */
void rpc_change_attach(struct rpc_request *request,
		       void (*step)(struct rpc_request *request, void *arg), void *arg);

/* ---- the queue of changes ---------------------------------------------------------------- */

struct rpc_changes {
	struct list waiting;
	bool running;
	bool draining;
	bool closed;
	/* Called once the queue is closed and empty. */
	void (*idle)(void *arg);
	void *idle_arg;
};
void rpc_changes_init(struct rpc_changes *changes);
/* Begins the next change. Harmless with NULL. */
void rpc_changes_next(struct rpc_changes *changes);
/* Refuses further changes; idle is called when the ones under way have ended, maybe at once. */
void rpc_changes_close(struct rpc_changes *changes, void (*idle)(void *arg), void *arg);

#endif
