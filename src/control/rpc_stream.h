/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a stream of bytes into JSON objects and arrays that follow one another without framing.
 * Every byte is looked at once, however small the pieces in which it arrives; size and nesting
 * are bounded before a parser sees anything. Owned by one thread.
 */
#ifndef SLUICE_CONTROL_RPC_STREAM_H
#define SLUICE_CONTROL_RPC_STREAM_H

#include <stdbool.h>
#include <stddef.h>

/* The largest message, and the deepest. */
#define RPC_MESSAGE_BYTES_MAX (1u << 20)
#define RPC_MESSAGE_DEPTH_MAX 32

struct rpc_stream {
	char *buf;
	size_t capacity;
	size_t start; /* of the message being scanned */
	size_t scan;  /* the next byte to look at */
	size_t end;   /* of what has arrived */
	unsigned int depth;
	bool in_string;
	bool escaped;
};

/* A zeroed stream is an empty one. */
void rpc_stream_fini(struct rpc_stream *stream);

/* Room for the next bytes, at least one: *out of *len. 0, -ENOMEM. To be called only after
 * rpc_stream_next() said 0. */
int rpc_stream_space(struct rpc_stream *stream, char **out, size_t *len);
/* len bytes have been put into that room. */
void rpc_stream_arrived(struct rpc_stream *stream, size_t len);

/* 1: *text of *len is a message with balanced brackets, valid until the next call. 0: more has to
 * arrive. -EINVAL: something other than an object or array; -E2BIG; -ELOOP: too deep. After an
 * error the stream is useless. */
int rpc_stream_next(struct rpc_stream *stream, const char **text, size_t *len);

/* True in the middle of a message. */
bool rpc_stream_partial(const struct rpc_stream *stream);

#endif
