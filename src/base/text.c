/* SPDX-License-Identifier: Apache-2.0 */
/* Parsers for what people write on command lines and in RPC parameters. Pure, any thread. */
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int text_parse_u64(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (*end != '\0')
		return -EINVAL;
	if (errno == ERANGE || v > max)
		return -ERANGE;
	*out = v;
	return 0;
}

static int size_shift(const char *suffix)
{
	static const struct {
		const char *name;
		int shift;
	} units[] = {
		{"", 0},    {"b", 0},    {"k", 10}, {"kb", 10},  {"kib", 10}, {"m", 20},
		{"mb", 20}, {"mib", 20}, {"g", 30}, {"gb", 30},  {"gib", 30}, {"t", 40},
		{"tb", 40}, {"tib", 40}, {"p", 50}, {"pib", 50},
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcasecmp(suffix, units[i].name) == 0)
			return units[i].shift;
	}
	return -EINVAL;
}

int text_parse_size(const char *text, uint64_t *out_bytes)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno == ERANGE)
		return -ERANGE;
	int shift = size_shift(end);
	if (shift < 0)
		return shift;
	if (shift > 0 && v > (UINT64_MAX >> shift))
		return -ERANGE;
	*out_bytes = (uint64_t)v << shift;
	return 0;
}

static int set_cpu(uint64_t *words, unsigned int word_count, uint64_t cpu)
{
	if (cpu >= (uint64_t)word_count * 64)
		return -ERANGE;
	words[cpu / 64] |= 1ull << (cpu % 64);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_mask(const char *hex, uint64_t *words, unsigned int word_count)
{
	size_t len = strlen(hex);

	if (len == 0)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(hex[len - 1 - i]);
		if (digit < 0)
			return -EINVAL;
		for (unsigned int bit = 0; bit < 4; bit++) {
			if (!(digit & (1 << bit)))
				continue;
			int rc = set_cpu(words, word_count, i * 4 + bit);
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

static int parse_number(const char **p, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)**p))
		return -EINVAL;
	errno = 0;
	*out = strtoull(*p, &end, 10);
	*p = end;
	return errno == ERANGE ? -ERANGE : 0;
}

static int parse_list(const char *p, uint64_t *words, unsigned int word_count)
{
	for (;;) {
		uint64_t first, last;
		int rc = parse_number(&p, &first);
		if (rc < 0)
			return rc;
		last = first;
		if (*p == '-') {
			p++;
			rc = parse_number(&p, &last);
			if (rc < 0)
				return rc;
		}
		if (last < first)
			return -EINVAL;
		if (last >= (uint64_t)word_count * 64)
			return -ERANGE;
		for (uint64_t c = first; c <= last; c++)
			(void)set_cpu(words, word_count, c);
		if (*p == '\0')
			return 0;
		if (*p++ != ',')
			return -EINVAL;
	}
}

int text_parse_cpus(const char *text, uint64_t *words, unsigned int word_count)
{
	char list[256];
	size_t len = strlen(text);
	int rc;

	memset(words, 0, word_count * sizeof(*words));
	if (len >= sizeof(list))
		return -EINVAL;
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
		rc = parse_mask(text + 2, words, word_count);
	} else if (text[0] == '[' && len >= 2 && text[len - 1] == ']') {
		memcpy(list, text + 1, len - 2);
		list[len - 2] = '\0';
		rc = parse_list(list, words, word_count);
	} else {
		rc = parse_list(text, words, word_count);
	}
	if (rc < 0)
		return rc;
	for (unsigned int i = 0; i < word_count; i++) {
		if (words[i] != 0)
			return 0;
	}
	return -EINVAL;
}
