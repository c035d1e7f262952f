/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of a session's memory table. Regions that stay are not mapped again. Queues whose rings
 * stay where they are go over to the new table without a pause; the others are stopped for it.
 * The old table, and with it the mappings that nobody has any more, goes when no request in flight
 * was translated with it. Control thread.
 */
#include <errno.h>

#include "vhost/session.h"

/* All queues have gone over, or stand still. */
static int finish_memory(struct vhost_session *session)
{
	mem_table_destroy(session->memory);
	session->memory = session->memory_next;
	session->memory_next = NULL;
	return 0;
}

/* Brings in a table of the regions given, whose references it takes over. */
static int change_memory(struct vhost_session *session, struct mem_region **regions,
			 uint32_t region_count, const char **why)
{
	int rc = mem_table_create(regions, region_count, &session->memory_next);

	for (uint32_t i = 0; i < region_count; i++)
		mem_region_put(regions[i]);
	if (rc < 0) {
		*why = "regions overlap or are too many";
		return rc;
	}
	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		if (queue->run == NULL)
			continue;
		if (session_queue_same_place(queue, session->memory_next))
			session_queue_set_memory(queue, session->memory_next);
		else
			session_hold(queue);
	}
	session->then = finish_memory;
	return 0;
}

static struct mem_region_desc describe(const struct vhost_user_memory_region *region)
{
	return (struct mem_region_desc){
		.guest_addr = {region->guest_addr},
		.user_addr = region->user_addr,
		.size_bytes = region->size_bytes,
		.mmap_offset = region->mmap_offset,
	};
}

/* The region as it is mapped already, or mapped now. */
static int find_or_map(struct vhost_session *session, int fd,
		       const struct vhost_user_memory_region *wire, struct mem_region **out)
{
	struct mem_region_desc desc = describe(wire);

	for (uint32_t i = 0; i < session->memory->slot_count; i++) {
		struct mem_region *region = session->memory->slots[i].region;
		if (mem_region_matches(region, fd, &desc)) {
			*out = mem_region_get(region);
			return 0;
		}
	}
	return mem_region_map(fd, &desc, out);
}

int session_memory_set(struct vhost_session *session, const char **why)
{
	const struct vhost_user_memory *memory = &session->message.payload.memory;
	struct mem_region *regions[VHOST_USER_MEM_TABLE_REGIONS_MAX];
	uint32_t count = memory->region_count;

	if (count > VHOST_USER_MEM_TABLE_REGIONS_MAX || count != session->fd_count ||
	    session->message.header.size < 8 + count * sizeof(memory->regions[0])) {
		*why = "region count, fds and size do not agree";
		return -EINVAL;
	}
	for (uint32_t i = 0; i < count; i++) {
		int rc = find_or_map(session, session->fds[i], &memory->regions[i], &regions[i]);
		if (rc < 0) {
			*why = "a region cannot be mapped";
			while (i-- > 0)
				mem_region_put(regions[i]);
			return rc;
		}
	}
	return change_memory(session, regions, count, why);
}

/* References to all present regions but skip, into regions; their count. */
static uint32_t present_regions(const struct vhost_session *session, const struct mem_region *skip,
				struct mem_region **regions)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < session->memory->slot_count; i++) {
		struct mem_region *region = session->memory->slots[i].region;
		if (region != skip)
			regions[count++] = mem_region_get(region);
	}
	return count;
}

int session_memory_add(struct vhost_session *session, const char **why)
{
	struct mem_region_desc desc = describe(&session->message.payload.region.region);
	struct mem_region *regions[MEM_SLOTS_MAX + 1];
	struct mem_region *added;

	if (session->fd_count != 1) {
		*why = "one fd is needed";
		return -EINVAL;
	}
	if (session->memory->slot_count >= MEM_SLOTS_MAX) {
		*why = "no memory slot is left";
		return -ENOSPC;
	}
	int rc = mem_region_map(session->fds[0], &desc, &added);
	if (rc < 0) {
		*why = "the region cannot be mapped";
		return rc;
	}
	uint32_t count = present_regions(session, NULL, regions);
	regions[count++] = added;
	return change_memory(session, regions, count, why);
}

int session_memory_remove(struct vhost_session *session, const char **why)
{
	const struct vhost_user_memory_region *wire = &session->message.payload.region.region;
	struct mem_region *regions[MEM_SLOTS_MAX];

	for (uint32_t i = 0; i < session->memory->slot_count; i++) {
		struct mem_region *region = session->memory->slots[i].region;
		/* The specification names a region by these three. */
		if (region->desc.guest_addr.value != wire->guest_addr ||
		    region->desc.user_addr != wire->user_addr ||
		    region->desc.size_bytes != wire->size_bytes)
			continue;
		return change_memory(session, regions, present_regions(session, region, regions),
				     why);
	}
	*why = "no such region";
	return -ENOENT;
}
