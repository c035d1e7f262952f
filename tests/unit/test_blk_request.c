/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk requests through a real queue on a real reactor, with a ring in plain memory and a
 * disk that remembers what it was asked, fails when told to, and can hold its answers back. */
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/fd.h"
#include "bdev/bdev_io.h"
#include "harness.h"
#include "vhost/blk/blk_queue.h"

/* ---- a disk to watch ---------------------------------------------------------------------- */

#define DISK_BYTES (1u << 20)
#define LOG_MAX 64u
#define HELD_MAX 64u

struct asked {
	enum bdev_io_type type;
	uint32_t flags;
	uint64_t offset_bytes;
	uint64_t len_bytes;
};

/* Between harness calls the reactor's. */
static struct {
	uint8_t bytes[DISK_BYTES];
	struct asked log[LOG_MAX];
	unsigned int log_count;
	enum bdev_status answers[BDEV_IO_TYPE_COUNT];
	unsigned int fail_from; /* requests that go well before answers apply */
	bool holding;
	struct bdev_io *held[HELD_MAX];
	unsigned int held_count;
} disk;

static void disk_copy(const struct bdev_io *io)
{
	uint8_t *at = disk.bytes + io->offset_bytes;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < io->iov_count; i++) {
		if (io->type == BDEV_IO_READ)
			memcpy(io->iovs[i].iov_base, at, io->iovs[i].iov_len);
		else
			memcpy(at, io->iovs[i].iov_base, io->iovs[i].iov_len);
		at += io->iovs[i].iov_len;
		sum += io->iovs[i].iov_len;
	}
	ensure(sum == io->len_bytes);
}

static void disk_answer(struct bdev_io *io)
{
	enum bdev_status status = disk.answers[io->type];

	if (disk.fail_from > 0) {
		disk.fail_from--;
		status = BDEV_STATUS_OK;
	}
	if (status == BDEV_STATUS_OK && (io->type == BDEV_IO_READ || io->type == BDEV_IO_WRITE))
		disk_copy(io);
	bdev_io_complete(io, status);
}

static void disk_submit(struct bdev_channel *channel, struct bdev_io *io)
{
	ensure(disk.log_count < LOG_MAX);
	disk.log[disk.log_count] =
		(struct asked){io->type, io->flags, io->offset_bytes, io->len_bytes};
	counter_add(&disk.log_count, 1);
	if (!disk.holding) {
		disk_answer(io);
		return;
	}
	ensure(disk.held_count < HELD_MAX);
	disk.held[disk.held_count] = io;
	store_release(&disk.held_count, disk.held_count + 1);
}

static void disk_release(void *arg)
{
	unsigned int count = disk.held_count;

	disk.holding = false;
	disk.held_count = 0;
	/* Newest first: completion is out of order. */
	while (count > 0)
		disk_answer(disk.held[--count]);
}

static void disk_hold(void *arg)
{
	disk.holding = true;
}

static void disk_destroy(struct bdev *bdev)
{
	free(bdev);
}

static json_t *disk_describe(const struct bdev *bdev)
{
	return json_object();
}

static json_t *disk_config(const struct bdev *bdev, const char **method)
{
	return json_object();
}

static const struct bdev_ops disk_ops = {
	.driver = "watched",
	.destroy = disk_destroy,
	.submit = disk_submit,
	.describe = disk_describe,
	.config = disk_config,
};

/* ---- a queue ------------------------------------------------------------------------------ */

#define SIZE 256u
#define GUEST 0x100000ull
#define GUEST_BYTES (4u << 20)
#define STRIDE 65536u /* of guest memory, for each head */
#define ALL_FEATURES ((1ull << VIRTIO_BLK_F_DISCARD) | (1ull << VIRTIO_BLK_F_WRITE_ZEROES))

static struct {
	struct bdev *bdev;
	struct bdev_open *open;
	struct vhost_channel channel;
	struct blk_queue *queue;
	struct mem_region *region;
	struct mem_table *table;
	int memory_fd;
	int kick_fd;
	int err_fd;
	struct vring_desc desc[SIZE] __attribute__((aligned(16)));
	uint8_t avail_bytes[2048] __attribute__((aligned(8)));
	uint8_t used_bytes[4096] __attribute__((aligned(8)));
	uint8_t journal[16 + 16 * SIZE] __attribute__((aligned(64)));
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_index;
	uint16_t used_index;
	uint16_t next_desc; /* those below it are heads */
	struct vhost_queue_op op;
	unsigned int ops_done;
} q;

static void op_done(struct vhost_queue_op *op)
{
	ensure(op->result == 0);
	store_release(&q.ops_done, q.ops_done + 1);
}

static void op_wait(void (*fn)(struct vhost_queue_op *op))
{
	unsigned int done = q.ops_done;

	q.op.queue = &q.queue->base;
	q.op.done = op_done;
	fn(&q.op);
	harness_wait_at_least(&q.ops_done, done + 1);
}

static struct mem_table *make_table(struct mem_region **region)
{
	struct mem_region_desc desc = {.guest_addr = {GUEST}, .size_bytes = GUEST_BYTES};
	struct mem_table *table;

	assert_int_equal(mem_region_map(q.memory_fd, &desc, region), 0);
	assert_int_equal(mem_table_create(region, 1, &table), 0);
	return table;
}

struct shape {
	uint64_t features;
	bool read_only;
	bool write_through;
};

static void queue_begin(const struct shape *shape)
{
	memset(&q, 0, sizeof(q));
	memset(&disk, 0, sizeof(disk));
	harness_random_fill(disk.bytes, sizeof(disk.bytes));
	q.bdev = bdev_alloc(sizeof(struct bdev));
	q.bdev->ops = &disk_ops;
	q.bdev->product = "Watched disk";
	q.bdev->block_count = DISK_BYTES / 512;
	q.bdev->limits = (struct bdev_limits){
		.block_size_bytes = 512,
		.physical_block_size_bytes = 512,
		.discard_max_bytes = DISK_BYTES,
		.discard_granularity_bytes = 512,
		.write_zeroes_max_bytes = DISK_BYTES,
		.volatile_write_cache = true,
	};
	assert_int_equal(bdev_set_identity(q.bdev, "watched", NULL), 0);
	assert_int_equal(bdev_register(q.bdev), 0);
	assert_int_equal(bdev_open("watched", "test", !shape->read_only, &q.open, NULL), 0);
	assert_int_equal(bdev_channel_alloc(q.open, harness_reactor(), &q.channel.bdev), 0);
	q.memory_fd = fd_memfd_create("guest", GUEST_BYTES, 0);
	q.table = make_table(&q.region);
	q.kick_fd = fd_eventfd_create();
	q.err_fd = fd_eventfd_create();
	q.avail = (void *)q.avail_bytes;
	q.used = (void *)q.used_bytes;
	q.next_desc = 64;

	struct blk_queue_options options = {
		.channel = &q.channel,
		.size = SIZE,
		.features = shape->features,
		.read_only = shape->read_only,
		.write_through = shape->write_through,
		.serial = "serial-of-20-letters",
	};
	struct virtqueue_options ring = {
		.desc = q.desc,
		.avail = q.avail,
		.used = q.used,
		.mem = q.table,
		.size = SIZE,
		.journal = q.journal,
		.journal_capacity = SIZE,
		.indirect = true,
	};
	assert_int_equal(blk_queue_create(&options, &q.queue), 0);
	assert_int_equal(virtqueue_init(&q.queue->base.vq, &ring), 0);
	q.queue->base.reactor = harness_reactor();
	q.queue->base.control = harness_reactor();
	q.queue->base.controller_name = "watched";
	q.queue->base.kick_watch.fd = q.kick_fd;
	q.queue->base.err_fd = q.err_fd;
	op_wait(vhost_queue_start);
}

static void queue_free(void)
{
	assert_int_equal(q.channel.running_count, 0);
	assert_int_equal(q.queue->pool.free_count, BLK_LONG_COUNT);
	blk_queue_destroy(q.queue);
	bdev_channel_free(q.channel.bdev);
	bdev_close(q.open);
	assert_int_equal(bdev_destroy(q.bdev), 0);
	mem_table_destroy(q.table);
	mem_region_put(q.region);
	fd_close(&q.memory_fd);
	fd_close(&q.kick_fd);
	fd_close(&q.err_fd);
}

static void queue_end(void)
{
	op_wait(vhost_queue_stop);
	queue_free();
}

/* ---- requests ----------------------------------------------------------------------------- */

#define PARTS_MAX 200u

/* How the two streams of a request are cut into descriptors. */
struct layout {
	uint32_t readable[PARTS_MAX];
	uint32_t readable_count;
	uint32_t writable[PARTS_MAX];
	uint32_t writable_count;
	bool indirect;
};

static uint32_t total(const uint32_t *parts, uint32_t count)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += parts[i];
	return sum;
}

static uint8_t *buffers_of(uint16_t head)
{
	return q.region->host + (size_t)(head % 64) * STRIDE;
}

static uint8_t *writable_of(uint16_t head)
{
	return buffers_of(head) + STRIDE / 2;
}

/* Writes the chain of head, without making it available. Readable parts lie one behind the other in
 * the first half of the head's memory, writable ones in the second: the cuts are in the chain. */
static void put_chain(uint16_t head, const struct layout *layout, const void *readable)
{
	uint64_t at = GUEST + (uint64_t)(head % 64) * STRIDE;
	uint32_t count = layout->readable_count + layout->writable_count;
	struct vring_desc parts[2 * PARTS_MAX];

	assert_true(total(layout->readable, layout->readable_count) <= STRIDE / 2);
	memcpy(buffers_of(head), readable, total(layout->readable, layout->readable_count));
	memset(writable_of(head), 0xee, 16384);
	for (uint32_t i = 0; i < count; i++) {
		bool writable = i >= layout->readable_count;
		if (i == layout->readable_count)
			at = GUEST + (uint64_t)(head % 64) * STRIDE + STRIDE / 2;
		parts[i].len = writable ? layout->writable[i - layout->readable_count]
					: layout->readable[i];
		parts[i].addr = at;
		parts[i].flags = (uint16_t)((writable ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < count ? VRING_DESC_F_NEXT : 0));
		at += parts[i].len;
	}
	if (layout->indirect) {
		uint64_t table = (uint64_t)(head % 64) * STRIDE + STRIDE - sizeof(parts);
		for (uint32_t i = 0; i < count; i++)
			parts[i].next = (uint16_t)(i + 1);
		memcpy(q.region->host + table, parts, count * sizeof(parts[0]));
		q.desc[head] = (struct vring_desc){.addr = GUEST + table,
						   .len = count * (uint32_t)sizeof(parts[0]),
						   .flags = VRING_DESC_F_INDIRECT};
		return;
	}
	uint16_t slot = head;
	for (uint32_t i = 0; i < count; i++) {
		if (q.next_desc == SIZE)
			q.next_desc = 64;
		parts[i].next = q.next_desc;
		q.desc[slot] = parts[i];
		slot = q.next_desc;
		if (i + 1 < count)
			q.next_desc++;
	}
}

static void make_available(uint16_t head)
{
	q.avail->ring[q.avail_index++ % SIZE] = head;
}

static void kick(void)
{
	store_release(&q.avail->idx, q.avail_index);
	fd_eventfd_signal(q.kick_fd);
}

/* The next used element's length; its head must be the one given. */
static uint32_t take_used(uint16_t head)
{
	uint64_t end_ns = clock_ns() + 20000000000ull;

	while (load_acquire(&q.used->idx) == q.used_index) {
		assert_true(clock_ns() < end_ns);
		usleep(20);
	}
	const struct vring_used_elem *elem = &q.used->ring[q.used_index++ % SIZE];
	assert_int_equal(elem->id, head);
	return elem->len;
}

static uint8_t status_of(uint16_t head, const struct layout *layout)
{
	return writable_of(head)[total(layout->writable, layout->writable_count) - 1];
}

/* One request alone: its status; *used_len may be NULL. */
static uint8_t run(uint16_t head, const struct layout *layout, const void *readable,
		   uint32_t *used_len)
{
	put_chain(head, layout, readable);
	make_available(head);
	kick();
	uint32_t len = take_used(head);
	if (used_len != NULL)
		*used_len = len;
	return status_of(head, layout);
}

static struct virtio_blk_outhdr header_of(uint32_t type, uint64_t sector)
{
	return (struct virtio_blk_outhdr){.type = type, .sector = sector};
}

static struct layout plain(uint32_t readable, uint32_t writable)
{
	struct layout layout = {.readable = {readable}, .readable_count = 1};

	if (writable > 0) {
		layout.writable[0] = writable;
		layout.writable_count = 1;
	}
	return layout;
}

static unsigned int asked(void)
{
	return load_relaxed(&disk.log_count);
}

static void nothing(void *arg)
{
}

static void forget(void *arg)
{
	disk.log_count = 0;
}

/* Whatever a request left behind on its head, a read there is a read. */
static void expect_clean(uint16_t head)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, 3);
	struct layout layout = plain(sizeof(header), 513);
	uint32_t used_len;

	harness_call(forget, NULL);
	assert_int_equal(run(head, &layout, &header, &used_len), VIRTIO_BLK_S_OK);
	assert_int_equal(used_len, 513);
	assert_memory_equal(writable_of(head), disk.bytes + 3 * 512, 512);
	harness_call(nothing, NULL);
	assert_int_equal(asked(), 1);
	assert_int_equal(disk.log[0].type, BDEV_IO_READ);
	assert_int_equal(disk.log[0].flags, 0);
}

static const struct shape usual = {.features = ALL_FEATURES};

/* ---- framing ------------------------------------------------------------------------------ */

/* Cuts bytes into up to max parts of at least one byte. */
static uint32_t cut(uint32_t bytes, uint32_t max, uint32_t *parts)
{
	uint32_t count = 0;

	while (bytes > 0) {
		uint32_t part = harness_random(3) == 0 ? 1 : 1 + (uint32_t)harness_random(bytes);
		if (count + 1 == max)
			part = bytes;
		parts[count++] = part;
		bytes -= part;
	}
	return count;
}

static void test_any_framing(void **state)
{
	uint8_t readable[16 + 4096];

	queue_begin(&usual);
	for (int i = 0; i < 1500; i++) {
		bool write = harness_random(2) == 0;
		uint32_t bytes = (uint32_t)harness_random(9) * 512;
		uint32_t sector = (uint32_t)harness_random(DISK_BYTES / 512 - 8);
		uint16_t head = (uint16_t)harness_random(32);
		struct virtio_blk_outhdr header =
			header_of(write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector);
		struct layout layout = {.indirect = harness_random(2) == 0};
		uint32_t max = 1 + (uint32_t)harness_random(60);
		uint32_t used_len;

		harness_random_fill(readable, sizeof(readable));
		memcpy(readable, &header, sizeof(header));
		layout.readable_count =
			cut(sizeof(header) + (write ? bytes : 0), max, layout.readable);
		layout.writable_count = cut((write ? 0 : bytes) + 1, max, layout.writable);
		harness_call(forget, NULL);
		assert_int_equal(run(head, &layout, readable, &used_len), VIRTIO_BLK_S_OK);
		assert_int_equal(used_len, write ? 1 : bytes + 1);
		assert_int_equal(asked(), bytes > 0 ? 1 : 0);
		assert_memory_equal(disk.bytes + sector * 512,
				    write ? readable + 16 : writable_of(head), bytes);
	}
	queue_end();
}

static void test_header_bytewise(void **state)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, 9);
	struct layout layout = {.readable_count = 16, .writable_count = 513};

	queue_begin(&usual);
	layout.writable_count = 100;
	for (uint32_t i = 0; i < 16; i++)
		layout.readable[i] = 1;
	for (uint32_t i = 0; i < 99; i++)
		layout.writable[i] = 5;
	layout.writable[99] = 513 - 99 * 5;
	for (int indirect = 0; indirect < 2; indirect++) {
		layout.indirect = indirect;
		assert_int_equal(run(0, &layout, &header, NULL), VIRTIO_BLK_S_OK);
		assert_memory_equal(writable_of(0), disk.bytes + 9 * 512, 512);
	}
	queue_end();
}

static void test_refusals(void **state)
{
	uint8_t readable[1024 + 16] = {0};
	struct virtio_blk_outhdr *header = (void *)readable;
	uint32_t used_len;
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t readable, writable, status;
	} cases[] = {
		/* A header that is too short. */
		{VIRTIO_BLK_T_IN, 0, 15, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 1, 1, VIRTIO_BLK_S_IOERR},
		/* Half a sector. */
		{VIRTIO_BLK_T_IN, 0, 16, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 16 + 511, 1, VIRTIO_BLK_S_IOERR},
		/* Beyond the end, by one, by far, and by so far that it wraps. */
		{VIRTIO_BLK_T_IN, DISK_BYTES / 512 - 1, 16, 1025, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, DISK_BYTES / 512, 16 + 512, 1, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 1ull << 55, 16, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, UINT64_MAX, 16, 513, VIRTIO_BLK_S_IOERR},
		/* Data the wrong way. */
		{VIRTIO_BLK_T_IN, 0, 16 + 512, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 16 + 512, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_DISCARD, 0, 16 + 16, 2, VIRTIO_BLK_S_IOERR},
		/* No such request. */
		{2, 0, 16, 1, VIRTIO_BLK_S_UNSUPP},
		{3, 0, 16, 513, VIRTIO_BLK_S_UNSUPP},
		{UINT32_MAX, 0, 16, 1, VIRTIO_BLK_S_UNSUPP},
	};

	queue_begin(&usual);
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct layout layout = plain(cases[i].readable, cases[i].writable);
		harness_call(forget, NULL);
		*header = header_of(cases[i].type, cases[i].sector);
		assert_int_equal(run(0, &layout, readable, &used_len), cases[i].status);
		/* Never more than was written from the start of the buffers. */
		assert_int_equal(used_len, cases[i].writable == 1 ? 1 : 0);
		assert_int_equal(asked(), 0);
		expect_clean(0);
	}
	queue_end();
}

static void test_unmapped_data(void **state)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, 0);
	struct layout layout = {
		.readable = {16}, .readable_count = 1, .writable = {512, 1}, .writable_count = 2};

	queue_begin(&usual);
	put_chain(0, &layout, &header);
	q.desc[q.desc[0].next].addr = GUEST + GUEST_BYTES - 1;
	make_available(0);
	kick();
	assert_int_equal(take_used(0), 0);
	assert_int_equal(status_of(0, &layout), VIRTIO_BLK_S_IOERR);
	expect_clean(0);
	queue_end();
}

static bool err_signalled(void)
{
	uint64_t count;

	return read(q.err_fd, &count, sizeof(count)) == sizeof(count);
}

/* Nothing can be told to a driver that leaves no room for a status. What it made available behind
 * that is not looked at. */
static void test_no_status(void **state)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, 0);
	struct layout no_status = plain(16, 0);
	struct layout good = plain(16, 513);

	queue_begin(&usual);
	put_chain(0, &good, &header);
	put_chain(1, &no_status, &header);
	put_chain(2, &good, &header);
	for (uint16_t i = 0; i < 3; i++)
		make_available(i);
	kick();
	assert_int_equal(take_used(0), 513);
	usleep(5000);
	harness_call(nothing, NULL);
	assert_int_equal(load_acquire(&q.used->idx), 1);
	assert_int_equal(asked(), 1);
	assert_true(q.queue->base.vq.broken);
	assert_true(err_signalled());
	assert_int_equal(q.queue->base.vq.avail_index, 1);
	kick();
	usleep(5000);
	assert_false(err_signalled());
	queue_end();
}

/* ---- the rarer types ---------------------------------------------------------------------- */

static void test_get_id(void **state)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_GET_ID, 0);

	queue_begin(&usual);
	for (uint32_t bytes = 0; bytes <= 64; bytes++) {
		struct layout layout = plain(16, bytes + 1);
		uint32_t used_len;
		uint8_t status = run(0, &layout, &header, &used_len);
		assert_int_equal(status, bytes == 20 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
		assert_int_equal(used_len, bytes == 20 ? 21 : bytes == 0 ? 1 : 0);
		if (bytes == 20)
			assert_memory_equal(writable_of(0), "serial-of-20-letters", 20);
		else
			for (uint32_t i = 0; i < bytes; i++)
				assert_int_equal(writable_of(0)[i], 0xee);
	}
	expect_clean(0);
	queue_end();
}

/* A flush writes nothing into what data buffer it may have. */
static void test_flush_with_data(void **state)
{
	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_FLUSH, 0);

	queue_begin(&usual);
	for (uint32_t bytes = 0; bytes < 3; bytes++) {
		struct layout layout = plain(16, bytes + 1);
		uint32_t used_len;
		assert_int_equal(run(0, &layout, &header, &used_len), VIRTIO_BLK_S_OK);
		assert_int_equal(used_len, bytes == 0 ? 1 : 0);
	}
	assert_int_equal(asked(), 3);
	assert_int_equal(disk.log[2].type, BDEV_IO_FLUSH);
	queue_end();
}

#define RANGES_MAX 10u
struct ranges {
	struct virtio_blk_outhdr header;
	struct virtio_blk_discard_write_zeroes range[RANGES_MAX];
};

static struct ranges make_ranges(uint32_t type, uint32_t flags)
{
	struct ranges ranges = {.header = header_of(type, 77)};

	for (uint32_t i = 0; i < RANGES_MAX; i++) {
		ranges.range[i].sector = 100 + 10 * i;
		ranges.range[i].num_sectors = 1 + i;
		ranges.range[i].flags = flags;
	}
	return ranges;
}

static void test_ranges(void **state)
{
	static const struct {
		uint32_t type;
		uint32_t flags;
		enum bdev_io_type io;
		uint32_t io_flags;
		bool legal;
	} kinds[] = {
		{VIRTIO_BLK_T_DISCARD, 0, BDEV_IO_DISCARD, 0, true},
		{VIRTIO_BLK_T_DISCARD, 1, BDEV_IO_DISCARD, 0, false},
		{VIRTIO_BLK_T_DISCARD, 2, BDEV_IO_DISCARD, 0, false},
		{VIRTIO_BLK_T_WRITE_ZEROES, 0, BDEV_IO_WRITE_ZEROES, 0, true},
		{VIRTIO_BLK_T_WRITE_ZEROES, 1, BDEV_IO_WRITE_ZEROES, BDEV_IO_UNMAP, true},
		{VIRTIO_BLK_T_WRITE_ZEROES, 2, BDEV_IO_WRITE_ZEROES, 0, false},
		{VIRTIO_BLK_T_WRITE_ZEROES, 1u << 31, BDEV_IO_WRITE_ZEROES, 0, false},
	};

	queue_begin(&usual);
	for (size_t k = 0; k < ARRAY_COUNT(kinds); k++) {
		struct ranges ranges = make_ranges(kinds[k].type, kinds[k].flags);
		for (uint32_t count = 0; count <= 9; count++) {
			struct layout layout = plain(16 + 16 * count, 1);
			bool fits = count > 0 && count <= 8;
			harness_call(forget, NULL);
			uint8_t status = run(5, &layout, &ranges, NULL);
			assert_int_equal(status, !fits             ? VIRTIO_BLK_S_IOERR
						 : !kinds[k].legal ? VIRTIO_BLK_S_UNSUPP
								   : VIRTIO_BLK_S_OK);
			harness_call(nothing, NULL);
			assert_int_equal(asked(), fits && kinds[k].legal ? count : 0);
			for (uint32_t i = 0; i < asked(); i++) {
				assert_int_equal(disk.log[i].type, kinds[k].io);
				assert_int_equal(disk.log[i].flags, kinds[k].io_flags);
				assert_int_equal(disk.log[i].offset_bytes, (100 + 10 * i) * 512);
				assert_int_equal(disk.log[i].len_bytes, (1 + i) * 512);
			}
			expect_clean(5);
		}
		struct layout odd = plain(16 + 17, 1);
		assert_int_equal(run(5, &odd, &ranges, NULL), VIRTIO_BLK_S_IOERR);
		odd = plain(16 + 15, 1);
		assert_int_equal(run(5, &odd, &ranges, NULL), VIRTIO_BLK_S_IOERR);
	}
	queue_end();
}

/* A range that fails ends the request: the rest is not asked for, nor remembered. */
static void test_failing_range(void **state)
{
	struct ranges ranges = make_ranges(VIRTIO_BLK_T_DISCARD, 0);
	struct layout layout = plain(16 + 16 * 8, 1);

	queue_begin(&usual);
	ranges.range[3].sector = UINT64_MAX;
	assert_int_equal(run(5, &layout, &ranges, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(asked(), 3);
	expect_clean(5);
	ranges = make_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 0);
	harness_call(forget, NULL);
	disk.fail_from = 5;
	disk.answers[BDEV_IO_WRITE_ZEROES] = BDEV_STATUS_NO_SPACE;
	assert_int_equal(run(5, &layout, &ranges, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(asked(), 6);
	expect_clean(5);
	queue_end();
}

static void test_features_gate(void **state)
{
	struct shape none = {.features = 0};
	struct ranges ranges = make_ranges(VIRTIO_BLK_T_DISCARD, 0);
	struct layout layout = plain(16 + 16, 1);

	queue_begin(&none);
	assert_int_equal(run(0, &layout, &ranges, NULL), VIRTIO_BLK_S_UNSUPP);
	ranges.header.type = VIRTIO_BLK_T_WRITE_ZEROES;
	assert_int_equal(run(0, &layout, &ranges, NULL), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(asked(), 0);
	queue_end();

	struct shape read_only = {.features = ALL_FEATURES, .read_only = true};
	queue_begin(&read_only);
	static const uint32_t types[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD,
					 VIRTIO_BLK_T_WRITE_ZEROES};
	for (size_t i = 0; i < ARRAY_COUNT(types); i++) {
		ranges.header.type = types[i];
		layout = plain(types[i] == VIRTIO_BLK_T_OUT ? 16 + 512 : 16 + 16, 1);
		uint8_t readable[16 + 512] = {0};
		memcpy(readable, &ranges, 32);
		assert_int_equal(run(0, &layout, readable, NULL), VIRTIO_BLK_S_IOERR);
		assert_int_equal(asked(), 0);
		expect_clean(0);
		harness_call(forget, NULL);
	}
	queue_end();
}

/* ---- write-through ------------------------------------------------------------------------ */

static void test_write_through(void **state)
{
	struct shape shape = {.features = ALL_FEATURES, .write_through = true};
	uint8_t readable[16 + 512] = {0};
	struct layout write = plain(sizeof(readable), 1);
	struct ranges ranges = make_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 0);
	struct layout zeroes = plain(16 + 16 * 8, 1);
	static const enum bdev_io_type fails[] = {BDEV_IO_TYPE_COUNT, BDEV_IO_WRITE, BDEV_IO_FLUSH,
						  BDEV_IO_WRITE_ZEROES};

	struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_OUT, 7);
	memcpy(readable, &header, sizeof(header));
	queue_begin(&shape);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_COUNT(fails); i++) {
			memset(disk.answers, 0, sizeof(disk.answers));
			if (fails[i] != BDEV_IO_TYPE_COUNT)
				disk.answers[fails[i]] = BDEV_STATUS_IO_ERROR;
			bool bad = fails[i] == BDEV_IO_WRITE || fails[i] == BDEV_IO_FLUSH;
			harness_call(forget, NULL);
			assert_int_equal(run(3, &write, readable, NULL),
					 bad ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
			assert_int_equal(asked(), fails[i] == BDEV_IO_WRITE ? 1 : 2);
			assert_int_equal(disk.log[0].type, BDEV_IO_WRITE);
			if (asked() == 2)
				assert_int_equal(disk.log[1].type, BDEV_IO_FLUSH);
			expect_clean(3);

			bad = fails[i] == BDEV_IO_WRITE_ZEROES || fails[i] == BDEV_IO_FLUSH;
			harness_call(forget, NULL);
			assert_int_equal(run(3, &zeroes, &ranges, NULL),
					 bad ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
			assert_int_equal(asked(), fails[i] == BDEV_IO_WRITE_ZEROES ? 1 : 9);
			expect_clean(3);
		}
	}
	/* Switched off between two requests, as the control thread does. */
	memset(disk.answers, 0, sizeof(disk.answers));
	store_relaxed(&q.queue->write_through, false);
	harness_call(forget, NULL);
	assert_int_equal(run(3, &write, readable, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(asked(), 1);
	queue_end();
}

/* ---- in flight ---------------------------------------------------------------------------- */

static void hold_reads(uint16_t from, uint16_t count)
{
	harness_call(disk_hold, NULL);
	for (uint16_t i = from; i < from + count; i++) {
		struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, i);
		struct layout layout = plain(16, 513);
		put_chain(i, &layout, &header);
		make_available(i);
	}
	unsigned int held = load_relaxed(&disk.held_count);
	kick();
	harness_wait_at_least(&disk.held_count, held + count);
}

static void test_head_twice(void **state)
{
	queue_begin(&usual);
	hold_reads(4, 1);
	make_available(4);
	make_available(4);
	kick();
	usleep(5000);
	harness_call(nothing, NULL);
	assert_true(q.queue->base.vq.broken);
	assert_true(err_signalled());
	assert_int_equal(disk.held_count, 1);
	/* The first is still answered. */
	harness_call(disk_release, NULL);
	assert_int_equal(take_used(4), 513);
	assert_memory_equal(writable_of(4), disk.bytes + 4 * 512, 512);
	queue_end();
}

static void test_stop_in_flight(void **state)
{
	queue_begin(&usual);
	hold_reads(0, 5);
	q.op.queue = &q.queue->base;
	q.op.done = op_done;
	unsigned int done = q.ops_done;
	vhost_queue_stop(&q.op);
	/* What comes now is left where it is. */
	make_available(9);
	kick();
	usleep(5000);
	harness_call(nothing, NULL);
	assert_int_equal(load_acquire(&q.ops_done), done);
	assert_int_equal(disk.held_count, 5);
	harness_call(disk_release, NULL);
	harness_wait_at_least(&q.ops_done, done + 1);
	assert_int_equal(load_acquire(&q.used->idx), 5);
	for (uint16_t i = 5; i > 0; i--)
		assert_int_equal(take_used((uint16_t)(i - 1)), 513);
	assert_int_equal(q.queue->base.vq.avail_index, 5);
	queue_free();
}

/* Requests that were translated with the old table keep it alive; new ones use the new. */
static void test_set_memory_in_flight(void **state)
{
	queue_begin(&usual);
	for (int round = 0; round < 3; round++) {
		hold_reads(0, 3);
		struct mem_region *new_region;
		struct mem_table *new_table = make_table(&new_region);
		unsigned int done = q.ops_done;
		q.op.queue = &q.queue->base;
		q.op.done = op_done;
		q.op.mem = new_table;
		vhost_queue_set_memory(&q.op);
		harness_call(nothing, NULL);
		hold_reads(3, 2);
		usleep(1000);
		assert_int_equal(load_acquire(&q.ops_done), done);
		/* Their buffers are where each was translated to. */
		for (uint32_t i = 0; i < 5; i++) {
			const uint8_t *base = disk.held[i]->iovs[0].iov_base;
			const struct mem_region *region = i < 3 ? q.region : new_region;
			assert_true(base >= region->host && base < region->host + GUEST_BYTES);
		}
		harness_call(disk_release, NULL);
		harness_wait_at_least(&q.ops_done, done + 1);
		for (uint16_t i = 5; i > 0; i--)
			assert_int_equal(take_used((uint16_t)(i - 1)), 513);
		mem_table_destroy(q.table);
		mem_region_put(q.region);
		q.table = new_table;
		q.region = new_region;
		expect_clean(1);
	}
	/* With nothing in flight it is done at once. */
	q.op.mem = q.table;
	op_wait(vhost_queue_set_memory);
	queue_end();
}

/* More long chains at once than there are arrays for them: the rest waits its turn. */
static void test_long_chains(void **state)
{
	const uint16_t count = BLK_LONG_COUNT + 14;
	struct layout layout = {
		.readable = {16}, .readable_count = 1, .writable_count = 129, .indirect = true};

	queue_begin(&usual);
	for (uint32_t i = 0; i < 128; i++)
		layout.writable[i] = 4;
	layout.writable[128] = 1;
	harness_call(disk_hold, NULL);
	for (uint16_t i = 0; i < count; i++) {
		struct virtio_blk_outhdr header = header_of(VIRTIO_BLK_T_IN, i);
		put_chain(i, &layout, &header);
		make_available(i);
	}
	kick();
	harness_wait_at_least(&disk.held_count, BLK_LONG_COUNT);
	usleep(2000);
	harness_call(nothing, NULL);
	assert_int_equal(disk.held_count, BLK_LONG_COUNT);
	harness_call(disk_release, NULL);
	for (uint16_t i = BLK_LONG_COUNT; i > 0; i--)
		assert_int_equal(take_used((uint16_t)(i - 1)), 513);
	for (uint16_t i = BLK_LONG_COUNT; i < count; i++)
		assert_int_equal(take_used(i), 513);
	for (uint16_t i = 0; i < count; i++) {
		assert_int_equal(status_of(i, &layout), VIRTIO_BLK_S_OK);
		assert_memory_equal(writable_of(i), disk.bytes + i * 512, 512);
	}
	queue_end();
}

static int setup(void **state)
{
	harness_seed();
	harness_start(REACTOR_POLL_ADAPTIVE);
	return 0;
}

static int teardown(void **state)
{
	harness_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_framing),     cmocka_unit_test(test_header_bytewise),
		cmocka_unit_test(test_refusals),        cmocka_unit_test(test_unmapped_data),
		cmocka_unit_test(test_no_status),       cmocka_unit_test(test_get_id),
		cmocka_unit_test(test_flush_with_data), cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_failing_range),   cmocka_unit_test(test_features_gate),
		cmocka_unit_test(test_write_through),   cmocka_unit_test(test_head_twice),
		cmocka_unit_test(test_stop_in_flight),  cmocka_unit_test(test_set_memory_in_flight),
		cmocka_unit_test(test_long_chains),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
