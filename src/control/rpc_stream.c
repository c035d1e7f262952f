/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a stream of bytes into JSON messages. Owned by one thread. */
#include "control/rpc_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define SPACE_BYTES_MIN 4096

void rpc_stream_fini(struct rpc_stream *stream)
{
	free(stream->buf);
	memset(stream, 0, sizeof(*stream));
}

/* Moves what is left of the stream to the front of the buffer; lets go of an empty one. */
static void stream_compact(struct rpc_stream *stream)
{
	if (stream->start == stream->end) {
		rpc_stream_fini(stream);
		return;
	}
	if (stream->start == 0)
		return;
	memmove(stream->buf, stream->buf + stream->start, stream->end - stream->start);
	stream->end -= stream->start;
	stream->scan -= stream->start;
	stream->start = 0;
}

int rpc_stream_space(struct rpc_stream *stream, char **out, size_t *len)
{
	stream_compact(stream);
	if (stream->end == stream->capacity) {
		size_t capacity = stream->capacity ? stream->capacity * 2 : SPACE_BYTES_MIN;
		char *buf = realloc(stream->buf, capacity);
		if (buf == NULL)
			return -ENOMEM;
		stream->buf = buf;
		stream->capacity = capacity;
	}
	*out = stream->buf + stream->end;
	*len = stream->capacity - stream->end;
	return 0;
}

void rpc_stream_arrived(struct rpc_stream *stream, size_t len)
{
	ensure(len <= stream->capacity - stream->end);
	stream->end += len;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void scan_string(struct rpc_stream *stream, char c)
{
	if (stream->escaped)
		stream->escaped = false;
	else if (c == '\\')
		stream->escaped = true;
	else if (c == '"')
		stream->in_string = false;
}

/* 1: c closes the message. 0: it does not. -ELOOP. */
static int scan_char(struct rpc_stream *stream, char c)
{
	if (stream->in_string) {
		scan_string(stream, c);
		return 0;
	}
	if (c == '"')
		stream->in_string = true;
	if (c == '{' || c == '[')
		return ++stream->depth > RPC_MESSAGE_DEPTH_MAX ? -ELOOP : 0;
	if (c == '}' || c == ']')
		return --stream->depth == 0;
	return 0;
}

int rpc_stream_next(struct rpc_stream *stream, const char **text, size_t *len)
{
	while (stream->depth == 0 && stream->scan < stream->end) {
		char c = stream->buf[stream->scan];
		if (c == '{' || c == '[')
			break;
		if (!is_space(c))
			return -EINVAL;
		stream->start = ++stream->scan;
	}
	while (stream->scan < stream->end) {
		int rc = scan_char(stream, stream->buf[stream->scan++]);
		if (rc < 0)
			return rc;
		if (stream->scan - stream->start > RPC_MESSAGE_BYTES_MAX)
			return -E2BIG;
		if (rc > 0) {
			*text = stream->buf + stream->start;
			*len = stream->scan - stream->start;
			stream->start = stream->scan;
			return 1;
		}
	}
	return 0;
}

bool rpc_stream_partial(const struct rpc_stream *stream)
{
	return stream->depth > 0;
}
