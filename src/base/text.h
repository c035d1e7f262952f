/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, sizes and CPU lists as people write them. Pure, any thread. */
#ifndef SLUICE_BASE_TEXT_H
#define SLUICE_BASE_TEXT_H

#include <stdint.h>

/* "4096", "4k", "512M", "1G", "2T" (powers of 1024, "KiB"/"kB" spellings too) into bytes: 0, or
 * -EINVAL (no number, or something after it) or -ERANGE (over 2^64). */
int text_parse_size(const char *text, uint64_t *out_bytes);

/* A decimal number up to max: 0, -EINVAL or -ERANGE. */
int text_parse_u64(const char *text, uint64_t max, uint64_t *out);

/* A CPU set written as a list ("0,2-3", also in brackets as "[0,2-3]") or as a hexadecimal mask
 * ("0x5"), into bits of a word array: bit c of words[c / 64] is set for CPU c. Words are cleared
 * first. 0, -EINVAL, -ERANGE for a CPU >= word_count * 64. An empty set is -EINVAL. */
int text_parse_cpus(const char *text, uint64_t *words, unsigned int word_count);

#endif
