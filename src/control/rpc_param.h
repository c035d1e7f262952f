/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters of RPC methods: how a method describes them, and the one decoder that checks a JSON
 * object against the description and fills the handler's own structure. Pure, any thread.
 */
#ifndef SLUICE_CONTROL_RPC_PARAM_H
#define SLUICE_CONTROL_RPC_PARAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rpc_type {
	RPC_TYPE_STRING,  /* const char * */
	RPC_TYPE_NAME,    /* const char *, as bdev_name_valid() */
	RPC_TYPE_CHOICE,  /* const char *, one of choices */
	RPC_TYPE_UUID,    /* const char * */
	RPC_TYPE_BOOL,    /* bool */
	RPC_TYPE_U32,     /* uint32_t */
	RPC_TYPE_U64,     /* uint64_t */
	RPC_TYPE_SIZE,    /* uint64_t; JSON number of bytes, or text such as "10G" */
	RPC_TYPE_CPUMASK, /* uint64_t [REACTOR_CPU_WORDS] */
	RPC_TYPE_ARRAY,   /* const json_t * */
	RPC_TYPE_COUNT,
};

/* The offset of a parameter that is checked and then ignored. */
#define RPC_PARAM_IGNORED SIZE_MAX
/* The longest STRING without a bound of its own. */
#define RPC_STRING_MAX 4095

struct rpc_param {
	const char *name;
	enum rpc_type type;
	bool required;
	size_t offset; /* into the handler's structure, or RPC_PARAM_IGNORED */
	/* Bounds: of the value of numbers and sizes; of the length in bytes of a STRING, where
	 * max 0 stands for RPC_STRING_MAX. */
	uint64_t min;
	uint64_t max;
	uint64_t fallback;          /* numbers, sizes, bools: the value when absent */
	const char *const *choices; /* CHOICE: NULL-terminated */
	const char *help;
};

#define RPC_UUID_TEXT_BYTES 36

/* Checks object (NULL: empty) and fills args, zeroed by the caller. Strings and arrays are
 * borrowed from object. 0, or -EINVAL with a sentence that names the field and the bound. */
int rpc_params_decode(const struct rpc_param *params, size_t param_count, const json_t *object,
		      void *args, char *error, size_t error_bytes);

/* "string", "number", ...: for help. */
const char *rpc_type_name(enum rpc_type type);
/* What values a parameter takes, as a phrase: "a whole number from 1 to 256". */
void rpc_param_describe(const struct rpc_param *param, char *text, size_t text_bytes);
/* The value when absent, as a phrase; empty if there is nothing to say. */
void rpc_param_describe_fallback(const struct rpc_param *param, char *text, size_t text_bytes);

#endif
