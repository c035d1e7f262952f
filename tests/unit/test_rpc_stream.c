/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a stream into JSON messages: pieces of every size, bounds, rubbish. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "control/rpc_stream.h"

/* Lets len bytes arrive, as far as there is room. */
static size_t arrive(struct rpc_stream *stream, const char *bytes, size_t len)
{
	char *room;
	size_t room_len;

	assert_int_equal(rpc_stream_space(stream, &room, &room_len), 0);
	assert_true(room_len > 0);
	len = MIN(len, room_len);
	memcpy(room, bytes, len);
	rpc_stream_arrived(stream, len);
	return len;
}

/* Lets everything arrive in pieces of piece bytes and expects the messages given. */
static void expect_messages(const char *bytes, size_t piece, const char *const *messages,
			    size_t message_count)
{
	struct rpc_stream stream = {0};
	size_t len = strlen(bytes);
	size_t found = 0;
	const char *text;
	size_t text_len;

	for (size_t offset = 0; offset < len;) {
		offset += arrive(&stream, bytes + offset, MIN(piece, len - offset));
		while (rpc_stream_next(&stream, &text, &text_len) == 1) {
			assert_true(found < message_count);
			assert_int_equal(text_len, strlen(messages[found]));
			assert_memory_equal(text, messages[found], text_len);
			found++;
		}
	}
	assert_int_equal(found, message_count);
	assert_false(rpc_stream_partial(&stream));
	rpc_stream_fini(&stream);
}

static void test_messages_in_any_pieces(void **state)
{
	static const char bytes[] =
		" {}\n[1,2]{\"a\":\"}\\\"]{\\\\\"}[[{}],{\"[\":0}]\t{\"x\":{}}  ";
	static const char *const messages[] = {
		"{}", "[1,2]", "{\"a\":\"}\\\"]{\\\\\"}", "[[{}],{\"[\":0}]", "{\"x\":{}}",
	};

	for (size_t piece = 1; piece <= sizeof(bytes); piece++)
		expect_messages(bytes, piece, messages, ARRAY_COUNT(messages));
}

/* The outcome of a whole text: what rpc_stream_next() says in the end. */
static int outcome(const char *bytes, size_t len)
{
	struct rpc_stream stream = {0};
	const char *text;
	size_t text_len;
	int rc = 0;

	for (size_t offset = 0; offset < len && rc >= 0;) {
		offset += arrive(&stream, bytes + offset, len - offset);
		do {
			rc = rpc_stream_next(&stream, &text, &text_len);
		} while (rc == 1);
	}
	rpc_stream_fini(&stream);
	return rc;
}

static void test_rubbish(void **state)
{
	static const char *const rubbish[] = {"x", "{}x", "5", "\"a\"", "]", "{}}", ",", "\xff"};

	for (size_t i = 0; i < ARRAY_COUNT(rubbish); i++)
		assert_int_equal(outcome(rubbish[i], strlen(rubbish[i])), -EINVAL);
	assert_int_equal(outcome("{}\0", 3), -EINVAL);
	assert_int_equal(outcome("{\"", 2), 0);
}

static void test_depth(void **state)
{
	char bytes[2 * (RPC_MESSAGE_DEPTH_MAX + 1)];

	memset(bytes, '[', RPC_MESSAGE_DEPTH_MAX + 1);
	memset(bytes + RPC_MESSAGE_DEPTH_MAX, ']', RPC_MESSAGE_DEPTH_MAX);
	assert_int_equal(outcome(bytes, 2 * RPC_MESSAGE_DEPTH_MAX), 0);
	memset(bytes, '[', RPC_MESSAGE_DEPTH_MAX + 1);
	assert_int_equal(outcome(bytes, RPC_MESSAGE_DEPTH_MAX + 1), -ELOOP);
	/* Brackets in strings are none. */
	bytes[0] = '{';
	bytes[1] = '"';
	assert_int_equal(outcome(bytes, RPC_MESSAGE_DEPTH_MAX + 1), 0);
}

static void test_size(void **state)
{
	size_t len = RPC_MESSAGE_BYTES_MAX + 1;
	char *bytes = malloc(len);

	assert_non_null(bytes);
	memset(bytes, ' ', len);
	bytes[0] = '[';
	bytes[RPC_MESSAGE_BYTES_MAX - 1] = ']';
	assert_int_equal(outcome(bytes, len), 0);
	bytes[RPC_MESSAGE_BYTES_MAX - 1] = ' ';
	assert_int_equal(outcome(bytes, len), -E2BIG);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages_in_any_pieces),
		cmocka_unit_test(test_rubbish),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
