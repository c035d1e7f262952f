/* SPDX-License-Identifier: Apache-2.0 */
/* Stamping and proving blocks: see bench_verify.h. Pure. */
#include "cli/bench_verify.h"

#include <string.h>

#include "base/assert.h"
#include "base/random.h"

#define STAMP_MAGIC 0x6b6c426563756c53ull /* "SluceBlk" */
#define WORD_STEP 0x9e3779b97f4a7c15ull

struct stamp {
	uint64_t magic;
	uint64_t seed;
	uint64_t offset;
	uint32_t generation;
	uint32_t check; /* of the four before: a stamp that is damaged does not accuse another */
};
_Static_assert(sizeof(struct stamp) == BENCH_STAMP_BYTES, "stamp");

static uint64_t block_key(uint64_t seed, uint64_t offset, uint32_t generation)
{
	return random_mix(random_mix(random_mix(seed) ^ offset) + generation);
}

static struct stamp make_stamp(uint64_t seed, uint64_t offset, uint32_t generation)
{
	return (struct stamp){
		.magic = STAMP_MAGIC,
		.seed = seed,
		.offset = offset,
		.generation = generation,
		.check = (uint32_t)block_key(~seed, offset, generation),
	};
}

/* One multiplication and a shift a word: compilers make vector code of the loops around it. */
static inline uint64_t pattern_word(uint64_t key, uint32_t index)
{
	uint64_t word = key + index * WORD_STEP;

	return word ^ (word >> 29);
}

void bench_verify_fill(void *block, uint32_t block_bytes, uint64_t seed, uint64_t offset,
		       uint32_t generation)
{
	ensure(block_bytes >= BENCH_STAMP_BYTES && block_bytes % 8 == 0);
	struct stamp stamp = make_stamp(seed, offset, generation);
	uint64_t key = block_key(seed, offset, generation);
	uint64_t *words = block;

	memcpy(block, &stamp, sizeof(stamp));
	for (uint32_t i = BENCH_STAMP_BYTES / 8; i < block_bytes / 8; i++)
		words[i] = pattern_word(key, i);
}

/* The index of the first word after the stamp that does not fit it, or word_count. */
static uint32_t pattern_mismatch(const uint64_t *words, uint32_t word_count, uint64_t key)
{
	uint64_t wrong = 0;

	for (uint32_t i = BENCH_STAMP_BYTES / 8; i < word_count; i++)
		wrong |= words[i] ^ pattern_word(key, i);
	if (wrong == 0)
		return word_count;
	for (uint32_t i = BENCH_STAMP_BYTES / 8; i < word_count; i++) {
		if (words[i] != pattern_word(key, i))
			return i;
	}
	return word_count;
}

static enum bench_verdict judge_unstamped(const uint64_t *words, uint32_t word_count)
{
	for (uint32_t i = 0; i < word_count; i++) {
		if (words[i] != 0)
			return BENCH_VERDICT_GARBAGE;
	}
	return BENCH_VERDICT_ZEROES;
}

enum bench_verdict bench_verify_check(const void *block, uint32_t block_bytes, uint64_t seed,
				      uint64_t offset, uint32_t generation,
				      struct bench_finding *out)
{
	ensure(block_bytes >= BENCH_STAMP_BYTES && block_bytes % 8 == 0);
	const uint64_t *words = block;
	uint32_t word_count = block_bytes / 8;
	struct stamp found;

	memcpy(&found, block, sizeof(found));
	struct stamp right = make_stamp(found.seed, found.offset, found.generation);
	if (memcmp(&found, &right, sizeof(found)) != 0) {
		*out = (struct bench_finding){.verdict = judge_unstamped(words, word_count)};
		return out->verdict;
	}
	*out = (struct bench_finding){.generation = found.generation, .offset = found.offset};
	uint64_t key = block_key(found.seed, found.offset, found.generation);
	uint32_t bad = pattern_mismatch(words, word_count, key);
	if (bad != word_count) {
		out->verdict = BENCH_VERDICT_TORN;
		out->bad_byte = bad * 8;
	} else if (found.seed != seed) {
		out->verdict = BENCH_VERDICT_OTHER_RUN;
	} else if (found.offset != offset) {
		out->verdict = BENCH_VERDICT_OTHER_OFFSET;
	} else if (found.generation != generation) {
		out->verdict = BENCH_VERDICT_OTHER_GENERATION;
	}
	return out->verdict;
}

const char *bench_verdict_name(enum bench_verdict verdict)
{
	static const char *const names[] = {
		[BENCH_VERDICT_OK] = "as written",
		[BENCH_VERDICT_OTHER_GENERATION] = "an older or newer write of the same block",
		[BENCH_VERDICT_OTHER_OFFSET] = "a block that belongs elsewhere",
		[BENCH_VERDICT_OTHER_RUN] = "a block of another run",
		[BENCH_VERDICT_TORN] = "a torn block",
		[BENCH_VERDICT_ZEROES] = "zeroes",
		[BENCH_VERDICT_GARBAGE] = "bytes that no run has written",
	};

	return names[verdict];
}
