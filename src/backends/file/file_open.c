/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a file or block device for a disk: O_DIRECT where it works, the lock that keeps a second
 * opener out, and what the storage says of its sizes and alignments. On a worker; may block.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "backends/file/file_impl.h"
#include "base/fd.h"

#define FILE_DISCARD_MAX_BYTES (1ull << 30)
#define PROBE_BYTES 4096
/* A daemon that was killed keeps its locks until the kernel has ended its I/O, which is after its
 * death: the lock is what tells a successor that none of it lands late. So wait a little. */
#define LOCK_WAIT_MS 1000

/* Where a failure leaves its sentence. */
struct report {
	char *error;
	size_t error_bytes;
	const char *filename;
};

static int fail(const struct report *report, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Writes "'FILE' ..." and passes rc on. */
static int fail(const struct report *report, int rc, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	snprintf(report->error, report->error_bytes, "'%s' %s", report->filename, text);
	return rc;
}

/* ---- the file descriptor ----------------------------------------------------------------- */

static int check_type(const struct report *report, mode_t mode)
{
	if (S_ISREG(mode) || S_ISBLK(mode))
		return 0;
	return fail(report, -EINVAL, "is %s, not a regular file or block device",
		    S_ISDIR(mode)    ? "a directory"
		    : S_ISFIFO(mode) ? "a pipe"
		    : S_ISSOCK(mode) ? "a socket"
		    : S_ISCHR(mode)  ? "a character device"
				     : "something else");
}

static int open_flags(const struct bdev_file_options *options, bool device)
{
	int flags = O_CLOEXEC | (options->read_only ? O_RDONLY : O_RDWR);

	if (!options->buffered)
		flags |= O_DIRECT;
	/* A device that is mounted or part of another is refused. For readers that would keep
	 * each other out, too. */
	if (device)
		return options->read_only ? flags : flags | O_EXCL;
	/* Should a pipe have taken the file's place, do not hang in open(2). */
	return flags | O_NONBLOCK;
}

static int explain_open(const struct report *report, int rc, bool device)
{
	if (rc == -EBUSY && device)
		return fail(report, rc, "is in use: it is mounted or part of another device");
	if (rc == -EROFS || rc == -EACCES)
		return fail(report, rc, "cannot be opened for writing: %s (readonly may help)",
			    strerror(-rc));
	return fail(report, rc, "cannot be opened: %s", strerror(-rc));
}

/* Opens with O_DIRECT if that works, and notes in file what it got. */
static int open_fd(struct file_bdev *file, const struct bdev_file_options *options,
		   const struct report *report)
{
	struct stat st;

	if (stat(options->filename, &st) < 0)
		return fail(report, -errno, "cannot be opened: %s", strerror(errno));
	int rc = check_type(report, st.st_mode);
	if (rc < 0)
		return rc;
	file->device = S_ISBLK(st.st_mode);
	int flags = open_flags(options, file->device);
	file->fd = open(options->filename, flags);
	if (file->fd < 0 && errno == EINVAL && (flags & O_DIRECT) != 0) {
		flags &= ~O_DIRECT;
		file->fd = open(options->filename, flags);
	}
	if (file->fd < 0)
		return explain_open(report, -errno, file->device);
	file->direct = (flags & O_DIRECT) != 0;
	if (fstat(file->fd, &st) < 0 || S_ISBLK(st.st_mode) != file->device)
		return fail(report, -EINVAL, "changed while it was being opened");
	rc = check_type(report, st.st_mode);
	if (rc < 0)
		return rc;
	/* io_uring would otherwise answer EAGAIN instead of waiting. */
	return fd_set_nonblocking(file->fd, false);
}

/* Locks of separate opens conflict, also inside one process. */
int file_lock(const struct file_bdev *file, bool read_only)
{
	if (flock(file->fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

static int lock_when_free(const struct file_bdev *file, bool read_only)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	int rc = file_lock(file, read_only);

	for (int waited_ms = 0; rc == -EBUSY && waited_ms < LOCK_WAIT_MS; waited_ms++) {
		nanosleep(&pause, NULL);
		rc = file_lock(file, read_only);
	}
	return rc;
}

static int lock_fd(const struct file_bdev *file, bool read_only, const struct report *report)
{
	int rc = file->migratable ? 0 : lock_when_free(file, read_only);

	if (rc == -EBUSY)
		return fail(report, rc,
			    "is in use by another process or another disk: "
			    "it holds a lock on the file");
	if (rc < 0)
		return fail(report, rc, "cannot be locked: %s", strerror(-rc));
	return 0;
}

static void go_buffered(struct file_bdev *file)
{
	int flags = fcntl(file->fd, F_GETFL);

	if (flags >= 0 && fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) == 0)
		file->direct = false;
}

/* ---- alignment --------------------------------------------------------------------------- */

/* True unless the kernel refuses a direct read at an offset of 512. */
static bool probe_512(int fd)
{
	void *buf = aligned_alloc(PROBE_BYTES, PROBE_BYTES);
	bool works = buf != NULL && !(pread(fd, buf, 512, 512) < 0 && errno == EINVAL);

	free(buf);
	return works;
}

/* What direct I/O needs, by statx (Linux 6.1) or by trying. A guess of the memory's alignment that
 * is too small shows as EINVAL, upon which that I/O is bounced. */
static void find_aligns(struct file_bdev *file, uint32_t *memory_align, uint32_t *offset_align)
{
#ifdef STATX_DIOALIGN
	struct statx stx = {0};

	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN) != 0) {
		*memory_align = stx.stx_dio_mem_align;
		*offset_align = stx.stx_dio_offset_align;
		return;
	}
#endif
	*memory_align = 512;
	*offset_align = probe_512(file->fd) ? 512 : 4096;
}

static bool align_usable(uint32_t align)
{
	return align != 0 && (align & (align - 1)) == 0 && align <= 4096;
}

/* ---- geometry ---------------------------------------------------------------------------- */

static uint32_t clamp_pow2(uint64_t v, uint32_t low, uint32_t high)
{
	uint32_t result = low;

	while (result < high && result < v)
		result *= 2;
	return result;
}

/* A number in /sys about a block device or, for a partition, the device that it is on. */
static uint64_t sysfs_number(dev_t device, const char *attribute)
{
	static const char *const places[] = {"queue", "../queue"};
	char path[128], text[32];

	for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(device),
			 minor(device), places[i], attribute);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		ssize_t n = read(fd, text, sizeof(text) - 1);
		fd_close(&fd);
		if (n <= 0)
			continue;
		text[n] = 0;
		return strtoull(text, NULL, 10);
	}
	return 0;
}

static void device_discard(struct file_geometry *geometry, dev_t device)
{
	uint64_t block = geometry->block_size_bytes;
	uint64_t max = sysfs_number(device, "discard_max_bytes");
	uint64_t granularity = sysfs_number(device, "discard_granularity");

	geometry->discard_max_bytes = MIN(max, FILE_DISCARD_MAX_BYTES) / block * block;
	if (granularity == 0 || granularity % block != 0 || granularity > UINT32_MAX)
		granularity = block;
	geometry->discard_granularity_bytes = (uint32_t)granularity;
}

static int device_geometry(const struct file_bdev *file, uint32_t block_size_wanted,
			   struct file_geometry *geometry, const struct report *report)
{
	uint32_t logical = 0, physical = 0, optimal = 0;
	unsigned short rotational = 0;
	struct stat st;

	if (ioctl(file->fd, BLKGETSIZE64, &geometry->size_bytes) < 0 ||
	    ioctl(file->fd, BLKSSZGET, &logical) < 0 || fstat(file->fd, &st) < 0)
		return fail(report, -errno, "does not tell its size: %s", strerror(errno));
	if (ioctl(file->fd, BLKPBSZGET, &physical) < 0)
		physical = logical;
	if (ioctl(file->fd, BLKIOOPT, &optimal) < 0)
		optimal = 0;
	if (ioctl(file->fd, BLKROTATIONAL, &rotational) < 0)
		rotational = 0;
	if (block_size_wanted != 0 && block_size_wanted < logical)
		return fail(report, -EINVAL, "has blocks of %u bytes, more than block_size %u",
			    logical, block_size_wanted);
	geometry->block_size_bytes = block_size_wanted != 0 ? block_size_wanted : logical;
	if (geometry->block_size_bytes != 512 && geometry->block_size_bytes != 4096)
		return fail(report, -EINVAL, "has blocks of %u bytes: 512 and 4096 can be served",
			    geometry->block_size_bytes);
	geometry->physical_block_size_bytes =
		clamp_pow2(physical, geometry->block_size_bytes, 65536);
	if (optimal % geometry->block_size_bytes == 0)
		geometry->optimal_io_bytes = optimal;
	geometry->rotational = rotational != 0;
	device_discard(geometry, st.st_rdev);
	return 0;
}

/* A hole beyond the end changes nothing, and tells whether the file system makes holes. */
static bool can_punch(const struct file_bdev *file, const struct file_geometry *geometry)
{
	return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)geometry->size_bytes, geometry->physical_block_size_bytes) == 0;
}

static uint32_t regular_block_size(struct file_bdev *file, uint32_t wanted)
{
	bool direct_512 = !file->direct || file->offset_align <= 512;

	if (wanted == 0)
		return direct_512 ? 512 : 4096;
	if (wanted < 4096 && !direct_512) {
		log_warn("'%s': the storage takes no direct I/O in units of %u bytes: "
			 "the page cache is used, which is slower (block_size 4096 avoids it)",
			 file->filename, wanted);
		go_buffered(file);
	}
	return wanted;
}

static int regular_geometry(struct file_bdev *file, const struct bdev_file_options *options,
			    struct file_geometry *geometry, const struct report *report)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return fail(report, -errno, "does not tell its size: %s", strerror(errno));
	if (options->block_size_bytes != 0 && options->block_size_bytes != 512 &&
	    options->block_size_bytes != 4096)
		return fail(report, -EINVAL,
			    "cannot have block_size %u: 512 and 4096 can be served",
			    options->block_size_bytes);
	geometry->size_bytes = (uint64_t)st.st_size;
	geometry->block_size_bytes = regular_block_size(file, options->block_size_bytes);
	geometry->physical_block_size_bytes =
		clamp_pow2((uint64_t)st.st_blksize, geometry->block_size_bytes, 4096);
	if (!options->read_only && can_punch(file, geometry)) {
		geometry->discard_max_bytes = FILE_DISCARD_MAX_BYTES;
		geometry->discard_granularity_bytes = geometry->physical_block_size_bytes;
	}
	return 0;
}

static int find_geometry(struct file_bdev *file, const struct bdev_file_options *options,
			 struct file_geometry *geometry, const struct report *report)
{
	uint32_t memory_align = 1, offset_align = 1;

	if (file->direct) {
		find_aligns(file, &memory_align, &offset_align);
		file->memory_align = memory_align;
		file->offset_align = offset_align;
		if (!align_usable(memory_align) || !align_usable(offset_align))
			go_buffered(file);
	}
	int rc = file->device ? device_geometry(file, options->block_size_bytes, geometry, report)
			      : regular_geometry(file, options, geometry, report);
	if (rc < 0)
		return rc;
	if (!file->direct) {
		file->memory_align = 1;
		file->offset_align = 1;
		if (!options->buffered)
			log_info("'%s': no direct I/O here: the page cache is used",
				 file->filename);
	}
	if (geometry->size_bytes == 0)
		return fail(report, -EINVAL, "is empty: give it a size first (truncate -s)");
	if (geometry->size_bytes % geometry->block_size_bytes != 0)
		return fail(report, -EINVAL,
			    "has %" PRIu64 " bytes, not a whole number of blocks of %u",
			    geometry->size_bytes, geometry->block_size_bytes);
	return 0;
}

static int check_writable(const struct file_bdev *file, const struct report *report)
{
	int read_only = 0;

	if (file->device && ioctl(file->fd, BLKROGET, &read_only) == 0 && read_only != 0)
		return fail(report, -EROFS, "is a read-only device (readonly may help)");
	return 0;
}

int file_open(struct file_bdev *file, const struct bdev_file_options *options,
	      struct file_geometry *geometry, char *error, size_t error_bytes)
{
	const struct report report = {error, error_bytes, options->filename};

	file->fd = -1;
	int rc = open_fd(file, options, &report);
	if (rc == 0)
		rc = lock_fd(file, options->read_only, &report);
	if (rc == 0 && !options->read_only)
		rc = check_writable(file, &report);
	if (rc == 0)
		rc = find_geometry(file, options, geometry, &report);
	if (rc < 0)
		fd_close(&file->fd);
	return rc;
}
