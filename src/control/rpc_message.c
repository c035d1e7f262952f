/* SPDX-License-Identifier: Apache-2.0 */
/* JSON-RPC 2.0 envelopes: requests, notifications, batches and their answers. Control thread. */
#include "control/rpc_message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "control/rpc.h"
#include "control/rpc_stream.h"

/* ---- text -------------------------------------------------------------------------------- */

void rpc_text_fini(struct rpc_text *text)
{
	free(text->bytes);
	memset(text, 0, sizeof(*text));
}

int rpc_text_append(struct rpc_text *text, const char *bytes, size_t len)
{
	if (text->capacity - text->len < len) {
		size_t capacity = MAX(text->capacity * 2, text->len + len);
		char *grown = realloc(text->bytes, capacity);
		if (grown == NULL)
			return -ENOMEM;
		text->bytes = grown;
		text->capacity = capacity;
	}
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
	return 0;
}

/* ---- answers ----------------------------------------------------------------------------- */

/* A sentence may quote what somebody sent, cut in the middle of a character. */
static json_t *error_object(int code, const char *sentence)
{
	char ascii[RPC_ERROR_BYTES];
	json_t *object = json_pack("{s:i, s:s}", "code", code, "message", sentence);

	if (object != NULL)
		return object;
	snprintf(ascii, sizeof(ascii), "%s", sentence);
	for (char *p = ascii; *p != '\0'; p++) {
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	}
	return json_pack("{s:i, s:s}", "code", code, "message", ascii);
}

/* Appends one answer to the current call. Takes over the reference to value. */
static void answer_add(struct rpc_message *message, const char *key, json_t *value)
{
	static const char no_memory[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
					"{\"code\":-12,\"message\":\"out of memory\"}}";
	struct rpc_text *answer = &message->answer;
	json_t *object =
		json_pack("{s:s, s:O?, s:o}", "jsonrpc", "2.0", "id", message->id, key, value);
	char *text = json_dumps(object, JSON_COMPACT);
	const char *bytes = text != NULL ? text : no_memory;

	json_decref(object);
	if (message->batch)
		rpc_text_append(answer, message->answer_count == 0 ? "[" : ",", 1);
	rpc_text_append(answer, bytes, strlen(bytes));
	message->answer_count++;
	free(text);
}

static void answer_error(struct rpc_message *message, int code, const char *sentence)
{
	answer_add(message, "error", error_object(code, sentence));
}

static void call_end(struct rpc_message *message)
{
	json_decref(message->id);
	message->id = NULL;
	message->waiting = false;
	message->call_index++;
	if (!message->stepping)
		message->resume(message);
}

static void call_done(void *arg, json_t *result, int code, const char *sentence)
{
	struct rpc_message *message = arg;

	if (message->id != NULL) {
		if (message->answer.len > RPC_ANSWER_BYTES_MAX)
			answer_error(message, RPC_CODE_INTERNAL,
				     "the answer to the batch has become too large");
		else if (result != NULL)
			answer_add(message, "result", json_incref(result));
		else
			answer_error(message, code, sentence);
	}
	call_end(message);
}

/* ---- requests ---------------------------------------------------------------------------- */

/* An id that came as a real because of JSON_DECODE_INT_AS_REAL goes back as an integer. */
static json_t *id_get(json_t *request)
{
	json_t *id = json_object_get(request, "id");
	double real = json_real_value(id);

	if (json_is_real(id) && real >= -9007199254740992.0 && real <= 9007199254740992.0 &&
	    real == (double)(json_int_t)real)
		return json_integer((json_int_t)real);
	return json_incref(id);
}

/* NULL, or what is wrong with the envelope. */
static const char *request_check(json_t *request)
{
	json_t *id = json_object_get(request, "id");
	json_t *version = json_object_get(request, "jsonrpc");

	if (!json_is_object(request))
		return "a request must be an object";
	if (id != NULL && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
		return "id: must be a string, a number or null";
	if (version != NULL &&
	    (!json_is_string(version) || strcmp(json_string_value(version), "2.0") != 0))
		return "jsonrpc: must be \"2.0\"";
	if (!json_is_string(json_object_get(request, "method")))
		return "method: must be a string";
	return NULL;
}

static void call_begin(struct rpc_message *message, json_t *request)
{
	const char *wrong = request_check(request);

	message->waiting = true;
	if (wrong != NULL) {
		answer_error(message, RPC_CODE_INVALID_REQUEST, wrong);
		call_end(message);
		return;
	}
	message->id = id_get(request);
	rpc_call(message->control, json_string_value(json_object_get(request, "method")),
		 json_object_get(request, "params"), RPC_ORIGIN_CLIENT, call_done, message);
}

/* Numbers that no integer holds are no reason to refuse the text: as reals they reach the decoder,
 * which names the parameter. */
static json_t *text_parse(const char *text, size_t len, json_error_t *error)
{
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, error);

	if (root == NULL && json_error_code(error) == json_error_numeric_overflow)
		root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL,
				  error);
	return root;
}

void rpc_message_begin_error(struct rpc_message *message, int code, const char *sentence)
{
	message->active = true;
	message->fatal = true;
	answer_error(message, code, sentence);
}

static void batch_begin(struct rpc_message *message)
{
	size_t count = json_array_size(message->root);
	char sentence[96];

	if (count == 0) {
		answer_error(message, RPC_CODE_INVALID_REQUEST, "a batch must not be empty");
	} else if (count > RPC_BATCH_MAX) {
		snprintf(sentence, sizeof(sentence), "a batch must not be longer than %d",
			 RPC_BATCH_MAX);
		answer_error(message, RPC_CODE_INVALID_REQUEST, sentence);
	} else {
		message->batch = true;
		message->call_count = count;
	}
}

void rpc_message_begin(struct rpc_message *message, const char *text, size_t len)
{
	json_error_t error;
	char sentence[JSON_ERROR_TEXT_LENGTH + 64];

	ensure(!message->active && message->root == NULL);
	message->root = text_parse(text, len, &error);
	if (message->root == NULL) {
		snprintf(sentence, sizeof(sentence), "not valid JSON: %s (byte %d)", error.text,
			 error.position);
		rpc_message_begin_error(message, RPC_CODE_PARSE, sentence);
		return;
	}
	message->active = true;
	if (json_is_array(message->root))
		batch_begin(message);
	else
		message->call_count = 1;
}

static void message_end(struct rpc_message *message)
{
	if (message->batch && message->answer_count > 0)
		rpc_text_append(&message->answer, "]", 1);
	if (message->answer_count > 0)
		rpc_text_append(&message->answer, "\n", 1);
	json_decref(message->root);
	message->root = NULL;
	message->call_index = 0;
	message->call_count = 0;
	message->answer_count = 0;
	message->batch = false;
	message->active = false;
}

void rpc_message_step(struct rpc_message *message)
{
	ensure(message->active);
	if (message->waiting)
		return;
	if (message->call_index == message->call_count) {
		message_end(message);
		return;
	}
	message->stepping = true;
	call_begin(message, message->batch ? json_array_get(message->root, message->call_index)
					   : message->root);
	message->stepping = false;
}

void rpc_message_fini(struct rpc_message *message)
{
	ensure(!message->waiting);
	json_decref(message->root);
	rpc_text_fini(&message->answer);
}
