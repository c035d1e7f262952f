/* SPDX-License-Identifier: Apache-2.0 */
/* Which reactor serves which queue. Control thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "vhost/session.h"

static struct {
	uint64_t in[REACTOR_COUNT_MAX];
	uint64_t out[REACTOR_COUNT_MAX];
	uint64_t total;
} moves;

static bool mask_empty(const uint64_t *mask)
{
	for (unsigned int i = 0; i < REACTOR_CPU_WORDS; i++) {
		if (mask[i] != 0)
			return false;
	}
	return true;
}

bool placement_allowed(const uint64_t *cpu_mask, unsigned int reactor_index)
{
	int cpu = reactor_cpu(vhost_reactors()->data[reactor_index]);

	if (mask_empty(cpu_mask))
		return true;
	return cpu >= 0 && cpu < REACTOR_CPU_MAX && (cpu_mask[cpu / 64] >> (cpu % 64) & 1);
}

bool placement_possible(const uint64_t *cpu_mask)
{
	for (unsigned int i = 0; i < vhost_reactors()->data_count; i++) {
		if (placement_allowed(cpu_mask, i))
			return true;
	}
	return false;
}

/* Queues on a reactor, of all controllers. */
static uint32_t reactor_load(unsigned int index)
{
	uint32_t load = 0;

	list_for_each (node, vhost_controllers())
		load += list_entry(node, struct vhost_controller, link)
				->channels[index]
				.queue_count;
	return load;
}

unsigned int controller_choose_reactor(const struct vhost_controller *controller)
{
	unsigned int count = vhost_reactors()->data_count;
	unsigned int best = count;
	uint64_t best_load = UINT64_MAX;

	for (unsigned int i = 0; i < count; i++) {
		if (!placement_allowed(controller->cpu_mask, i))
			continue;
		/* First of all the queues of one disk spread; among equals, all queues do. */
		uint64_t load =
			(uint64_t)controller->channels[i].queue_count << 32 | reactor_load(i);
		if (load < best_load) {
			best = i;
			best_load = load;
		}
	}
	ensure(best < count);
	return best;
}

struct vhost_channel *controller_place_queue(struct vhost_controller *controller,
					     unsigned int reactor_index)
{
	struct vhost_channel *channel = &controller->channels[reactor_index];

	/* On failure bdev stays NULL, which the caller looks at. */
	if (channel->queue_count++ == 0 &&
	    bdev_channel_alloc(controller->open, vhost_reactors()->data[reactor_index],
			       &channel->bdev) < 0)
		channel->bdev = NULL;
	return channel;
}

void controller_unplace_queue(struct vhost_controller *controller, unsigned int reactor_index)
{
	struct vhost_channel *channel = &controller->channels[reactor_index];

	ensure(channel->queue_count > 0);
	if (--channel->queue_count > 0 || channel->bdev == NULL)
		return;
	bdev_channel_free(channel->bdev);
	channel->bdev = NULL;
}

/* ---- moves -------------------------------------------------------------------------------- */

void placement_count_move(unsigned int from, unsigned int to)
{
	moves.out[from]++;
	moves.in[to]++;
	moves.total++;
}

void placement_reset(void)
{
	memset(&moves, 0, sizeof(moves));
}

uint64_t placement_move_count(void)
{
	return moves.total;
}

void vhost_get_reactor_moves(unsigned int reactor_index, uint64_t *in, uint64_t *out)
{
	*in = moves.in[reactor_index];
	*out = moves.out[reactor_index];
}

/* The next reactor that is allowed, from index on and round. */
static unsigned int next_allowed(const uint64_t *cpu_mask, unsigned int index)
{
	unsigned int count = vhost_reactors()->data_count;

	for (unsigned int i = 0; i < count; i++) {
		if (placement_allowed(cpu_mask, (index + i) % count))
			return (index + i) % count;
	}
	return 0; /* not reached: a mask without a reactor is refused */
}

void placement_enforce(struct vhost_session *session)
{
	const struct vhost_controller *controller = session->controller;

	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		if (queue->run != NULL &&
		    !placement_allowed(controller->cpu_mask, queue->reactor_index))
			session_move_queue(queue, next_allowed(controller->cpu_mask, i), NULL,
					   NULL);
	}
}

int vhost_controller_set_cpu_mask(struct vhost_controller *controller, const uint64_t *cpu_mask)
{
	if (!placement_possible(cpu_mask))
		return -EINVAL;
	memcpy(controller->cpu_mask, cpu_mask, sizeof(controller->cpu_mask));
	list_for_each (node, &controller->sessions)
		placement_enforce(list_entry(node, struct vhost_session, link));
	return 0;
}

const uint64_t *vhost_controller_cpu_mask(const struct vhost_controller *controller)
{
	return controller->cpu_mask;
}

/* ---- by hand ------------------------------------------------------------------------------ */

static int find_reactor(const struct vhost_controller *controller, int cpu, unsigned int *out,
			char *error, size_t error_bytes)
{
	const struct reactor_set *set = vhost_reactors();

	for (unsigned int i = 0; i < set->data_count; i++) {
		if (reactor_cpu(set->data[i]) != cpu)
			continue;
		*out = i;
		if (placement_allowed(controller->cpu_mask, i))
			return 0;
		snprintf(error, error_bytes, "cpu: the cpumask of %s does not allow CPU %d",
			 controller->name, cpu);
		return -EINVAL;
	}
	snprintf(error, error_bytes, "cpu: no reactor runs on CPU %d", cpu);
	return -EINVAL;
}

static bool runs(const struct vhost_session *session, uint32_t index)
{
	return index < session->queue_count && session->queues[index].run != NULL;
}

static int find_queue(struct vhost_controller *controller, const struct vhost_move *move,
		      struct session_queue **out, char *error, size_t error_bytes)
{
	unsigned int count = 0;

	list_for_each (node, &controller->sessions) {
		struct vhost_session *session = list_entry(node, struct vhost_session, link);
		if ((move->session_id != 0 && session->id != move->session_id) ||
		    !runs(session, move->queue_index))
			continue;
		*out = &session->queues[move->queue_index];
		count++;
	}
	if (count == 1)
		return 0;
	if (count == 0)
		snprintf(error, error_bytes, "queue: no queue %u of %s is running",
			 move->queue_index, controller->name);
	else
		snprintf(error, error_bytes, "session: %u sessions run queue %u; name one", count,
			 move->queue_index);
	return count == 0 ? -ENOENT : -EINVAL;
}

int vhost_controller_move_queue(struct vhost_controller *controller, const struct vhost_move *move,
				char *error, size_t error_bytes)
{
	struct session_queue *queue = NULL;
	unsigned int reactor_index;
	int rc = find_reactor(controller, move->cpu, &reactor_index, error, error_bytes);

	if (rc == 0)
		rc = find_queue(controller, move, &queue, error, error_bytes);
	if (rc < 0)
		return rc;
	ensure(queue != NULL);
	bool pinned = queue->pinned;
	queue->pinned = move->pinned;
	rc = session_move_queue(queue, reactor_index, move->done, move->arg);
	if (rc < 0) {
		queue->pinned = pinned;
		snprintf(error, error_bytes, "queue: queue %u is %s", move->queue_index,
			 rc == -EBUSY ? "being moved" : "not running any more");
	}
	return rc;
}
