/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The path of an I/O in the load generator: see bench_queue.h, also for who owns what. One loop
 * serves plain and verifying runs; the compiler makes two functions of it.
 */
#include "cli/bench_queue.h"

#include "base/clock.h"
#include "base/random.h"

/* Large enough that a batch's fixed costs (a fence, a time stamp, a store of avail->idx) vanish,
 * small enough that the device gets new work long before it has finished a deep queue: with whole
 * rounds of the queue as batches the two sides would take turns instead of overlapping. */
#define BATCH_MAX 32u

/* One batch in 16 is timed from end to end; longer ones than this were interrupted. */
#define SAMPLE_MASK 15u
#define SAMPLE_TICKS_MAX 100000u

#define ALWAYS_INLINE inline __attribute__((always_inline))

static ALWAYS_INLINE uint64_t next_plain(struct bench_queue *queue, bool *read)
{
	/* The high bits choose the place and the low 16 the direction. */
	uint64_t bits = random_next(&queue->random);

	*read = (uint32_t)(bits & 0xffff) < queue->read_threshold;
	if (queue->is_random)
		return queue->first_unit + random_scale(bits, queue->unit_count);
	uint64_t unit = queue->first_unit + queue->cursor;
	queue->cursor = queue->cursor + 1 == queue->unit_count ? 0 : queue->cursor + 1;
	return unit;
}

/* Puts a slot's next request into the ring: false when there is none left. */
static ALWAYS_INLINE bool submit(struct bench_queue *queue, uint32_t slot, uint64_t now,
				 bool verify)
{
	struct bench_slot *state = &queue->state[slot];
	bool read;

	if (unlikely(queue->remaining == 0))
		return false;
	if (verify) {
		if (!bench_prover_next(queue, slot, &read))
			return false;
		/* A device that reports a request without writing its status is found out. */
		store_relaxed(&queue->slots.statuses[slot], BLK_STATUS_UNSET);
	} else {
		state->unit = next_plain(queue, &read);
	}
	queue->remaining--;
	if (unlikely(state->read != read)) {
		blk_slots_set_direction(&queue->slots, slot, read);
		state->read = read;
	}
	if (likely(!queue->static_rings))
		blk_slots_rewrite(&queue->slots, slot);
	blk_slots_set_header(&queue->slots, slot, read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
			     state->unit * queue->unit_sectors);
	state->submit_ticks = now;
	state->busy = true;
	vring_driver_push(&queue->ring, blk_slots_head(&queue->slots, slot));
	return true;
}

static void publish(struct bench_queue *queue)
{
	uint64_t kicks = queue->ring.kick_count;

	vring_driver_publish(&queue->ring);
	vring_driver_kick(&queue->ring);
	queue->stats->kicks += queue->ring.kick_count - kicks;
}

/* The flush slot is the last one, without data. At most one flush is outstanding. */
static void submit_flush_if_due(struct bench_queue *queue, uint64_t now)
{
	uint32_t slot = queue->depth;
	struct bench_slot *state = &queue->state[slot];

	if (queue->writes_unflushed < queue->flush_every || state->busy || queue->remaining == 0)
		return;
	queue->writes_unflushed -= queue->flush_every;
	blk_slots_set_header(&queue->slots, slot, VIRTIO_BLK_T_FLUSH, 0);
	store_relaxed(&queue->slots.statuses[slot], BLK_STATUS_UNSET);
	state->submit_ticks = now;
	state->unit = 0;
	state->busy = true;
	queue->outstanding++;
	vring_driver_push(&queue->ring, blk_slots_head(&queue->slots, slot));
	publish(queue);
}

__attribute__((noinline, cold)) static void account_failure(struct bench_queue *queue,
							    uint32_t slot, uint8_t status)
{
	struct bench_stats *stats = queue->stats;

	if (stats->errors++ > 0)
		return;
	stats->first_failure = (struct bench_failure){
		.offset = queue->state[slot].unit * queue->unit_sectors * 512,
		.type = queue->slots.headers[slot].type,
		.status = status,
	};
}

__attribute__((noinline)) static void account_flush(struct bench_queue *queue, uint64_t latency)
{
	queue->stats->flushes++;
	histogram_record(&queue->stats->flush_latency, latency);
}

static void note_progress(struct bench_stats *stats, uint32_t count, uint64_t now)
{
	uint64_t gap = now - stats->last_completion_ticks;

	stats->last_completion_ticks = now;
	stats->longest_gap_ticks = MAX(stats->longest_gap_ticks, gap);
	counter_add(&stats->progress, count);
}

/* Of an untrusted used entry: the slot, or UINT32_MAX if it is not outstanding. What was submitted
 * at now, in this very batch, is not published yet. */
static ALWAYS_INLINE uint32_t slot_of(const struct bench_queue *queue, uint32_t id, uint64_t now)
{
	uint32_t slot = id >> queue->slots.head_shift;

	if (unlikely(slot >= queue->slots.count || (slot << queue->slots.head_shift) != id ||
		     !queue->state[slot].busy || queue->state[slot].submit_ticks == now))
		return UINT32_MAX;
	return slot;
}

static ALWAYS_INLINE uint32_t poll_queue(struct bench_queue *queue, bool verify)
{
	if (!vring_driver_look(&queue->ring) || queue->broken != NULL)
		return 0;
	struct bench_stats *stats = queue->stats;
	uint64_t now = ticks_now();
	uint64_t reads = 0, writes = 0;
	uint32_t id, count = 0, submitted = 0;
	uint64_t run_latency = 0, run_count = 0; /* equal latencies in a row, recorded at once */

	while (count < BATCH_MAX && vring_driver_take(&queue->ring, &id)) {
		uint32_t slot = slot_of(queue, id, now);
		if (unlikely(slot == UINT32_MAX)) {
			queue->broken = "the target completed a request that is not outstanding";
			break;
		}
		struct bench_slot *state = &queue->state[slot];
		uint8_t status = load_relaxed(&queue->slots.statuses[slot]);
		uint64_t latency = now - state->submit_ticks;
		state->busy = false;
		queue->outstanding--;
		count++;
		if (unlikely(status != VIRTIO_BLK_S_OK))
			account_failure(queue, slot, status);
		if (unlikely(slot == queue->depth)) {
			account_flush(queue, latency);
			continue;
		}
		if (verify)
			bench_prover_complete(queue, slot, status == VIRTIO_BLK_S_OK);
		if (likely(status == VIRTIO_BLK_S_OK)) {
			reads += state->read;
			writes += !state->read;
		}
		if (latency != run_latency && run_count != 0) {
			histogram_record_many(&stats->latency, run_latency, run_count);
			run_count = 0;
		}
		run_latency = latency;
		run_count++;
		if (likely(queue->think_ticks == 0))
			submitted += submit(queue, slot, now, verify);
	}
	if (run_count != 0)
		histogram_record_many(&stats->latency, run_latency, run_count);
	queue->outstanding += submitted;
	if (submitted != 0)
		publish(queue);
	stats->reads += reads;
	stats->writes += writes;
	note_progress(stats, count, now);
	if (queue->flush_every != 0) {
		queue->writes_unflushed += writes;
		submit_flush_if_due(queue, now);
	}
	if (unlikely(queue->think_ticks != 0) && queue->outstanding == 0)
		queue->resume_ticks = ticks_now() + queue->think_ticks;
	if ((queue->batch_number++ & SAMPLE_MASK) == 0) {
		uint64_t spent = ticks_now() - now;
		if (spent < SAMPLE_TICKS_MAX) {
			stats->sampled_ticks += spent;
			stats->sampled_ios += count;
		}
	}
	return count;
}

uint32_t bench_queue_poll(struct bench_queue *queue)
{
	return poll_queue(queue, false);
}

uint32_t bench_queue_poll_verify(struct bench_queue *queue)
{
	return poll_queue(queue, true);
}

void bench_queue_start(struct bench_queue *queue)
{
	bool verify = queue->units != NULL;
	uint64_t now = ticks_now();
	uint32_t submitted = 0;

	queue->resume_ticks = 0;
	for (uint32_t slot = 0; slot < queue->depth; slot++) {
		if (verify)
			submitted += submit(queue, slot, now, true);
		else
			submitted += submit(queue, slot, now, false);
	}
	queue->outstanding += submitted;
	if (submitted != 0)
		publish(queue);
}
