/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The null back-end: every I/O ends well, inside submit, having done nothing. It measures what all
 * the rest of the engine costs, and is the shortest complete example of a back-end. Created and
 * destroyed on the control thread; submit on the reactor of the channel.
 */
#include "backends/null/bdev_null.h"

#include <errno.h>
#include <stdlib.h>

#include "bdev/bdev_io.h"

#define NULL_UNMAP_MAX_BYTES (1ull << 30)

static void null_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	bdev_io_complete(io, BDEV_STATUS_OK);
}

static void null_destroy(struct bdev *bdev)
{
	free(bdev);
}

static json_t *null_describe(const struct bdev *bdev)
{
	return json_object();
}

static json_t *null_config(const struct bdev *bdev, const char **method)
{
	*method = "bdev_null_create";
	return json_pack("{s:I, s:I, s:I}", "num_blocks", (json_int_t)bdev_config_block_count(bdev),
			 "block_size", (json_int_t)bdev->limits.block_size_bytes,
			 "physical_block_size", (json_int_t)bdev->limits.physical_block_size_bytes);
}

static int null_reserve(struct bdev *bdev, uint64_t block_count)
{
	return 0;
}

static void null_settle(struct bdev *bdev)
{
}

static const struct bdev_ops null_ops = {
	.driver = "null",
	.destroy = null_destroy,
	.submit = null_submit,
	.describe = null_describe,
	.config = null_config,
	.reserve = null_reserve,
	.settle = null_settle,
};

static struct bdev_limits null_limits(const struct bdev_null_options *options)
{
	uint32_t block_size = options->block_size_bytes;
	uint32_t physical = options->physical_block_size_bytes;

	return (struct bdev_limits){
		.block_size_bytes = block_size,
		.physical_block_size_bytes = physical != 0 ? physical : block_size,
		.discard_max_bytes = NULL_UNMAP_MAX_BYTES,
		.discard_granularity_bytes = block_size,
		.write_zeroes_max_bytes = NULL_UNMAP_MAX_BYTES,
		.write_zeroes_unmap = true,
	};
}

int bdev_null_create(const struct bdev_null_options *options, struct bdev **out)
{
	struct bdev *bdev = bdev_alloc(sizeof(*bdev));

	if (bdev == NULL)
		return -ENOMEM;
	bdev->product = "Null disk";
	bdev->ops = &null_ops;
	bdev->block_count = options->block_count;
	bdev->limits = null_limits(options);
	int rc = bdev_set_identity(bdev, options->name, options->uuid);
	if (rc == 0)
		rc = bdev_register(bdev);
	if (rc < 0) {
		free(bdev);
		return rc;
	}
	*out = bdev;
	return 0;
}
