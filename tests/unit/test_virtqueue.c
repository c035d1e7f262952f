/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueues: each rule of the ring by itself, the indexes around 65535, when to call and to
 * kick, and driver against device on two threads. Random chains: test_virtqueue_model.c. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
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
#include "harness.h"
#include "virtio/virtqueue.h"

#define PAGE 4096ull
#define GUEST 0x100000ull
#define REGION_BYTES (16 * PAGE)
#define SIZE 16u
#define IOV_MAX_COUNT 64u

/* Two regions that adjoin in the guest: what crosses GUEST + REGION_BYTES crosses regions. */
static struct mem_region *regions[2];
static struct mem_table *table;
static struct vring_desc desc[SIZE] __attribute__((aligned(16)));
static uint8_t avail_bytes[64] __attribute__((aligned(8)));
static uint8_t used_bytes[256] __attribute__((aligned(8)));
static struct vring_avail *const avail = (void *)avail_bytes;
static struct vring_used *const used = (void *)used_bytes;
static uint8_t journal[16 + 16 * SIZE] __attribute__((aligned(64)));
static struct virtqueue vq;
static struct iovec iovs[IOV_MAX_COUNT];
static struct virtqueue_chain chain;

static void init(uint16_t start, bool event_idx)
{
	struct virtqueue_options options = {
		.desc = desc,
		.avail = avail,
		.used = used,
		.mem = table,
		.size = SIZE,
		.journal = journal,
		.journal_capacity = SIZE,
		.base = start,
		.event_idx = event_idx,
		.indirect = true,
	};

	virtqueue_fini(&vq);
	memset(journal, 0, sizeof(journal));
	memset(desc, 0, sizeof(desc));
	memset(avail_bytes, 0, sizeof(avail_bytes));
	memset(used_bytes, 0, sizeof(used_bytes));
	avail->idx = start;
	used->idx = start;
	assert_int_equal(virtqueue_init(&vq, &options), 0);
}

static struct vring_desc make(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	return (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

static struct vring_desc *in_guest(uint64_t guest)
{
	uint32_t hint = 0;
	uint64_t run;

	return mem_translate(table, &hint, (gpa_t){guest}, 1, &run);
}

static int walk(uint32_t iov_max)
{
	struct virtqueue_head head = {.slot_count = 1};

	chain.iovs = iovs;
	chain.iov_max = iov_max;
	virtqueue_fetch(&vq, &head);
	return virtqueue_walk(&vq, &head, &chain);
}

static void expect_broken(const char *why)
{
	assert_int_equal(walk(IOV_MAX_COUNT), -EINVAL);
	assert_true(vq.broken);
	assert_non_null(strstr(vq.broken_why, why));
}

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

/* ---- rules -------------------------------------------------------------------------------- */

static void test_good_chain(void **state)
{
	init(0, false);
	desc[0] = make(GUEST, 16, NEXT, 5);
	desc[5] = make(GUEST + REGION_BYTES - 100, 300, NEXT | WRITE, SIZE - 1);
	desc[SIZE - 1] = make(GUEST + 50, 1, WRITE, 77);
	assert_int_equal(walk(4), 0);
	assert_int_equal(chain.iov_count, 4);
	assert_int_equal(chain.readable_count, 1);
	assert_int_equal(chain.readable_bytes, 16);
	assert_int_equal(chain.writable_bytes, 301);
	assert_ptr_equal(iovs[1].iov_base, regions[0]->host + REGION_BYTES - 100);
	assert_int_equal(iovs[1].iov_len, 100);
	assert_ptr_equal(iovs[2].iov_base, regions[1]->host);
	assert_int_equal(iovs[2].iov_len, 200);
	assert_false(chain.unmapped);
	for (uint32_t max = 0; max < 4; max++)
		assert_int_equal(walk(max), -ENOBUFS);
	assert_false(vq.broken);
	assert_int_equal(walk(4), 0);
}

static void test_loops(void **state)
{
	init(0, false);
	desc[0] = make(GUEST, 1, NEXT, 0);
	expect_broken("longer than its ring");

	init(0, false);
	desc[0] = make(GUEST, 0, NEXT, 0);
	expect_broken("longer than its ring");

	init(0, false);
	desc[0] = make(GUEST, 1, NEXT, 1);
	desc[1] = make(GUEST, 1, NEXT, 2);
	desc[2] = make(GUEST, 1, NEXT, 1);
	expect_broken("longer than its ring");

	/* The whole ring is the longest chain. */
	init(0, false);
	for (uint16_t i = 0; i < SIZE; i++)
		desc[i] = make(GUEST, 1, i + 1u < SIZE ? NEXT : 0, (uint16_t)(i + 1));
	assert_int_equal(walk(IOV_MAX_COUNT), 0);
	assert_int_equal(chain.iov_count, SIZE);
	desc[SIZE - 1].flags = NEXT;
	desc[SIZE - 1].next = 0;
	expect_broken("longer than its ring");

	/* In a table. */
	init(0, false);
	desc[0] = make(GUEST, 32, INDIRECT, 0);
	in_guest(GUEST)[0] = make(GUEST, 1, NEXT, 1);
	in_guest(GUEST)[1] = make(GUEST, 1, NEXT, 0);
	expect_broken("longer than its ring");
}

static void test_next_outside(void **state)
{
	init(0, false);
	desc[0] = make(GUEST, 1, NEXT, SIZE);
	expect_broken("outside its ring");
	init(0, false);
	desc[0] = make(GUEST, 1, NEXT, UINT16_MAX);
	expect_broken("outside its ring");
	init(0, false);
	desc[0] = make(GUEST, 32, INDIRECT, 0);
	in_guest(GUEST)[0] = make(GUEST, 1, NEXT, 2);
	expect_broken("outside its ring");
}

static void test_indirect_rules(void **state)
{
	init(0, false);
	desc[0] = make(GUEST, 16, INDIRECT, 0);
	vq.indirect = false;
	expect_broken("without the feature");

	init(0, false);
	desc[0] = make(GUEST, 16, INDIRECT | NEXT, 1);
	expect_broken("with NEXT");

	static const uint32_t lengths[] = {
		0, 1, 15, 17, 31, UINT32_MAX, UINT32_MAX - 15, 16 * (VIRTQUEUE_INDIRECT_MAX + 1)};
	for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
		init(0, false);
		desc[0] = make(GUEST, lengths[i], INDIRECT, 0);
		expect_broken("illegal length");
	}

	init(0, false);
	desc[0] = make(GUEST, 32, INDIRECT, 0);
	in_guest(GUEST)[0] = make(GUEST, 16, INDIRECT, 0);
	expect_broken("in an indirect table");
	init(0, false);
	desc[0] = make(GUEST, 32, INDIRECT, 0);
	in_guest(GUEST)[0] = make(GUEST, 1, NEXT, 1);
	in_guest(GUEST)[1] = make(GUEST, 16, INDIRECT, 0);
	expect_broken("in an indirect table");

	static const uint64_t nowhere[] = {0, GUEST - 16, GUEST + 2 * REGION_BYTES, UINT64_MAX,
					   UINT64_MAX - 15};
	for (size_t i = 0; i < ARRAY_COUNT(nowhere); i++) {
		init(0, false);
		desc[0] = make(nowhere[i], 16, INDIRECT, 0);
		expect_broken("not in guest memory");
	}
	/* Its second entry is beyond the end, and needed. */
	init(0, false);
	desc[0] = make(GUEST + 2 * REGION_BYTES - 16, 32, INDIRECT, 0);
	*in_guest(GUEST + 2 * REGION_BYTES - 16) = make(GUEST, 1, NEXT, 1);
	expect_broken("not in guest memory");
	/* And not needed. */
	init(0, false);
	desc[0] = make(GUEST + 2 * REGION_BYTES - 16, 32, INDIRECT, 0);
	*in_guest(GUEST + 2 * REGION_BYTES - 16) = make(GUEST, 1, 0, 1);
	assert_int_equal(walk(IOV_MAX_COUNT), 0);
}

/* A table across two regions, cut between entries and inside one: adjoining guest memory is one
 * memory to the guest. */
static void test_table_over_regions(void **state)
{
	for (uint64_t cut = 0; cut <= 48; cut += 8) {
		uint8_t bytes[48];
		struct vring_desc entries[3] = {
			make(GUEST, 16, NEXT, 1),
			make(GUEST + PAGE, 512, NEXT | WRITE, 2),
			make(GUEST + 3 * PAGE, 1, WRITE, 0),
		};

		init(0, false);
		memcpy(bytes, entries, sizeof(bytes));
		desc[0] = make(GUEST + REGION_BYTES - cut, sizeof(bytes), INDIRECT, 0);
		memcpy(regions[0]->host + REGION_BYTES - cut, bytes, cut);
		memcpy(regions[1]->host, bytes + cut, sizeof(bytes) - cut);
		assert_int_equal(walk(IOV_MAX_COUNT), 0);
		assert_int_equal(chain.iov_count, 3);
		assert_int_equal(chain.readable_bytes, 16);
		assert_int_equal(chain.writable_bytes, 513);
	}
}

static void test_readable_after_writable(void **state)
{
	init(0, false);
	desc[0] = make(GUEST, 1, NEXT | WRITE, 1);
	desc[1] = make(GUEST, 1, 0, 0);
	expect_broken("after a writable one");
}

static void test_unmapped_buffers(void **state)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint32_t mapped; /* of it */
	} cases[] = {
		{0, 1, 0},
		{GUEST - 1, 2, 0},
		{GUEST + 2 * REGION_BYTES - 1, 2, 1},
		{UINT64_MAX, 1, 0},
		{UINT64_MAX - 10, UINT32_MAX, 0},
		{GUEST + 2 * REGION_BYTES - 7, UINT32_MAX, 7},
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		init(0, false);
		desc[0] = make(cases[i].addr, cases[i].len, WRITE, 0);
		assert_int_equal(walk(IOV_MAX_COUNT), 0);
		assert_false(vq.broken);
		assert_true(chain.unmapped);
		assert_int_equal(chain.writable_bytes, cases[i].len);
		assert_int_equal(chain.iov_count, cases[i].mapped > 0 ? 2 : 1);
		assert_null(iovs[chain.iov_count - 1].iov_base);
		assert_int_equal(iovs[chain.iov_count - 1].iov_len, cases[i].len - cases[i].mapped);
	}
}

/* ---- indexes ------------------------------------------------------------------------------ */

static void test_peek(void **state)
{
	struct virtqueue_head heads[SIZE + 1];

	for (uint32_t start = 65536 - 2 * SIZE; start <= 65536 + SIZE; start++) {
		init((uint16_t)start, false);
		assert_int_equal(virtqueue_peek(&vq, heads, SIZE), 0);
		for (uint32_t i = 0; i < SIZE; i++)
			avail->ring[(start + i) % SIZE] = (uint16_t)(SIZE - 1 - i);
		avail->idx = (uint16_t)(start + SIZE);
		assert_int_equal(virtqueue_peek(&vq, heads, 3), 3);
		assert_int_equal(virtqueue_peek(&vq, heads, SIZE + 1), SIZE);
		for (uint32_t i = 0; i < SIZE; i++)
			assert_int_equal(heads[i].id, SIZE - 1 - i);
		vq.avail_index = (uint16_t)(vq.avail_index + SIZE);
		assert_int_equal(virtqueue_peek(&vq, heads, SIZE), 0);
		assert_false(vq.broken);
		/* One more than a ring, and one less than none. */
		uint16_t wrong[] = {(uint16_t)(vq.avail_index + SIZE + 1),
				    (uint16_t)(vq.avail_index - 1)};
		for (int i = 0; i < 2; i++) {
			vq.broken = false;
			avail->idx = wrong[i];
			assert_int_equal(virtqueue_peek(&vq, heads, SIZE), 0);
			assert_true(vq.broken);
		}
	}
	init(0, false);
	avail->ring[1] = SIZE;
	avail->idx = 2;
	assert_int_equal(virtqueue_peek(&vq, heads, 1), 1);
	assert_false(vq.broken);
	assert_int_equal(virtqueue_peek(&vq, heads, 2), 0);
	assert_true(vq.broken);
}

static void test_used_ring_wraps(void **state)
{
	init(65530, false);
	for (uint32_t i = 0; i < 40; i++) {
		uint32_t slot = (65530 + i) % SIZE;
		virtqueue_push(&vq, (uint16_t)(i % SIZE), 1000 + i);
		assert_int_equal(used->idx, (uint16_t)(65530 + i));
		assert_true(virtqueue_publish(&vq));
		assert_int_equal(used->ring[slot].id, i % SIZE);
		assert_int_equal(used->ring[slot].len, 1000 + i);
		assert_int_equal(used->idx, (uint16_t)(65530 + i + 1));
		assert_false(virtqueue_publish(&vq));
	}
	/* The device goes on from where the ring is, not from 0. */
	memset(journal, 0, sizeof(journal));
	struct virtqueue again;
	struct virtqueue_options options = {.desc = desc,
					    .avail = avail,
					    .used = used,
					    .mem = table,
					    .journal = journal,
					    .journal_capacity = SIZE,
					    .size = SIZE};
	assert_int_equal(virtqueue_init(&again, &options), 0);
	assert_int_equal(again.used_index, (uint16_t)(65530 + 40));
	assert_false(virtqueue_publish(&again));
	virtqueue_fini(&again);
}

/* ---- calls and kicks ---------------------------------------------------------------------- */

static void test_call_flag(void **state)
{
	init(0, false);
	avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtqueue_push(&vq, 0, 0);
	assert_false(virtqueue_publish(&vq));
	avail->flags = 0;
	assert_false(virtqueue_publish(&vq));
	virtqueue_push(&vq, 0, 0);
	assert_true(virtqueue_publish(&vq));
}

/* A call exactly if the entry that the driver named is among those published. */
static void test_call_event(void **state)
{
	for (int i = 0; i < 20000; i++) {
		uint16_t start = (uint16_t)(harness_random(2) == 0 ? harness_random(65536)
								   : 65536 - harness_random(20));
		uint16_t count = (uint16_t)(1 + harness_random(SIZE));
		uint16_t event = (uint16_t)(start - 3 + harness_random(SIZE + 6));
		bool expected = false;

		init(start, true);
		/* An earlier batch, that decided about its own entries only. */
		avail->ring[SIZE] = (uint16_t)(start + 1000);
		virtqueue_push(&vq, 0, 0);
		assert_false(virtqueue_publish(&vq));
		avail->ring[SIZE] = event;
		avail->flags = VRING_AVAIL_F_NO_INTERRUPT; /* means nothing now */
		for (uint16_t k = 0; k < count; k++) {
			virtqueue_push(&vq, 0, 0);
			expected |= (uint16_t)(start + 1 + k) == event;
		}
		assert_int_equal(virtqueue_publish(&vq), expected);
	}
}

static void test_kicks(void **state)
{
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		for (uint32_t start = 65530; start < 65540; start++) {
			init((uint16_t)start, event_idx);
			virtqueue_disable_kick(&vq);
			assert_int_equal(used->flags, event_idx ? 0 : VRING_USED_F_NO_NOTIFY);
			assert_true(virtqueue_enable_kick(&vq));
			assert_int_equal(used->flags, 0);
			uint16_t *event = (uint16_t *)&used->ring[SIZE];
			assert_ptr_equal(event, virtqueue_avail_event(&vq));
			assert_int_equal(*event, event_idx ? (uint16_t)start : 0);
			avail->idx++;
			/* The driver would kick for this one. */
			if (event_idx)
				assert_true(vring_need_event(*event, avail->idx, (uint16_t)start));
			assert_false(virtqueue_enable_kick(&vq));
		}
	}
}

/* ---- driver and device -------------------------------------------------------------------- */

#define STRESS_SIZE 8u
#define STRESS_COUNT 40000u

struct stress {
	bool event_idx;
	int kick_fd;
	int call_fd;
	uint8_t avail_bytes[64] __attribute__((aligned(8)));
	uint8_t used_bytes[256] __attribute__((aligned(8)));
	struct vring_desc desc[STRESS_SIZE] __attribute__((aligned(16)));
	uint8_t journal[16 + 16 * STRESS_SIZE] __attribute__((aligned(64)));
	struct virtqueue vq;
	unsigned int device_sleeps;
	unsigned int driver_sleeps;
	uint32_t done; /* by the device */
	bool lost_kick;
	bool lost_call;
};

/* False if no event came in ten seconds. */
static bool wait_event(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	uint64_t count;

	if (poll(&pollfd, 1, 10000) != 1)
		return false;
	ensure(read(fd, &count, sizeof(count)) == sizeof(count));
	return true;
}

static void *device_main(void *arg)
{
	struct stress *stress = arg;
	struct virtqueue *device = &stress->vq;
	struct virtqueue_head heads[4];

	virtqueue_disable_kick(device);
	while (stress->done < STRESS_COUNT) {
		uint32_t count = virtqueue_peek(device, heads, ARRAY_COUNT(heads));
		ensure(!device->broken);
		if (count == 0) {
			if (virtqueue_enable_kick(device)) {
				stress->device_sleeps++;
				if (!wait_event(stress->kick_fd)) {
					stress->lost_kick = true;
					return NULL;
				}
			}
			virtqueue_disable_kick(device);
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			virtqueue_fetch(device, &heads[i]);
			virtqueue_take(device, &heads[i]);
			virtqueue_push(device, heads[i].id, heads[i].first.len);
		}
		stress->done += count;
		if (virtqueue_publish(device))
			fd_eventfd_signal(stress->call_fd);
	}
	return NULL;
}

struct driver {
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t avail_index;
	uint16_t used_index;
	uint16_t free[STRESS_SIZE];
	uint32_t free_count;
	uint32_t submitted;
	uint32_t lengths[STRESS_SIZE];
};

static void driver_submit(struct stress *stress, struct driver *driver, uint32_t count)
{
	uint16_t old = driver->avail_index;

	for (uint32_t i = 0; i < count; i++) {
		uint16_t head = driver->free[--driver->free_count];
		driver->lengths[head] = ++driver->submitted;
		stress->desc[head] = make(GUEST, driver->lengths[head], WRITE, 0);
		store_relaxed(&driver->avail->ring[driver->avail_index++ % STRESS_SIZE], head);
	}
	__atomic_store_n(&driver->avail->idx, driver->avail_index, __ATOMIC_SEQ_CST);
	bool kick;
	if (stress->event_idx)
		kick = vring_need_event(
			__atomic_load_n((uint16_t *)&driver->used->ring[STRESS_SIZE],
					__ATOMIC_SEQ_CST),
			driver->avail_index, old);
	else
		kick = !(__atomic_load_n(&driver->used->flags, __ATOMIC_SEQ_CST) &
			 VRING_USED_F_NO_NOTIFY);
	if (kick)
		fd_eventfd_signal(stress->kick_fd);
}

static uint32_t driver_reap(struct driver *driver)
{
	uint16_t index = load_acquire(&driver->used->idx);
	uint32_t count = 0;

	for (; driver->used_index != index; driver->used_index++, count++) {
		const struct vring_used_elem *elem =
			&driver->used->ring[driver->used_index % STRESS_SIZE];
		uint32_t head = elem->id;
		ensure(head < STRESS_SIZE && elem->len == driver->lengths[head]);
		driver->lengths[head] = 0;
		driver->free[driver->free_count++] = (uint16_t)head;
	}
	return count;
}

/* Asks for a call; true if there is nothing to take yet. */
static bool driver_enable_call(const struct stress *stress, struct driver *driver)
{
	if (stress->event_idx)
		__atomic_store_n(&driver->avail->ring[STRESS_SIZE], driver->used_index,
				 __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&driver->avail->flags, 0, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&driver->used->idx, __ATOMIC_SEQ_CST) == driver->used_index;
}

static void driver_run(struct stress *stress)
{
	struct driver driver = {
		.avail = (void *)stress->avail_bytes,
		.used = (void *)stress->used_bytes,
		.avail_index = 65000,
		.used_index = 65000,
		.free_count = STRESS_SIZE,
	};

	for (uint16_t i = 0; i < STRESS_SIZE; i++)
		driver.free[i] = i;
	while (driver.submitted < STRESS_COUNT || driver.free_count < STRESS_SIZE) {
		uint32_t count = (uint32_t)harness_random(STRESS_SIZE + 1);
		count = MIN(count, driver.free_count);
		count = MIN(count, STRESS_COUNT - driver.submitted);
		if (count > 0)
			driver_submit(stress, &driver, count);
		if (driver_reap(&driver) > 0 || driver.free_count == STRESS_SIZE)
			continue;
		if (driver_enable_call(stress, &driver)) {
			stress->driver_sleeps++;
			if (!wait_event(stress->call_fd)) {
				stress->lost_call = true;
				return;
			}
		}
		if (!stress->event_idx)
			store_relaxed(&driver.avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
	}
}

static void stress_run(bool event_idx)
{
	struct stress *stress = aligned_alloc(64, (sizeof(*stress) + 63) / 64 * 64);
	pthread_t device;

	memset(stress, 0, sizeof(*stress));
	stress->event_idx = event_idx;
	stress->kick_fd = fd_eventfd_create();
	stress->call_fd = fd_eventfd_create();
	struct virtqueue_options options = {
		.desc = stress->desc,
		.avail = stress->avail_bytes,
		.used = stress->used_bytes,
		.mem = table,
		.size = STRESS_SIZE,
		.journal = stress->journal,
		.journal_capacity = STRESS_SIZE,
		.base = 65000,
		.event_idx = event_idx,
	};
	((struct vring_avail *)options.avail)->idx = 65000;
	((struct vring_used *)options.used)->idx = 65000;
	assert_int_equal(virtqueue_init(&stress->vq, &options), 0);
	assert_int_equal(pthread_create(&device, NULL, device_main, stress), 0);
	driver_run(stress);
	pthread_join(device, NULL);
	printf("# event_idx %d: device slept %u times, driver %u\n", event_idx,
	       stress->device_sleeps, stress->driver_sleeps);
	assert_false(stress->lost_kick);
	assert_false(stress->lost_call);
	assert_int_equal(stress->done, STRESS_COUNT);
	virtqueue_fini(&stress->vq);
	fd_close(&stress->kick_fd);
	fd_close(&stress->call_fd);
	free(stress);
}

static void test_driver_against_device(void **state)
{
	stress_run(false);
	stress_run(true);
}

static int setup(void **state)
{
	int fd = fd_memfd_create("guest", 2 * REGION_BYTES, 0);

	harness_seed();
	for (uint64_t i = 0; i < 2; i++) {
		/* The second half of the guest is the first of the file: not contiguous here. */
		struct mem_region_desc region = {
			.guest_addr = {GUEST + i * REGION_BYTES},
			.user_addr = i * REGION_BYTES,
			.size_bytes = REGION_BYTES,
			.mmap_offset = (1 - i) * REGION_BYTES,
		};
		if (mem_region_map(fd, &region, &regions[i]) < 0)
			return -1;
	}
	fd_close(&fd);
	return mem_table_create(regions, 2, &table);
}

static int teardown(void **state)
{
	virtqueue_fini(&vq);
	mem_table_destroy(table);
	mem_region_put(regions[0]);
	mem_region_put(regions[1]);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_chain),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_next_outside),
		cmocka_unit_test(test_indirect_rules),
		cmocka_unit_test(test_table_over_regions),
		cmocka_unit_test(test_readable_after_writable),
		cmocka_unit_test(test_unmapped_buffers),
		cmocka_unit_test(test_peek),
		cmocka_unit_test(test_used_ring_wraps),
		cmocka_unit_test(test_call_flag),
		cmocka_unit_test(test_call_event),
		cmocka_unit_test(test_kicks),
		cmocka_unit_test(test_driver_against_device),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
