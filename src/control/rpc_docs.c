/* SPDX-License-Identifier: Apache-2.0 */
/* The method table as text for people. Any thread. */
#include "control/rpc_docs.h"

#include "control/rpc_message.h"
#include "control/rpc_stream.h"

void rpc_docs_list(FILE *out)
{
	const struct rpc_method *method = NULL;

	while ((method = rpc_method_next(method)) != NULL)
		fprintf(out, "  %s\n", method->name);
}

static void param_help(FILE *out, const struct rpc_param *param)
{
	char bounds[256];
	char fallback[32];

	rpc_param_describe(param, bounds, sizeof(bounds));
	rpc_param_describe_fallback(param, fallback, sizeof(fallback));
	fprintf(out, "  %s (%s%s)\n      %s\n      Must be %s.", param->name,
		rpc_type_name(param->type), param->required ? ", required" : "", param->help,
		bounds);
	if (fallback[0] != '\0')
		fprintf(out, " Default: %s.", fallback);
	fputc('\n', out);
}

void rpc_docs_help(FILE *out, const struct rpc_method *method)
{
	fprintf(out, "%s: %s\n", method->name, method->help);
	if (method->alias != NULL)
		fprintf(out, "Older name: %s\n", method->alias);
	fprintf(out, "\nParameters:\n");
	for (size_t i = 0; i < method->param_count; i++)
		param_help(out, &method->params[i]);
	if (method->param_count == 0)
		fprintf(out, "  none\n");
	fprintf(out, "\nResult: %s\n", method->result);
	if (method->changes)
		fprintf(out, "The configuration is on disk before the reply.\n");
}

static void method_reference(FILE *out, const struct rpc_method *method)
{
	char bounds[256];
	char fallback[32];

	fprintf(out, "\n## %s\n\n%s", method->name, method->help);
	if (method->changes)
		fprintf(out, " Changes the configuration, which is on disk before the reply.");
	if (method->alias != NULL)
		fprintf(out, " Older name: `%s`.", method->alias);
	fprintf(out, "\n\n");
	if (method->param_count > 0)
		fprintf(out, "| parameter | type | | what it is | bounds | default |\n"
			     "|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < method->param_count; i++) {
		const struct rpc_param *param = &method->params[i];
		rpc_param_describe(param, bounds, sizeof(bounds));
		rpc_param_describe_fallback(param, fallback, sizeof(fallback));
		fprintf(out, "| `%s` | %s | %s | %s | %s | %s |\n", param->name,
			rpc_type_name(param->type), param->required ? "required" : "", param->help,
			bounds, fallback);
	}
	fprintf(out, "%sResult: %s\n", method->param_count > 0 ? "\n" : "", method->result);
}

void rpc_docs_reference(FILE *out)
{
	const struct rpc_method *method = NULL;

	fprintf(out,
		"# RPC reference\n\n"
		"Written by `sluice rpc --docs` from the table of methods; do not edit.\n\n"
		"JSON-RPC 2.0 on a Unix stream socket, in SPDK's dialect: requests are JSON "
		"objects "
		"that follow one another without framing; batches and notifications are "
		"understood. Parameters are named; unknown ones are refused. A connection's "
		"requests are answered in order.\n\n"
		"A request may have %u bytes and be nested %d levels deep, a batch may have %d "
		"requests. A client that leaves its answer unread for ten seconds is "
		"disconnected.\n\n"
		"| code | meaning |\n|---|---|\n"
		"| %d | not valid JSON; the connection is closed after the answer |\n"
		"| %d | not a valid request |\n"
		"| %d | no such method |\n"
		"| %d | a parameter is missing, unknown or out of bounds; the message names it |\n"
		"| %d | internal error |\n"
		"| -1 to -4095 | the operation failed; the code is that of errno, such as -17 "
		"(EEXIST), -19 (ENODEV), -16 (EBUSY) |\n",
		RPC_MESSAGE_BYTES_MAX, RPC_MESSAGE_DEPTH_MAX, RPC_BATCH_MAX, RPC_CODE_PARSE,
		RPC_CODE_INVALID_REQUEST, RPC_CODE_NO_METHOD, RPC_CODE_INVALID_PARAMS,
		RPC_CODE_INTERNAL);
	while ((method = rpc_method_next(method)) != NULL)
		method_reference(out, method);
}
