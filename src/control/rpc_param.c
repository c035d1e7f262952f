/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding and describing the parameters of RPC methods. Pure, any thread. */
#include "control/rpc_param.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/compiler.h"
#include "base/text.h"
#include "bdev/bdev.h"
#include "reactor/reactor.h"

/* A decoder stores a value that fits and returns true. */
typedef bool (*decode_fn)(const struct rpc_param *param, const json_t *value, void *out);

static uint64_t string_max(const struct rpc_param *param)
{
	return param->max != 0 ? param->max : RPC_STRING_MAX;
}

static bool decode_string(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);

	if (text == NULL || strlen(text) < param->min || strlen(text) > string_max(param))
		return false;
	*(const char **)out = text;
	return true;
}

static bool decode_name(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);

	if (text == NULL || !bdev_name_valid(text))
		return false;
	*(const char **)out = text;
	return true;
}

static bool decode_choice(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);

	for (const char *const *c = param->choices; text != NULL && *c != NULL; c++) {
		if (strcmp(text, *c) == 0) {
			*(const char **)out = text;
			return true;
		}
	}
	return false;
}

static bool decode_uuid(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);
	uuid_t unused;

	if (text == NULL || strlen(text) != RPC_UUID_TEXT_BYTES || uuid_parse(text, unused) != 0)
		return false;
	*(const char **)out = text;
	return true;
}

static bool decode_bool(const struct rpc_param *param, const json_t *value, void *out)
{
	if (!json_is_boolean(value))
		return false;
	*(bool *)out = json_is_true(value);
	return true;
}

/* A real is taken if it is a whole number that a double holds exactly: a request with one number
 * too large for an integer is parsed with all of them as reals (rpc_envelope.c). */
static bool number_get(const json_t *value, uint64_t *out)
{
	if (json_is_integer(value) && json_integer_value(value) >= 0) {
		*out = (uint64_t)json_integer_value(value);
		return true;
	}
	double real = json_real_value(value);
	if (!json_is_real(value) || !(real >= 0.0 && real <= 9007199254740992.0) ||
	    real != (double)(uint64_t)real)
		return false;
	*out = (uint64_t)real;
	return true;
}

static bool within(const struct rpc_param *param, uint64_t number)
{
	return number >= param->min && number <= param->max;
}

static bool decode_u32(const struct rpc_param *param, const json_t *value, void *out)
{
	uint64_t number;

	if (!number_get(value, &number) || number > UINT32_MAX || !within(param, number))
		return false;
	*(uint32_t *)out = (uint32_t)number;
	return true;
}

static bool decode_u64(const struct rpc_param *param, const json_t *value, void *out)
{
	uint64_t number;

	if (!number_get(value, &number) || !within(param, number))
		return false;
	*(uint64_t *)out = number;
	return true;
}

static bool decode_size(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);
	uint64_t bytes;

	if (text == NULL)
		return decode_u64(param, value, out);
	if (text_parse_size(text, &bytes) < 0 || !within(param, bytes))
		return false;
	*(uint64_t *)out = bytes;
	return true;
}

/* SPDK's spelling: a list in brackets, anything else is a hexadecimal mask, "0x" or not. */
static bool decode_cpumask(const struct rpc_param *param, const json_t *value, void *out)
{
	const char *text = json_string_value(value);
	char mask[REACTOR_CPU_MAX / 4 + 3];

	if (text == NULL || text[0] == '\0' || strlen(text) + 3 > sizeof(mask))
		return false;
	if (text[0] != '[' && strncasecmp(text, "0x", 2) != 0) {
		snprintf(mask, sizeof(mask), "0x%s", text);
		text = mask;
	}
	return text_parse_cpus(text, out, REACTOR_CPU_WORDS) == 0;
}

static bool decode_array(const struct rpc_param *param, const json_t *value, void *out)
{
	if (!json_is_array(value))
		return false;
	*(const json_t **)out = value;
	return true;
}

static const struct {
	const char *name;
	decode_fn decode;
	size_t bytes;          /* of the decoded value */
	size_t fallback_bytes; /* 0: absent leaves zeroes */
} types[RPC_TYPE_COUNT] = {
	[RPC_TYPE_STRING] = {"string", decode_string, sizeof(char *), 0},
	[RPC_TYPE_NAME] = {"string", decode_name, sizeof(char *), 0},
	[RPC_TYPE_CHOICE] = {"string", decode_choice, sizeof(char *), 0},
	[RPC_TYPE_UUID] = {"string", decode_uuid, sizeof(char *), 0},
	[RPC_TYPE_BOOL] = {"boolean", decode_bool, sizeof(bool), sizeof(bool)},
	[RPC_TYPE_U32] = {"number", decode_u32, sizeof(uint32_t), sizeof(uint32_t)},
	[RPC_TYPE_U64] = {"number", decode_u64, sizeof(uint64_t), sizeof(uint64_t)},
	[RPC_TYPE_SIZE] = {"number or string", decode_size, sizeof(uint64_t), sizeof(uint64_t)},
	[RPC_TYPE_CPUMASK] = {"string", decode_cpumask, REACTOR_CPU_WORDS * sizeof(uint64_t), 0},
	[RPC_TYPE_ARRAY] = {"array", decode_array, sizeof(json_t *), 0},
};

const char *rpc_type_name(enum rpc_type type)
{
	return types[type].name;
}

static void describe_string(const struct rpc_param *param, char *text, size_t text_bytes)
{
	snprintf(text, text_bytes, "a string of %llu to %llu bytes", (unsigned long long)param->min,
		 (unsigned long long)string_max(param));
}

static void describe_number(const struct rpc_param *param, char *text, size_t text_bytes)
{
	const char *more = param->type == RPC_TYPE_SIZE
				   ? " of bytes, or text with a unit such as \"10G\","
				   : "";

	if (param->min == param->max)
		snprintf(text, text_bytes, "the number %llu", (unsigned long long)param->min);
	else
		snprintf(text, text_bytes, "a whole number%s from %llu to %llu", more,
			 (unsigned long long)param->min, (unsigned long long)param->max);
}

static void describe_choice(const struct rpc_param *param, char *text, size_t text_bytes)
{
	size_t len = (size_t)snprintf(text, text_bytes, "one of");

	for (const char *const *c = param->choices; *c != NULL && len < text_bytes; c++)
		len += (size_t)snprintf(text + len, text_bytes - len, "%s \"%s\"",
					c == param->choices ? "" : ",", *c);
}

void rpc_param_describe(const struct rpc_param *param, char *text, size_t text_bytes)
{
	static const char *const fixed[RPC_TYPE_COUNT] = {
		[RPC_TYPE_NAME] = "a name of 1 to 63 letters, digits, '.', '_', ':' or '-', that "
				  "starts with none of '-' and '.'",
		[RPC_TYPE_UUID] = "a UUID such as \"123e4567-e89b-12d3-a456-426614174000\"",
		[RPC_TYPE_BOOL] = "true or false",
		[RPC_TYPE_CPUMASK] = "a mask such as \"0x5\" or a list such as \"[0,2]\" of CPUs "
				     "below 1024",
		[RPC_TYPE_ARRAY] = "an array",
	};

	if (param->type == RPC_TYPE_STRING)
		describe_string(param, text, text_bytes);
	else if (param->type == RPC_TYPE_CHOICE)
		describe_choice(param, text, text_bytes);
	else if (fixed[param->type] != NULL)
		snprintf(text, text_bytes, "%s", fixed[param->type]);
	else
		describe_number(param, text, text_bytes);
}

void rpc_param_describe_fallback(const struct rpc_param *param, char *text, size_t text_bytes)
{
	text[0] = '\0';
	if (param->required || param->offset == RPC_PARAM_IGNORED)
		return;
	if (param->type == RPC_TYPE_BOOL)
		snprintf(text, text_bytes, "%s", param->fallback ? "true" : "false");
	else if (param->fallback != 0)
		snprintf(text, text_bytes, "%llu", (unsigned long long)param->fallback);
}

static const struct rpc_param *param_find(const struct rpc_param *params, size_t param_count,
					  const char *name)
{
	for (size_t i = 0; i < param_count; i++) {
		if (strcmp(params[i].name, name) == 0)
			return &params[i];
	}
	return NULL;
}

static int refuse_unknown(const struct rpc_param *params, size_t param_count, const char *name,
			  char *error, size_t error_bytes)
{
	size_t len =
		(size_t)snprintf(error, error_bytes, "%.64s: unknown parameter; known are:", name);

	for (size_t i = 0; i < param_count && len < error_bytes; i++)
		len += (size_t)snprintf(error + len, error_bytes - len, "%s %s", i ? "," : "",
					params[i].name);
	if (param_count == 0)
		snprintf(error, error_bytes, "%.64s: unknown parameter; there are none", name);
	return -EINVAL;
}

static void fallback_store(const struct rpc_param *param, void *args)
{
	size_t bytes = types[param->type].fallback_bytes;

	/* Little-endian or not: each width is stored from a value of that width. */
	if (param->offset == RPC_PARAM_IGNORED || bytes == 0)
		return;
	char *out = (char *)args + param->offset;
	if (bytes == sizeof(bool))
		*(bool *)out = param->fallback != 0;
	else if (bytes == sizeof(uint32_t))
		*(uint32_t *)out = (uint32_t)param->fallback;
	else
		*(uint64_t *)out = param->fallback;
}

static int param_decode(const struct rpc_param *param, const json_t *value, void *args, char *error,
			size_t error_bytes)
{
	uint64_t scratch[REACTOR_CPU_WORDS];
	char phrase[256];

	if (value == NULL && param->required) {
		snprintf(error, error_bytes, "%s: is required", param->name);
		return -EINVAL;
	}
	if (value == NULL) {
		fallback_store(param, args);
		return 0;
	}
	if (!types[param->type].decode(param, value, scratch)) {
		rpc_param_describe(param, phrase, sizeof(phrase));
		snprintf(error, error_bytes, "%s: must be %s", param->name, phrase);
		return -EINVAL;
	}
	if (param->offset != RPC_PARAM_IGNORED)
		memcpy((char *)args + param->offset, scratch, types[param->type].bytes);
	return 0;
}

int rpc_params_decode(const struct rpc_param *params, size_t param_count, const json_t *object,
		      void *args, char *error, size_t error_bytes)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)object, name, value) {
		if (param_find(params, param_count, name) == NULL)
			return refuse_unknown(params, param_count, name, error, error_bytes);
	}
	for (size_t i = 0; i < param_count; i++) {
		int rc = param_decode(&params[i], json_object_get(object, params[i].name), args,
				      error, error_bytes);
		if (rc < 0)
			return rc;
	}
	return 0;
}
