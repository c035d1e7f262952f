/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as text for people. Main thread. */
#include "cli/table.h"

#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

void table_bytes_text(uint64_t bytes, char *text)
{
	static const char units[] = "BKMGTPE";
	size_t unit = 0;
	uint64_t whole = bytes;

	while (whole >= 1024 && unit + 1 < sizeof(units) - 1) {
		whole /= 1024;
		unit++;
	}
	if (unit == 0 || (bytes & ((1ull << (10 * unit)) - 1)) == 0)
		snprintf(text, TABLE_CELL_BYTES, "%llu%c", (unsigned long long)whole, units[unit]);
	else
		snprintf(text, TABLE_CELL_BYTES, "%.1f%c",
			 (double)bytes / (double)(1ull << (10 * unit)), units[unit]);
}

void table_value_text(const json_t *value, char *text)
{
	if (json_is_string(value)) {
		snprintf(text, TABLE_CELL_BYTES, "%s", json_string_value(value));
	} else if (json_is_boolean(value)) {
		snprintf(text, TABLE_CELL_BYTES, "%s", json_is_true(value) ? "yes" : "no");
	} else if (value == NULL || json_is_null(value)) {
		snprintf(text, TABLE_CELL_BYTES, "-");
	} else {
		size_t len = json_dumpb(value, text, TABLE_CELL_BYTES - 1,
					JSON_COMPACT | JSON_ENCODE_ANY);
		text[MIN(len, (size_t)TABLE_CELL_BYTES - 1)] = '\0';
	}
}

static void cell_text(const struct table_column *column, const json_t *row, const json_t *root,
		      char *text)
{
	if (column->cell != NULL)
		column->cell(row, root, text);
	else
		table_value_text(json_object_get(row, column->key), text);
}

static int column_width(const struct table_column *column, const json_t *rows, const json_t *root)
{
	char text[TABLE_CELL_BYTES];
	size_t width = strlen(column->title);
	size_t i;
	json_t *row;

	json_array_foreach (rows, i, row) {
		cell_text(column, row, root, text);
		width = MAX(width, strlen(text));
	}
	return (int)width;
}

static void cell_print(FILE *out, const struct table_column *column, int width, bool last,
		       const char *text)
{
	if (column->right)
		fprintf(out, "%*s%s", width, text, last ? "\n" : "  ");
	else if (last)
		fprintf(out, "%s\n", text);
	else
		fprintf(out, "%-*s  ", width, text);
}

#define TABLE_COLUMN_MAX 16

void table_print(FILE *out, const struct table_column *columns, size_t column_count,
		 const json_t *rows, const json_t *root)
{
	int widths[TABLE_COLUMN_MAX];
	char text[TABLE_CELL_BYTES];
	size_t i;
	json_t *row;

	column_count = MIN(column_count, (size_t)TABLE_COLUMN_MAX);
	for (size_t c = 0; c < column_count; c++) {
		widths[c] = column_width(&columns[c], rows, root);
		cell_print(out, &columns[c], widths[c], c + 1 == column_count, columns[c].title);
	}
	json_array_foreach (rows, i, row) {
		for (size_t c = 0; c < column_count; c++) {
			cell_text(&columns[c], row, root, text);
			cell_print(out, &columns[c], widths[c], c + 1 == column_count, text);
		}
	}
}

/* Each on a line of its own. */
static void print_objects(FILE *out, const char *key, const json_t *objects)
{
	size_t i;
	json_t *object;
	const char *field;
	json_t *value;

	json_array_foreach (objects, i, object) {
		fprintf(out, "%-16s", key);
		json_object_foreach (object, field, value) {
			if (json_is_string(value))
				fprintf(out, " %s", json_string_value(value));
		}
		fputc('\n', out);
	}
}

void table_print_fields(FILE *out, const json_t *object)
{
	char text[TABLE_CELL_BYTES];
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
		if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
			print_objects(out, key, value);
		} else if (json_is_string(value)) {
			fprintf(out, "%-16s %s\n", key, json_string_value(value));
		} else if (!json_is_array(value) || json_array_size(value) > 0) {
			table_value_text(value, text);
			fprintf(out, "%-16s %s\n", key, text);
		}
	}
}
