/* SPDX-License-Identifier: Apache-2.0 */
/* The method table as text for people: help of one method, reference of all. Any thread. */
#ifndef SLUICE_CONTROL_RPC_DOCS_H
#define SLUICE_CONTROL_RPC_DOCS_H

#include <stdio.h>

#include "control/rpc.h"

/* One line each. */
void rpc_docs_list(FILE *out);
void rpc_docs_help(FILE *out, const struct rpc_method *method);
/* docs/rpc.md. */
void rpc_docs_reference(FILE *out);

#endif
