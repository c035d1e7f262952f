/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as text for people: tables with a line an object, lists with a line a field. */
#ifndef SLUICE_CLI_TABLE_H
#define SLUICE_CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_CELL_BYTES 128

struct table_column {
	const char *title;
	/* Puts the text of one row's cell into TABLE_CELL_BYTES at text; NULL: the field key. */
	void (*cell)(const json_t *row, const json_t *root, char *text);
	const char *key;
	bool right; /* numbers */
};

/* rows: an array. root: the whole answer, handed to the cells. */
void table_print(FILE *out, const struct table_column *columns, size_t column_count,
		 const json_t *rows, const json_t *root);
/* An object, a line a field. */
void table_print_fields(FILE *out, const json_t *object);
/* A scalar as plain text, anything else as JSON. */
void table_value_text(const json_t *value, char *text);
/* "1.5G": binary units. */
void table_bytes_text(uint64_t bytes, char *text);

#endif
