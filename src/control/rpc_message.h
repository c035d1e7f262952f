/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One JSON-RPC 2.0 message: a request, a notification or a batch of them, and the text of its
 * answer. The calls of a batch run one after the other. Control thread.
 */
#ifndef SLUICE_CONTROL_RPC_MESSAGE_H
#define SLUICE_CONTROL_RPC_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct control;

/* The most calls in a batch, and the largest answer; what would not fit gets an error instead. */
#define RPC_BATCH_MAX 1024
#define RPC_ANSWER_BYTES_MAX (64u << 20)

struct rpc_text {
	char *bytes;
	size_t len;
	size_t capacity;
};
void rpc_text_fini(struct rpc_text *text);
/* 0 or -ENOMEM. */
int rpc_text_append(struct rpc_text *text, const char *bytes, size_t len);

struct rpc_message {
	struct control *control;
	/* Called each time a call that did not end inside rpc_message_step() has ended. */
	void (*resume)(struct rpc_message *message);

	json_t *root;
	size_t call_index;
	size_t call_count;
	size_t answer_count;
	json_t *id; /* of the current call; NULL: a notification */
	bool batch;
	bool active;
	bool waiting;  /* for the outcome of a call */
	bool stepping; /* inside rpc_message_step() */
	bool fatal;    /* the text was no JSON: what follows on the stream cannot be trusted */
	struct rpc_text answer;
};

/* Takes a text with balanced brackets. It is now active. */
void rpc_message_begin(struct rpc_message *message, const char *text, size_t len);
/* Takes a failure of the stream itself. */
void rpc_message_begin_error(struct rpc_message *message, int code, const char *sentence);
/* Makes the next call, unless one is waited for. When there is none left the answer is complete
 * and the message no longer active. */
void rpc_message_step(struct rpc_message *message);
/* Not while waiting. */
void rpc_message_fini(struct rpc_message *message);

#endif
