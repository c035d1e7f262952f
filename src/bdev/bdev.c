/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of block devices, and who has them open. Control thread. */
#include "bdev/bdev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "bdev/bdev_impl.h"

/* Of struct bdev, in order of creation. */
static struct list registry = {.next = &registry, .prev = &registry};

static const char *const type_names[BDEV_IO_TYPE_COUNT] = {
	[BDEV_IO_READ] = "read",
	[BDEV_IO_WRITE] = "write",
	[BDEV_IO_FLUSH] = "flush",
	[BDEV_IO_DISCARD] = "discard",
	[BDEV_IO_WRITE_ZEROES] = "write_zeroes",
};

static const char *const status_names[BDEV_STATUS_COUNT] = {
	[BDEV_STATUS_OK] = "ok",
	[BDEV_STATUS_IO_ERROR] = "I/O error",
	[BDEV_STATUS_NO_SPACE] = "no space",
	[BDEV_STATUS_OUT_OF_RANGE] = "out of range",
	[BDEV_STATUS_MISALIGNED] = "misaligned",
	[BDEV_STATUS_READ_ONLY] = "read-only",
	[BDEV_STATUS_UNSUPPORTED] = "unsupported",
	[BDEV_STATUS_ABORTED] = "aborted",
};

const char *bdev_io_type_name(enum bdev_io_type type)
{
	ensure(type < BDEV_IO_TYPE_COUNT);
	return type_names[type];
}

const char *bdev_status_name(enum bdev_status status)
{
	ensure(status < BDEV_STATUS_COUNT);
	return status_names[status];
}

enum bdev_status bdev_status_from_errno(int rc)
{
	switch (-rc) {
	case 0:
		return BDEV_STATUS_OK;
	case ENOSPC:
	case EDQUOT:
		return BDEV_STATUS_NO_SPACE;
	case EROFS:
		return BDEV_STATUS_READ_ONLY;
	case EOPNOTSUPP:
	case ENOSYS:
		return BDEV_STATUS_UNSUPPORTED;
	case ECANCELED:
	case ENODEV:
	case ENXIO:
		return BDEV_STATUS_ABORTED;
	default:
		return BDEV_STATUS_IO_ERROR;
	}
}

/* ---- registry ---------------------------------------------------------------------------- */

static bool name_char_valid(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == ':' || c == '-';
}

bool bdev_name_valid(const char *name)
{
	size_t len = strnlen(name, BDEV_NAME_MAX);

	if (len == 0 || len >= BDEV_NAME_MAX || name[0] == '-' || name[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!name_char_valid(name[i]))
			return false;
	}
	return true;
}

void *bdev_alloc(size_t size_bytes)
{
	size_t align = _Alignof(struct bdev);
	size_t padded = (size_bytes + align - 1) & ~(align - 1);
	void *bdev = aligned_alloc(align, padded);

	if (bdev != NULL)
		memset(bdev, 0, padded);
	return bdev;
}

int bdev_set_identity(struct bdev *bdev, const char *name, const char *uuid)
{
	if (name == NULL || !bdev_name_valid(name))
		return -EINVAL;
	memcpy(bdev->name, name, strlen(name) + 1);
	if (uuid != NULL && uuid_parse(uuid, bdev->uuid) != 0)
		return -EINVAL;
	return 0;
}

static struct bdev *find_by_name(const char *name)
{
	list_for_each (node, &registry) {
		struct bdev *bdev = list_entry(node, struct bdev, link);

		if (strcmp(bdev->name, name) == 0)
			return bdev;
	}
	return NULL;
}

static struct bdev *find_by_uuid(const uuid_t uuid)
{
	list_for_each (node, &registry) {
		struct bdev *bdev = list_entry(node, struct bdev, link);

		if (uuid_compare(bdev->uuid, uuid) == 0)
			return bdev;
	}
	return NULL;
}

struct bdev *bdev_find(const char *name)
{
	struct bdev *bdev = find_by_name(name);
	uuid_t uuid;

	if (bdev == NULL && uuid_parse(name, uuid) == 0)
		bdev = find_by_uuid(uuid);
	return bdev;
}

struct bdev *bdev_next(const struct bdev *bdev)
{
	struct list *node = bdev == NULL ? registry.next : bdev->link.next;

	return node == &registry ? NULL : list_entry(node, struct bdev, link);
}

static bool power_of_two(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static bool limits_valid(const struct bdev *bdev)
{
	const struct bdev_limits *limits = &bdev->limits;
	uint32_t block_size = limits->block_size_bytes;

	if (block_size != 512 && block_size != 4096)
		return false;
	/* Offsets must fit off_t. */
	if (bdev->block_count == 0 || bdev->block_count > INT64_MAX / block_size)
		return false;
	if (!power_of_two(limits->physical_block_size_bytes) ||
	    limits->physical_block_size_bytes < block_size)
		return false;
	if (limits->optimal_io_bytes % block_size != 0 ||
	    limits->discard_max_bytes % block_size != 0 ||
	    limits->write_zeroes_max_bytes % block_size != 0)
		return false;
	return limits->discard_max_bytes == 0 ||
	       (limits->discard_granularity_bytes != 0 &&
		limits->discard_granularity_bytes % block_size == 0);
}

int bdev_register(struct bdev *bdev)
{
	const struct bdev_ops *ops = bdev->ops;

	ensure(ops->destroy != NULL && ops->submit != NULL && ops->describe != NULL &&
	       ops->config != NULL);
	if (!bdev_name_valid(bdev->name) || !limits_valid(bdev))
		return -EINVAL;
	if (uuid_is_null(bdev->uuid))
		uuid_generate(bdev->uuid);
	/* A name that reads as another disk's uuid would make bdev_find() ambiguous. */
	if (bdev_find(bdev->name) != NULL || find_by_uuid(bdev->uuid) != NULL)
		return -EEXIST;
	list_init(&bdev->opens);
	list_init(&bdev->channels);
	list_init(&bdev->change.link);
	memset(&bdev->stats_retired, 0, sizeof(bdev->stats_retired));
	list_add_tail(&registry, &bdev->link);
	return 0;
}

static int bdev_unregister(struct bdev *bdev)
{
	if (!list_empty(&bdev->opens) || bdev->change.busy)
		return -EBUSY;
	ensure(list_empty(&bdev->channels));
	list_remove(&bdev->link);
	return 0;
}

int bdev_destroy(struct bdev *bdev)
{
	int rc = bdev_unregister(bdev);

	if (rc < 0)
		return rc;
	if (bdev->ops->release != NULL)
		bdev->ops->release(bdev);
	bdev->ops->destroy(bdev);
	return 0;
}

static unsigned int release_count;

static void release_run(struct worker_job *job)
{
	struct bdev *bdev = container_of(job, struct bdev, release_job);

	bdev->ops->release(bdev);
}

static void release_done(struct worker_job *job)
{
	struct bdev *bdev = container_of(job, struct bdev, release_job);
	void (*done)(void *arg) = bdev->destroyed;
	void *arg = bdev->destroyed_arg;

	bdev->ops->destroy(bdev);
	release_count--;
	done(arg);
	bdev_changes_check();
}

unsigned int bdev_release_count(void)
{
	return release_count;
}

void bdev_release(struct bdev *bdev, void (*done)(void *arg), void *arg)
{
	release_count++;
	bdev->destroyed = done;
	bdev->destroyed_arg = arg;
	bdev->release_job.run = release_run;
	bdev->release_job.done = release_done;
	if (bdev->ops->release != NULL)
		worker_submit(&bdev->release_job);
	else
		release_done(&bdev->release_job);
}

int bdev_destroy_start(struct bdev *bdev, void (*done)(void *arg), void *arg)
{
	int rc = bdev_unregister(bdev);

	if (rc == 0)
		bdev_release(bdev, done, arg);
	return rc;
}

/* ---- opening ----------------------------------------------------------------------------- */

/* Who stands in the way of an open: the writer, or for a writer anybody. */
static struct bdev_open *find_conflict(struct bdev *bdev, bool writable)
{
	list_for_each (node, &bdev->opens) {
		struct bdev_open *open = list_entry(node, struct bdev_open, link);

		if (writable || open->writable)
			return open;
	}
	return NULL;
}

int bdev_open(const char *name, const char *owner, bool writable, struct bdev_open **out,
	      const char **who)
{
	struct bdev *bdev = bdev_find(name);

	if (bdev == NULL || bdev->removing)
		return -ENODEV;
	if (writable && bdev->limits.read_only)
		return -EROFS;
	struct bdev_open *conflict = find_conflict(bdev, writable);
	if (conflict != NULL) {
		if (who != NULL)
			*who = conflict->owner;
		return -EBUSY;
	}
	struct bdev_open *open = calloc(1, sizeof(*open));
	if (open == NULL)
		return -ENOMEM;
	open->bdev = bdev;
	open->writable = writable;
	snprintf(open->owner, sizeof(open->owner), "%s", owner);
	list_add_tail(&bdev->opens, &open->link);
	*out = open;
	return 0;
}

int bdev_activate(struct bdev_open *open)
{
	struct bdev *bdev = open->bdev;

	if (bdev->active_count == 0 && bdev->ops->activate != NULL) {
		int rc = bdev->ops->activate(bdev);
		if (rc < 0)
			return rc;
	}
	bdev->active_count++;
	return 0;
}

void bdev_deactivate(struct bdev_open *open)
{
	struct bdev *bdev = open->bdev;

	ensure(bdev->active_count > 0);
	if (--bdev->active_count == 0 && bdev->ops->deactivate != NULL)
		bdev->ops->deactivate(bdev);
}

void bdev_close(struct bdev_open *open)
{
	ensure(open->channel_count == 0);
	list_remove(&open->link);
	free(open);
}

void bdev_open_watch(struct bdev_open *open, bdev_event_fn fn, void *arg)
{
	open->event = fn;
	open->event_arg = arg;
}
