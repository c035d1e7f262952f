/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory back-end: making a disk in a memfd, and taking it away. Control thread. The I/O is in
 * memory_io.c, changes of size are in memory_resize.c.
 */
#include "backends/memory/bdev_memory.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/memory/memory_impl.h"
#include "base/fd.h"
#include "base/log.h"

#define MEMORY_UNMAP_MAX_BYTES (1ull << 30)

static void memory_destroy(struct bdev *bdev)
{
	struct memory_bdev *memory = memory_bdev(bdev);

	munmap(memory->base, memory->map_bytes);
	if (memory->old_base != NULL)
		munmap(memory->old_base, memory->old_map_bytes);
	fd_close(&memory->fd);
	free(memory);
}

static json_t *memory_describe(const struct bdev *bdev)
{
	return json_pack("{s:b}", "hugetlb", memory_bdev(bdev)->hugetlb);
}

static json_t *memory_config(const struct bdev *bdev, const char **method)
{
	*method = "bdev_malloc_create";
	json_t *params = json_pack("{s:I, s:I, s:I}", "num_blocks",
				   (json_int_t)bdev_config_block_count(bdev), "block_size",
				   (json_int_t)bdev->limits.block_size_bytes, "physical_block_size",
				   (json_int_t)bdev->limits.physical_block_size_bytes);

	if (memory_bdev(bdev)->hugetlb_wanted)
		json_object_set_new(params, "hugetlb", json_true());
	return params;
}

static const struct bdev_ops memory_ops = {
	.driver = "memory",
	.destroy = memory_destroy,
	.channel_get = memory_channel_get,
	.channel_put = memory_channel_put,
	.submit = memory_submit,
	.describe = memory_describe,
	.config = memory_config,
	.reserve = memory_reserve,
	.settle = memory_settle,
	.channel_resize = memory_channel_resize,
};

static int map_fd(struct memory_bdev *memory, unsigned int memfd_flags)
{
	int fd = fd_memfd_create("sluice-disk", memory->map_bytes, memfd_flags);

	if (fd < 0)
		return fd;
	/* A hugetlb mapping reserves its pages here, so it cannot run out under an I/O. */
	void *base = mmap(NULL, memory->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		int rc = -errno;
		fd_close(&fd);
		return rc;
	}
	memory->fd = fd;
	memory->base = base;
	return 0;
}

/* hugetlb if asked for and there, else plain pages, huge ones where the system grants them. */
static int map_disk(struct memory_bdev *memory, uint64_t size_bytes)
{
	if (memory->hugetlb_wanted) {
		memory->hugetlb = true;
		memory->map_bytes = memory_map_bytes(memory, size_bytes);
		int rc = map_fd(memory, MFD_HUGETLB | MFD_HUGE_2MB);
		memory->hugetlb = rc == 0;
		if (rc < 0)
			log_info("memory disk: no hugetlb pages for %llu MiB (%s): plain pages",
				 (unsigned long long)(memory->map_bytes >> 20), strerror(-rc));
	}
	if (!memory->hugetlb) {
		memory->map_bytes = memory_map_bytes(memory, size_bytes);
		int rc = map_fd(memory, 0);
		if (rc < 0)
			return rc;
		madvise(memory->base, memory->map_bytes, MADV_HUGEPAGE);
	}
	/* A core dump need not hold a disk. */
	madvise(memory->base, memory->map_bytes, MADV_DONTDUMP);
	return 0;
}

/* Pages punched out of a hugetlb file lose their reservation, and touching them again may find
 * none left: such a disk gives nothing back. */
static void set_limits(struct memory_bdev *memory, const struct bdev_memory_options *options)
{
	struct bdev_limits *limits = &memory->bdev.limits;
	uint32_t block_size = options->block_size_bytes;
	uint32_t physical = options->physical_block_size_bytes;

	limits->block_size_bytes = block_size;
	limits->physical_block_size_bytes = physical != 0 ? physical : block_size;
	limits->write_zeroes_max_bytes = MEMORY_UNMAP_MAX_BYTES;
	if (memory->hugetlb)
		return;
	limits->discard_max_bytes = MEMORY_UNMAP_MAX_BYTES;
	limits->discard_granularity_bytes = MAX(memory->page_bytes, block_size);
	limits->write_zeroes_unmap = true;
}

/* Before any memory is asked for; bdev_register() checks the rest. */
static bool size_valid(const struct bdev_memory_options *options)
{
	return options->block_size_bytes != 0 && options->block_count != 0 &&
	       options->block_count <=
		       (INT64_MAX - MEMORY_HUGE_PAGE_BYTES) / options->block_size_bytes;
}

int bdev_memory_create(const struct bdev_memory_options *options, struct bdev **out)
{
	if (!size_valid(options))
		return -EINVAL;
	struct memory_bdev *memory = bdev_alloc(sizeof(*memory));
	if (memory == NULL)
		return -ENOMEM;
	struct bdev *bdev = &memory->bdev;
	bdev->product = "Malloc disk";
	bdev->ops = &memory_ops;
	bdev->block_count = options->block_count;
	bdev->channel_ctx_bytes = sizeof(struct memory_channel);
	memory->page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
	memory->hugetlb_wanted = options->hugetlb;
	int rc = bdev_set_identity(bdev, options->name, options->uuid);
	if (rc < 0)
		goto free_memory;
	rc = map_disk(memory, options->block_count * options->block_size_bytes);
	if (rc < 0) {
		rc = -ENOMEM;
		goto free_memory;
	}
	set_limits(memory, options);
	rc = bdev_register(bdev);
	if (rc < 0)
		goto unmap;
	*out = bdev;
	return 0;

unmap:
	munmap(memory->base, memory->map_bytes);
	fd_close(&memory->fd);
free_memory:
	free(memory);
	return rc;
}
