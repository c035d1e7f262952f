/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are served straight from the command line. Control thread. */
#include "engine/engine_images.h"

#include <string.h>

#include "backends/file/bdev_file.h"
#include "base/log.h"
#include "vhost/vhost.h"

static int image_create(const struct engine_options *options, const struct engine_image *image)
{
	const struct bdev_file_options file = {
		.name = image->name,
		.filename = image->path,
		.read_only = options->read_only,
		.dialect = BDEV_FILE_URING,
	};
	const struct vhost_blk_options blk = {
		.name = image->name,
		.socket_path = image->socket_path,
		.bdev_name = image->name,
		.queue_count = options->queue_count,
		.read_only = options->read_only,
		.writeback = true,
	};
	struct vhost_controller *controller;
	struct bdev *bdev;
	char error[512] = "";
	int rc = bdev_file_create(&file, &bdev, error, sizeof(error));

	if (rc == 0)
		rc = vhost_blk_create(&blk, &controller, error, sizeof(error));
	if (rc < 0)
		log_error("%s: %s", image->path, error[0] != '\0' ? error : strerror(-rc));
	return rc;
}

int engine_images_create(const struct engine_options *options)
{
	for (size_t i = 0; i < options->image_count; i++) {
		int rc = image_create(options, &options->images[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}
