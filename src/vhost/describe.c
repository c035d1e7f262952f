/* SPDX-License-Identifier: Apache-2.0 */
/* Controllers and sessions as JSON: what vhost_get_controllers shows, and the configuration that
 * makes them again. Control thread. */
#include <stdio.h>

#include "vhost/session.h"

static void format_mask(const uint64_t *mask, char *out, size_t out_bytes)
{
	int word = REACTOR_CPU_WORDS - 1;
	int n;

	while (word > 0 && mask[word] == 0)
		word--;
	n = snprintf(out, out_bytes, "0x%lx", mask[word]);
	while (--word >= 0)
		n += snprintf(out + n, out_bytes - (size_t)n, "%016lx", mask[word]);
}

static bool mask_given(const struct vhost_controller *controller)
{
	for (unsigned int i = 0; i < REACTOR_CPU_WORDS; i++) {
		if (controller->cpu_mask[i] != 0)
			return true;
	}
	return false;
}

/* The CPUs that may serve a controller: its mask, or those of all reactors. */
static void format_cpumask(const struct vhost_controller *controller, char *out, size_t out_bytes)
{
	uint64_t all[REACTOR_CPU_WORDS] = {0};
	const struct reactor_set *set = vhost_reactors();

	for (unsigned int i = 0; i < set->data_count; i++) {
		int cpu = reactor_cpu(set->data[i]);
		if (cpu >= 0 && cpu < REACTOR_CPU_MAX)
			all[cpu / 64] |= 1ull << (cpu % 64);
	}
	format_mask(mask_given(controller) ? controller->cpu_mask : all, out, out_bytes);
}

static json_t *describe_queue(const struct session_queue *queue)
{
	const struct vhost_queue *run = queue->run;
	const struct vhost_queue_stats *stats = &run->stats;

	return json_pack("{s:i, s:i, s:s, s:i, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "index",
			 (int)run->index, "size", (int)queue->size, "reactor",
			 reactor_name(run->reactor), "cpu", reactor_cpu(run->reactor), "pinned",
			 queue->pinned, "moves", (json_int_t)queue->move_count, "requests",
			 (json_int_t)load_relaxed(&stats->request_count), "batches",
			 (json_int_t)load_relaxed(&stats->batch_count), "kicks",
			 (json_int_t)load_relaxed(&stats->kick_count), "calls",
			 (json_int_t)load_relaxed(&stats->call_count), "calls_suppressed",
			 (json_int_t)load_relaxed(&stats->call_suppressed_count), "calls_coalesced",
			 (json_int_t)load_relaxed(&stats->call_coalesced_count));
}

static json_t *describe_session(const struct vhost_session *session)
{
	json_t *queues = json_array();
	uint64_t memory_bytes = 0;
	char name[96];
	char features[24];

	for (uint32_t i = 0; i < session->queue_count; i++) {
		if (session->queues[i].run != NULL)
			json_array_append_new(queues, describe_queue(&session->queues[i]));
	}
	for (uint32_t i = 0; i < session->memory->slot_count; i++)
		memory_bytes += session->memory->slots[i].size_bytes;
	snprintf(name, sizeof(name), "%s-%lu", session->controller->name, session->id);
	snprintf(features, sizeof(features), "0x%lx", session->features);
	return json_pack("{s:I, s:s, s:b, s:i, s:s, s:i, s:I, s:o}", "id", (json_int_t)session->id,
			 "name", name, "started", json_array_size(queues) > 0, "max_queues",
			 (int)session->queue_count, "features", features, "memory_regions",
			 (int)session->memory->slot_count, "memory_bytes", (json_int_t)memory_bytes,
			 "queues", queues);
}

static const char *const coalescing_modes[] = {
	[VHOST_COALESCING_ADAPTIVE] = "adaptive",
	[VHOST_COALESCING_FIXED] = "fixed",
	[VHOST_COALESCING_NONE] = "none",
};

json_t *vhost_controller_describe(const struct vhost_controller *controller)
{
	char cpumask[REACTOR_CPU_WORDS * 16 + 3];
	json_t *sessions = json_array();

	list_for_each (node, &controller->sessions)
		json_array_append_new(
			sessions, describe_session(list_entry(node, struct vhost_session, link)));
	format_cpumask(controller, cpumask, sizeof(cpumask));
	return json_pack(
		"{s:s, s:s, s:s, s:i, s:i, s:s, s:i, s:I, s:o, s:{s:{s:b, s:s?, s:s, s:s, s:b}}}",
		"ctrlr", controller->name, "cpumask", cpumask, "coalescing",
		coalescing_modes[controller->coalescing.mode], "delay_base_us",
		(int)controller->coalescing.delay_base_us, "iops_threshold",
		(int)controller->coalescing.iops_threshold, "socket", controller->socket_path,
		"num_queues", (int)controller->queue_count, "connections",
		(json_int_t)controller->connect_count, "sessions", sessions, "backend_specific",
		"block", "readonly", controller->read_only, "bdev",
		controller->open != NULL ? controller->open->bdev->name : NULL, "transport",
		controller->device->transport, "serial", controller->serial, "writeback",
		controller->writeback);
}

json_t *vhost_controller_config(const struct vhost_controller *controller, const char **method)
{
	char cpumask[REACTOR_CPU_WORDS * 16 + 3];
	json_t *params =
		json_pack("{s:s, s:s, s:b, s:b, s:b, s:i}", "ctrlr", controller->name, "dev_name",
			  controller_bdev(controller)->name, "readonly", controller->read_only,
			  "packed_ring", controller->packed_ring, "writeback",
			  controller->writeback, "num_queues", (int)controller->queue_count);

	*method = "vhost_create_blk_controller";
	if (mask_given(controller)) {
		format_mask(controller->cpu_mask, cpumask, sizeof(cpumask));
		json_object_set_new(params, "cpumask", json_string(cpumask));
	}
	if (controller->coalescing.mode != VHOST_COALESCING_ADAPTIVE) {
		json_object_set_new(params, "adaptive_coalescing", json_false());
		json_object_set_new(params, "delay_base_us",
				    json_integer(controller->coalescing.delay_base_us));
		json_object_set_new(params, "iops_threshold",
				    json_integer(controller->coalescing.iops_threshold));
	}
	if (controller->serial_given)
		json_object_set_new(params, "serial", json_string(controller->serial));
	return params;
}
