/* SPDX-License-Identifier: Apache-2.0 */
/* Random I/O against a model; see disk_model.h. Runs on the test's main thread. */
#include "disk_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"

/* One I/O of a round, with its buffer. */
struct slot {
	char *memory; /* allocated */
	char *buf;    /* where the payload is, odd if asked for */
	struct iovec *iovs;
};

struct model {
	const struct disk_model_options *options;
	struct harness_disk *disk;
	uint64_t size_bytes;
	uint32_t block_size;
	char *bytes;
	char *undefined; /* a flag a block: discarded, may read as anything */
	struct slot *slots;
	struct bdev_io *ios;
	enum bdev_status *statuses;
};

static enum bdev_io_type random_type(const struct bdev_limits *limits)
{
	uint64_t dice = harness_random(100);

	if (dice < 42)
		return BDEV_IO_READ;
	if (dice < 84)
		return BDEV_IO_WRITE;
	if (dice < 94)
		return BDEV_IO_WRITE_ZEROES;
	if (dice < 97 && limits->discard_max_bytes > 0)
		return BDEV_IO_DISCARD;
	return BDEV_IO_FLUSH;
}

/* Cuts the payload into iovecs at random places that are multiples of buffer_align. */
static uint32_t cut(const struct model *model, struct slot *slot, uint64_t len_bytes)
{
	uint32_t align = model->options->buffer_align;
	uint32_t count = 1 + (uint32_t)harness_random(model->options->iov_max_count);
	uint32_t used = 0;
	uint64_t done = 0;

	while (done < len_bytes) {
		uint64_t len = len_bytes - done;
		if (used + 1 < count && len > align)
			len = (1 + harness_random(len / align)) * align;
		slot->iovs[used++] = (struct iovec){.iov_base = slot->buf + done, .iov_len = len};
		done += len;
	}
	return used;
}

static void prepare(struct model *model, unsigned int i)
{
	const struct disk_model_options *options = model->options;
	struct slot *slot = &model->slots[i];
	struct bdev_io *io = &model->ios[i];
	uint64_t zone_blocks = model->size_bytes / model->block_size / options->depth;
	uint64_t max_blocks = MIN(zone_blocks, options->io_max_bytes / model->block_size);
	uint64_t blocks = 1 + harness_random(max_blocks);
	uint64_t first = i * zone_blocks + harness_random(zone_blocks - blocks + 1);

	memset(io, 0, sizeof(*io));
	io->type = random_type(&model->disk->bdev->limits);
	io->offset_bytes = first * model->block_size;
	io->len_bytes = blocks * model->block_size;
	if (io->type == BDEV_IO_WRITE_ZEROES && harness_random(2) == 0)
		io->flags = BDEV_IO_UNMAP;
	slot->buf = slot->memory + (options->buffer_align == 1 ? harness_random(4096) : 0);
	io->iovs = slot->iovs;
	if (io->type == BDEV_IO_READ || io->type == BDEV_IO_WRITE)
		io->iov_count = cut(model, slot, io->len_bytes);
	if (io->type == BDEV_IO_READ)
		memset(slot->buf, 0xee, io->len_bytes);
	else if (io->type == BDEV_IO_WRITE)
		harness_random_fill(slot->buf, io->len_bytes);
}

static void compare(const struct model *model, const struct bdev_io *io, const char *buf)
{
	for (uint64_t at = 0; at < io->len_bytes; at += model->block_size) {
		uint64_t offset = io->offset_bytes + at;

		if (model->undefined[offset / model->block_size])
			continue;
		if (memcmp(buf + at, model->bytes + offset, model->block_size) != 0)
			fail_msg("block at %llu differs (I/O of %llu at %llu, %u iovecs)",
				 (unsigned long long)offset, (unsigned long long)io->len_bytes,
				 (unsigned long long)io->offset_bytes, io->iov_count);
	}
}

/* Brings the model up to an I/O that has ended, or compares what it read. */
static void apply(struct model *model, const struct bdev_io *io, const char *buf)
{
	char *undefined = model->undefined + io->offset_bytes / model->block_size;
	uint64_t blocks = io->len_bytes / model->block_size;

	switch (io->type) {
	case BDEV_IO_READ:
		compare(model, io, buf);
		break;
	case BDEV_IO_WRITE:
		memcpy(model->bytes + io->offset_bytes, buf, io->len_bytes);
		memset(undefined, 0, blocks);
		break;
	case BDEV_IO_WRITE_ZEROES:
		memset(model->bytes + io->offset_bytes, 0, io->len_bytes);
		memset(undefined, 0, blocks);
		break;
	case BDEV_IO_DISCARD:
		memset(undefined, 1, blocks);
		break;
	default:
		break;
	}
}

static void run_round(struct model *model)
{
	unsigned int depth = model->options->depth;

	for (unsigned int i = 0; i < depth; i++)
		prepare(model, i);
	harness_submit(model->disk, model->ios, depth, model->statuses);
	for (unsigned int i = 0; i < depth; i++) {
		assert_int_equal(model->statuses[i], BDEV_STATUS_OK);
		apply(model, &model->ios[i], model->slots[i].buf);
	}
}

static void model_init(struct model *model)
{
	const struct disk_model_options *options = model->options;

	model->bytes = calloc(1, model->size_bytes);
	model->undefined = calloc(1, model->size_bytes / model->block_size);
	model->slots = calloc(options->depth, sizeof(*model->slots));
	model->ios = calloc(options->depth, sizeof(*model->ios));
	model->statuses = calloc(options->depth, sizeof(*model->statuses));
	for (unsigned int i = 0; i < options->depth; i++) {
		size_t bytes = (options->io_max_bytes + 2 * 4096) & ~4095ull;

		model->slots[i].memory = aligned_alloc(4096, bytes);
		model->slots[i].iovs = calloc(options->iov_max_count, sizeof(struct iovec));
		ensure(model->slots[i].memory != NULL && model->slots[i].iovs != NULL);
	}
}

static void model_fini(struct model *model)
{
	for (unsigned int i = 0; i < model->options->depth; i++) {
		free(model->slots[i].memory);
		free(model->slots[i].iovs);
	}
	free(model->bytes);
	free(model->undefined);
	free(model->slots);
	free(model->ios);
	free(model->statuses);
}

void disk_model_run(struct harness_disk *disk, const struct disk_model_options *options)
{
	struct model model = {
		.options = options,
		.disk = disk,
		.size_bytes = bdev_size_bytes(disk->bdev),
		.block_size = disk->bdev->limits.block_size_bytes,
	};

	model_init(&model);
	assert_int_equal(harness_io(disk, BDEV_IO_WRITE_ZEROES, 0, 0, NULL, model.size_bytes),
			 BDEV_STATUS_OK);
	for (unsigned int i = 0; i < options->round_count; i++)
		run_round(&model);
	model_fini(&model);
}
