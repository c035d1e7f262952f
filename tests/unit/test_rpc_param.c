/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder of RPC parameters: types, bounds, fallbacks, and what it says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "control/rpc.h"
#include "control/rpc_param.h"
#include "reactor/reactor.h"

struct args {
	const char *text;
	const char *name;
	const char *choice;
	const char *uuid;
	bool flag;
	uint32_t u32;
	uint64_t u64;
	uint64_t size;
	uint64_t cpus[REACTOR_CPU_WORDS];
	const json_t *array;
};

static const char *const choices[] = {"one", "two", NULL};
static const struct rpc_param params[] = {
	{.name = "text",
	 .type = RPC_TYPE_STRING,
	 .offset = offsetof(struct args, text),
	 .min = 2,
	 .max = 4},
	{.name = "name", .type = RPC_TYPE_NAME, .offset = offsetof(struct args, name)},
	{.name = "choice",
	 .type = RPC_TYPE_CHOICE,
	 .offset = offsetof(struct args, choice),
	 .choices = choices},
	{.name = "uuid", .type = RPC_TYPE_UUID, .offset = offsetof(struct args, uuid)},
	{.name = "flag",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct args, flag),
	 .fallback = true},
	{.name = "u32",
	 .type = RPC_TYPE_U32,
	 .offset = offsetof(struct args, u32),
	 .min = 3,
	 .max = 7,
	 .fallback = 5},
	{.name = "u64",
	 .type = RPC_TYPE_U64,
	 .offset = offsetof(struct args, u64),
	 .max = INT64_MAX,
	 .fallback = 1ull << 40},
	{.name = "size",
	 .type = RPC_TYPE_SIZE,
	 .offset = offsetof(struct args, size),
	 .min = 512,
	 .max = 1ull << 40},
	{.name = "cpus", .type = RPC_TYPE_CPUMASK, .offset = offsetof(struct args, cpus)},
	{.name = "array", .type = RPC_TYPE_ARRAY, .offset = offsetof(struct args, array)},
	{.name = "ignored", .type = RPC_TYPE_U32, .offset = RPC_PARAM_IGNORED, .max = 9},
	{.name = "wanted", .type = RPC_TYPE_BOOL, .required = true, .offset = RPC_PARAM_IGNORED},
};

static char error[RPC_ERROR_BYTES];

/* Decodes {"wanted": true, <text>}; *object has to be released. */
static int decode(const char *text, struct args *args, json_t **object)
{
	char json[512];

	snprintf(json, sizeof(json), "{\"wanted\":true%s%s}", text[0] ? "," : "", text);
	memset(args, 0, sizeof(*args));
	error[0] = '\0';
	*object = json_loads(json, 0, NULL);
	if (*object == NULL) /* as rpc_message.c does */
		*object = json_loads(json, JSON_DECODE_INT_AS_REAL, NULL);
	assert_non_null(*object);
	return rpc_params_decode(params, ARRAY_COUNT(params), *object, args, error, sizeof(error));
}

static void test_good(void **state)
{
	struct args args;
	json_t *object;

	assert_int_equal(decode("\"text\":\"abcd\",\"name\":\"a.b-c\",\"choice\":\"two\","
				"\"uuid\":\"123e4567-e89b-12d3-a456-426614174000\",\"flag\":false,"
				"\"u32\":7,\"u64\":9223372036854775807,\"size\":\"1G\","
				"\"cpus\":\"[1,64]\",\"array\":[1],\"ignored\":9",
				&args, &object),
			 0);
	assert_string_equal(args.text, "abcd");
	assert_string_equal(args.name, "a.b-c");
	assert_string_equal(args.choice, "two");
	assert_false(args.flag);
	assert_int_equal(args.u32, 7);
	assert_int_equal(args.u64, INT64_MAX);
	assert_int_equal(args.size, 1u << 30);
	assert_int_equal(args.cpus[0], 2);
	assert_int_equal(args.cpus[1], 1);
	assert_int_equal(json_array_size(args.array), 1);
	json_decref(object);
}

static void test_fallbacks(void **state)
{
	struct args args;
	json_t *object;

	assert_int_equal(decode("", &args, &object), 0);
	assert_null(args.text);
	assert_true(args.flag);
	assert_int_equal(args.u32, 5);
	assert_int_equal(args.u64, 1ull << 40);
	assert_int_equal(args.size, 0);
	assert_int_equal(args.cpus[0], 0);
	json_decref(object);
}

/* SPDK's masks: with and without "0x"; a list only in brackets. */
static void test_masks(void **state)
{
	static const struct {
		const char *text;
		uint64_t word;
	} cases[] = {
		{"\"cpus\":\"0x5\"", 5},      {"\"cpus\":\"5\"", 5},     {"\"cpus\":\"10\"", 0x10},
		{"\"cpus\":\"[0,2-3]\"", 13}, {"\"cpus\":\"fF\"", 0xff},
	};
	struct args args;
	json_t *object;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		assert_int_equal(decode(cases[i].text, &args, &object), 0);
		assert_int_equal(args.cpus[0], cases[i].word);
		json_decref(object);
	}
}

static void test_bounds(void **state)
{
	static const struct {
		const char *text;
		const char *says;
	} cases[] = {
		{"\"text\":\"a\"", "text: must be a string of 2 to 4 bytes"},
		{"\"text\":\"abcde\"", "text: must be"},
		{"\"text\":5", "text: must be"},
		{"\"text\":null", "text: must be"},
		{"\"name\":\"\"", "name: must be"},
		{"\"name\":\".a\"", "name: must be"},
		{"\"name\":\"a b\"", "name: must be"},
		{"\"choice\":\"three\"", "choice: must be one of \"one\", \"two\""},
		{"\"uuid\":\"123e4567\"", "uuid: must be"},
		{"\"flag\":1", "flag: must be true or false"},
		{"\"u32\":2", "u32: must be a whole number from 3 to 7"},
		{"\"u32\":8", "u32: must be"},
		{"\"u32\":4294967300", "u32: must be"},
		{"\"u32\":3.5", "u32: must be"},
		{"\"u32\":\"4\"", "u32: must be"},
		{"\"u64\":-1", "u64: must be"},
		{"\"u64\":9223372036854775808", "u64: must be"},
		{"\"u64\":1e300", "u64: must be"},
		{"\"size\":511", "size: must be a whole number of bytes, or text with a unit"},
		{"\"size\":\"2T\"", "size: must be"},
		{"\"size\":\"1X\"", "size: must be"},
		{"\"size\":\"99999999999999999999\"", "size: must be"},
		{"\"cpus\":\"\"", "cpus: must be"},
		{"\"cpus\":\"0\"", "cpus: must be"},
		{"\"cpus\":\"[]\"", "cpus: must be"},
		{"\"cpus\":\"[1024]\"", "cpus: must be"},
		{"\"cpus\":1", "cpus: must be"},
		{"\"array\":{}", "array: must be an array"},
		{"\"ignored\":10", "ignored: must be"},
		{"\"nonsense\":1", "nonsense: unknown parameter; known are: text, name"},
	};
	struct args args;
	json_t *object;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		assert_int_equal(decode(cases[i].text, &args, &object), -EINVAL);
		if (strncmp(error, cases[i].says, strlen(cases[i].says)) != 0)
			fail_msg("%s: \"%s\"", cases[i].text, error);
		json_decref(object);
	}
}

static void test_required(void **state)
{
	struct args args = {0};

	assert_int_equal(
		rpc_params_decode(params, ARRAY_COUNT(params), NULL, &args, error, sizeof(error)),
		-EINVAL);
	assert_string_equal(error, "wanted: is required");
}

/* The table itself: what a typing mistake could break unseen. */
static void test_method_table(void **state)
{
	const struct rpc_method *method = NULL;
	unsigned int count = 0;

	while ((method = rpc_method_next(method)) != NULL) {
		assert_ptr_equal(rpc_method_find(method->name), method);
		assert_non_null(method->help);
		assert_non_null(method->result);
		assert_non_null(method->handler);
		for (size_t i = 0; i < method->param_count; i++) {
			const struct rpc_param *param = &method->params[i];
			assert_non_null(param->help);
			if (param->offset != RPC_PARAM_IGNORED)
				assert_true(param->offset < method->args_bytes);
			assert_true(param->type != RPC_TYPE_CHOICE || param->choices != NULL);
			assert_true(param->max == 0 || param->min <= param->max);
			for (size_t j = 0; j < i; j++)
				assert_string_not_equal(method->params[j].name, param->name);
		}
		count++;
	}
	assert_true(count > 20);
	assert_null(rpc_method_find("no_such_method"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),     cmocka_unit_test(test_fallbacks),
		cmocka_unit_test(test_masks),    cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_required), cmocka_unit_test(test_method_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
