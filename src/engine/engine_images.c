/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are served straight from the command line. Control thread. */
#include "engine/engine_images.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/file/bdev_file.h"
#include "base/log.h"
#include "reactor/worker.h"
#include "vhost/vhost.h"

struct images {
	struct worker_job job;
	const struct engine_options *options;
	size_t index;
	struct bdev *bdev; /* opened, not registered yet */
	int rc;
	char error[512];
	void (*done)(void *arg, int rc);
	void *arg;
};

static const struct engine_image *images_current(const struct images *images)
{
	return &images->options->images[images->index];
}

static void images_open(struct worker_job *job)
{
	struct images *images = container_of(job, struct images, job);
	const struct engine_image *image = images_current(images);
	const struct bdev_file_options file = {
		.name = image->name,
		.filename = image->path,
		.read_only = images->options->read_only,
		.dialect = BDEV_FILE_URING,
	};

	images->rc = bdev_file_open(&file, &images->bdev, images->error, sizeof(images->error));
}

static int images_register(struct images *images)
{
	int rc = bdev_file_register(images->bdev, images->error, sizeof(images->error));

	if (rc < 0)
		bdev_file_abandon(images->bdev);
	return rc;
}

static int images_serve(struct images *images)
{
	const struct engine_image *image = images_current(images);
	const struct vhost_blk_options blk = {
		.name = image->name,
		.socket_path = image->socket_path,
		.bdev_name = image->name,
		.queue_count = images->options->queue_count,
		.read_only = images->options->read_only,
		.packed_ring = true,
		.writeback = true,
	};
	struct vhost_controller *controller;

	return vhost_blk_create(&blk, &controller, images->error, sizeof(images->error));
}

static void images_end(struct images *images, int rc)
{
	images->done(images->arg, rc);
	free(images);
}

static void images_opened(struct worker_job *job)
{
	struct images *images = container_of(job, struct images, job);
	int rc = images->rc;

	if (rc == 0)
		rc = images_register(images);
	if (rc == 0)
		rc = images_serve(images);
	if (rc < 0) {
		log_error("%s: %s", images_current(images)->path,
			  images->error[0] != '\0' ? images->error : strerror(-rc));
		images_end(images, rc);
	} else if (++images->index == images->options->image_count) {
		images_end(images, 0);
	} else {
		worker_submit(&images->job);
	}
}

void engine_images_start(const struct engine_options *options, void (*done)(void *arg, int rc),
			 void *arg)
{
	struct images *images = options->image_count > 0 ? calloc(1, sizeof(*images)) : NULL;

	if (images == NULL) {
		done(arg, options->image_count > 0 ? -ENOMEM : 0);
		return;
	}
	images->options = options;
	images->done = done;
	images->arg = arg;
	images->job.run = images_open;
	images->job.done = images_opened;
	worker_submit(&images->job);
}
