/* SPDX-License-Identifier: Apache-2.0 */
/* Up and down of a load run: see bench_setup.h. Main thread. */
#include "cli/bench_setup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "vhost/vhost_user_wire.h"

#define VERIFY_DEFAULT_BYTES (1ull << 30)
#define ARENA_BYTES_MAX (8ull << 30)
#define DATA_ALIGN 4096u

PRINTF_LIKE(2, 3)
static enum bench_exit complain(enum bench_exit code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("sluice bench: ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	return code;
}

static enum bench_exit check_disk(const struct bench_options *options,
				  const struct blk_client *client)
{
	if (options->block_bytes % client->block_size_bytes != 0)
		return complain(BENCH_EXIT_USAGE,
				"--bs %llu is no multiple of the disk's block size, %u",
				(unsigned long long)options->block_bytes, client->block_size_bytes);
	if (options->block_bytes > client->capacity_bytes)
		return complain(BENCH_EXIT_USAGE, "--bs is larger than the disk (%llu bytes)",
				(unsigned long long)client->capacity_bytes);
	if (options->size_bytes > client->capacity_bytes)
		return complain(BENCH_EXIT_USAGE, "--size is larger than the disk (%llu bytes)",
				(unsigned long long)client->capacity_bytes);
	if (client->read_only && (options->workload->writes || options->verify))
		return complain(BENCH_EXIT_USAGE, "the disk is read-only, and %s writes",
				options->verify ? "--verify" : options->workload->name);
	if (options->queue_count > client->queue_max)
		return complain(BENCH_EXIT_USAGE, "--queues %llu: the target serves at most %u",
				(unsigned long long)options->queue_count, client->queue_max);
	if (options->flush_every != 0 && !client->flush)
		return complain(BENCH_EXIT_USAGE, "--flush-every: the target does not offer FLUSH");
	if (options->packed && !client->packed)
		return complain(BENCH_EXIT_USAGE,
				"--ring packed: the target does not offer packed rings");
	if (options->event_idx && !client->event_idx)
		return complain(BENCH_EXIT_USAGE,
				"--event-idx: the target does not offer EVENT_IDX");
	if (options->inflight &&
	    !vhost_user_client_has_protocol(&client->vhost, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
		return complain(BENCH_EXIT_USAGE,
				"--inflight: the target does not offer INFLIGHT_SHMFD");
	return BENCH_EXIT_OK;
}

static enum bench_exit plan_slots(struct bench_setup *setup)
{
	const struct bench_options *options = setup->options;
	const struct blk_client *client = &setup->client;
	uint32_t segment = MIN(client->segment_bytes_max, (uint32_t)options->block_bytes);

	segment -= segment % BLK_SECTOR_BYTES;
	if (segment == 0)
		return complain(
			BENCH_EXIT_CONNECTION,
			"the target limits segments to %u bytes, which is less than a sector",
			client->segment_bytes_max);
	setup->plan = (struct blk_slots_plan){
		.depth = (uint32_t)options->iodepth,
		.flush = options->flush_every != 0,
		.data_bytes = (uint32_t)options->block_bytes,
		.data_align = options->block_bytes < DATA_ALIGN ? BLK_SECTOR_BYTES : DATA_ALIGN,
		.segment_bytes = segment,
		.packed = options->packed,
	};
	if (blk_slots_plan(&setup->plan, client->indirect) < 0)
		return complain(BENCH_EXIT_USAGE,
				"--iodepth %llu with --bs %llu does not fit a ring of %u entries%s",
				(unsigned long long)options->iodepth,
				(unsigned long long)options->block_bytes, VRING_DRIVER_SIZE_MAX,
				client->indirect ? "" : ", and the target offers no indirect ones");
	if (setup->plan.segment_count > client->segment_count_max)
		return complain(BENCH_EXIT_USAGE,
				"--bs %llu takes %u segments of %u bytes, the target allows %u",
				(unsigned long long)options->block_bytes, setup->plan.segment_count,
				segment, client->segment_count_max);
	if (setup->plan.arena_bytes > ARENA_BYTES_MAX / options->queue_count)
		return complain(BENCH_EXIT_USAGE,
				"--queues x --iodepth x --bs asks for more than %llu GiB of memory",
				ARENA_BYTES_MAX >> 30);
	return BENCH_EXIT_OK;
}

static enum bench_exit plan_region(struct bench_setup *setup)
{
	const struct bench_options *options = setup->options;
	uint64_t region = setup->client.capacity_bytes;

	if (options->size_bytes != 0) {
		region = options->size_bytes;
	} else if (options->verify && region > VERIFY_DEFAULT_BYTES) {
		region = VERIFY_DEFAULT_BYTES;
		fputs("sluice bench: note: verifying the first 1 GiB only (--size for another)\n",
		      stderr);
	}
	setup->unit_count = region / options->block_bytes;
	setup->region_bytes = setup->unit_count * options->block_bytes;
	if (!options->verify)
		return BENCH_EXIT_OK;
	/* A free unit must always be found, whatever is under way. */
	if (setup->unit_count / options->queue_count <= options->iodepth)
		return complain(BENCH_EXIT_USAGE,
				"--verify needs a region of more than --queues x --iodepth x --bs "
				"bytes; it is %llu",
				(unsigned long long)setup->region_bytes);
	setup->units = calloc(setup->unit_count, sizeof(*setup->units));
	if (setup->units == NULL)
		return complain(BENCH_EXIT_USAGE, "no memory to keep track of %llu units",
				(unsigned long long)setup->unit_count);
	return BENCH_EXIT_OK;
}

void bench_setup_part(const struct bench_setup *setup, uint32_t index, uint64_t *first,
		      uint64_t *count)
{
	uint64_t parts = setup->options->queue_count;

	if (setup->unit_count < parts) {
		*first = 0;
		*count = setup->unit_count;
		return;
	}
	*first = setup->unit_count / parts * index;
	*count = setup->unit_count / parts;
	if (index + 1 == parts)
		*count = setup->unit_count - *first;
}

/* Content that neither compresses nor is all zeroes, for runs that do not stamp it. */
static void fill_buffers(struct bench_setup *setup, struct bench_queue *queue)
{
	uint64_t *words = (uint64_t *)queue->slots.data;
	uint64_t count = (uint64_t)setup->plan.depth * queue->slots.data_stride / 8;
	uint64_t state = queue->random;

	for (uint64_t i = 0; i < count; i++)
		words[i] = random_next(&state);
}

static uint32_t read_threshold(const struct bench_options *options)
{
	if (!options->workload->writes)
		return 65536;
	if (!options->workload->reads)
		return 0;
	return (uint32_t)(options->read_percent * 65536 / 100);
}

static int queue_init(struct bench_setup *setup, uint32_t index)
{
	const struct bench_options *options = setup->options;
	struct bench_queue *queue = &setup->queues[index];

	struct vring_driver_options ring = {
		.size = setup->plan.ring_size,
		.packed = options->packed,
		.event_idx = options->event_idx,
	};

	int rc = vring_driver_init(&queue->ring, &setup->arena, &ring);
	if (rc < 0)
		return rc;
	setup->queue_count++; /* from here on it is closed with the rest */
	rc = blk_slots_init(&queue->slots, &setup->plan, &setup->arena, &queue->ring);
	if (rc < 0)
		return rc;
	queue->state = calloc(setup->plan.slot_count, sizeof(*queue->state));
	if (queue->state == NULL)
		return -ENOMEM;
	queue->index = index;
	queue->random = random_mix(options->seed ^ ((uint64_t)index << 48));
	queue->seed = options->seed;
	queue->is_random = options->workload->random;
	queue->read_threshold = read_threshold(options);
	queue->unit_sectors = (uint32_t)(options->block_bytes / BLK_SECTOR_BYTES);
	queue->depth = setup->plan.depth;
	queue->flush_every = options->flush_every;
	queue->think_ticks = ns_to_ticks(options->think_ns);
	queue->static_rings = options->static_rings;
	queue->units = setup->units;
	queue->block_bytes = setup->client.block_size_bytes;
	fill_buffers(setup, queue);
	return 0;
}

static enum bench_exit build_queues(struct bench_setup *setup)
{
	const struct bench_options *options = setup->options;
	size_t bytes = options->queue_count * sizeof(*setup->queues);
	uint64_t arena_bytes = options->queue_count * setup->plan.arena_bytes;

	int rc = guest_arena_create(&setup->arena, arena_bytes, options->hugepages);
	if (rc < 0)
		return complain(BENCH_EXIT_USAGE, "cannot map %llu bytes of %sshared memory: %s",
				(unsigned long long)arena_bytes, options->hugepages ? "huge " : "",
				strerror(-rc));
	setup->queues = aligned_alloc(CACHE_LINE_BYTES, bytes);
	if (setup->queues == NULL)
		return complain(BENCH_EXIT_USAGE, "no memory for the queues");
	memset(setup->queues, 0, bytes);
	for (uint32_t i = 0; i < options->queue_count; i++) {
		rc = queue_init(setup, i);
		if (rc < 0)
			return complain(BENCH_EXIT_USAGE, "cannot set up queue %u: %s", i,
					strerror(-rc));
	}
	return BENCH_EXIT_OK;
}

static int bring_up(struct bench_setup *setup)
{
	const struct bench_options *options = setup->options;
	struct vhost_user_client *vhost = &setup->client.vhost;
	struct blk_client_choice choice = {
		.indirect = setup->plan.indirect,
		.packed = options->packed,
		.event_idx = options->event_idx,
	};

	int rc = blk_client_accept(&setup->client, &choice);
	if (rc == 0)
		rc = vhost_user_client_set_memory(vhost, &setup->arena);
	if (rc == 0 && options->inflight)
		rc = vhost_user_client_keep_journal(vhost, setup->queue_count,
						    setup->plan.ring_size);
	for (uint32_t i = 0; rc == 0 && i < setup->queue_count; i++)
		rc = vhost_user_client_set_vring(vhost, i, &setup->queues[i].ring);
	for (uint32_t i = 0; rc == 0 && i < setup->queue_count; i++)
		rc = vhost_user_client_enable_vring(vhost, i);
	return rc == 0 ? vhost_user_client_sync(vhost) : rc;
}

enum bench_exit bench_setup_open(struct bench_setup *setup, const struct bench_options *options)
{
	*setup = (struct bench_setup){.options = options, .arena = {.fd = -1}};
	int rc = blk_client_open(&setup->client, options->socket_path);
	if (rc < 0)
		return complain(BENCH_EXIT_CONNECTION, "%s", setup->client.vhost.error);
	enum bench_exit code = check_disk(options, &setup->client);
	if (code == BENCH_EXIT_OK)
		code = plan_slots(setup);
	if (code == BENCH_EXIT_OK)
		code = plan_region(setup);
	if (code == BENCH_EXIT_OK)
		code = build_queues(setup);
	if (code != BENCH_EXIT_OK)
		return code;
	if (bring_up(setup) < 0)
		return complain(BENCH_EXIT_CONNECTION, "%s", setup->client.vhost.error);
	return BENCH_EXIT_OK;
}

void bench_setup_close(struct bench_setup *setup, bool orderly)
{
	for (uint32_t i = 0; orderly && i < setup->queue_count; i++)
		orderly = vhost_user_client_stop_vring(&setup->client.vhost, i) == 0;
	blk_client_close(&setup->client);
	for (uint32_t i = 0; i < setup->queue_count; i++) {
		free(setup->queues[i].state);
		vring_driver_fini(&setup->queues[i].ring);
	}
	free(setup->queues);
	free(setup->units);
	guest_arena_destroy(&setup->arena);
}
