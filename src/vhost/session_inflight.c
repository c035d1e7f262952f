/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inflight journals of a session's queues: in memory that the front-end keeps for us
 * (GET_INFLIGHT_FD, SET_INFLIGHT_FD), or private when it did not ask. Control thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/range.h"
#include "memory/sigbus.h"
#include "vhost/session.h"

/* GET_INFLIGHT_FD: makes the memory; zero-filled, it is a fresh journal of either format. */
int session_inflight_get(struct vhost_session *session, const char **why)
{
	const struct vhost_user_inflight *wanted = &session->message.payload.inflight;
	struct vhost_user_inflight *reply = &session->reply.payload.inflight;

	if (wanted->queue_count == 0 || wanted->queue_count > session->queue_count ||
	    wanted->queue_size == 0 || wanted->queue_size > VHOST_QUEUE_SIZE_MAX) {
		*why = "queue count or size is out of bounds";
		return -EINVAL;
	}
	/* Room for the larger format: which one it will be may not be negotiated yet. */
	uint64_t bytes = inflight_queue_bytes(wanted->queue_size, true) * wanted->queue_count;
	int fd = fd_memfd_create("sluice-inflight", bytes, 0);
	if (fd < 0) {
		*why = "no memory for the journal";
		return fd;
	}
	fd_close(&session->reply_fd);
	session->reply_fd = fd;
	*reply = (struct vhost_user_inflight){
		.mmap_size_bytes = bytes,
		.queue_count = wanted->queue_count,
		.queue_size = wanted->queue_size,
	};
	session->reply_bytes = sizeof(*reply);
	return 0;
}

static void unmap(struct session_inflight *inflight)
{
	if (inflight->map != NULL) {
		sigbus_guard_remove(inflight->map);
		munmap(inflight->map, inflight->map_bytes);
	}
	*inflight = (struct session_inflight){0};
}

void session_inflight_fini(struct vhost_session *session)
{
	unmap(&session->inflight);
	unmap(&session->inflight_next);
}

static int replace_inflight(struct vhost_session *session)
{
	unmap(&session->inflight);
	session->inflight = session->inflight_next;
	session->inflight_next = (struct session_inflight){0};
	/* The guard must point to where the flag is now. */
	sigbus_guard_remove(session->inflight.map);
	return sigbus_guard_add(session->inflight.map, session->inflight.map_bytes,
				&session->inflight.faulted);
}

static int map_inflight(struct vhost_session *session, int fd, const char **why)
{
	const struct vhost_user_inflight *given = &session->message.payload.inflight;
	struct session_inflight *next = &session->inflight_next;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (given->mmap_size_bytes == 0 ||
	    !range_within(given->mmap_offset, given->mmap_size_bytes, (uint64_t)st.st_size)) {
		*why = "size and offset do not fit the file";
		return -EINVAL;
	}
	uint64_t start = given->mmap_offset & ~4095ull;
	if ((given->mmap_offset - start) % INFLIGHT_ALIGNMENT_BYTES != 0) {
		*why = "the offset is misaligned";
		return -EINVAL;
	}
	size_t map_bytes = given->mmap_offset + given->mmap_size_bytes - start;
	void *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	if (map == MAP_FAILED)
		return -errno;
	*next = (struct session_inflight){
		.map = map,
		.map_bytes = map_bytes,
		.base = (uint8_t *)map + (given->mmap_offset - start),
		.size_bytes = given->mmap_size_bytes,
		.queue_count = given->queue_count,
		.queue_size = given->queue_size,
	};
	return sigbus_guard_add(map, map_bytes, &next->faulted);
}

int session_inflight_set(struct vhost_session *session, const char **why)
{
	const struct vhost_user_inflight *given = &session->message.payload.inflight;

	if (session->fd_count != 1) {
		*why = "one fd is needed";
		return -EINVAL;
	}
	if (given->queue_count == 0 || given->queue_count > session->queue_count ||
	    given->queue_size == 0 || given->queue_size > VHOST_QUEUE_SIZE_MAX) {
		*why = "queue count or size is out of bounds";
		return -EINVAL;
	}
	*why = "the journal cannot be mapped";
	int rc = map_inflight(session, session->fds[0], why);
	if (rc < 0)
		return rc;
	session_hold_all(session);
	session->then = replace_inflight;
	return 0;
}

int session_journal_get(struct session_queue *queue, bool packed, void **out, uint16_t *capacity)
{
	struct vhost_session *session = queue->session;
	const struct session_inflight *inflight = &session->inflight;
	uint32_t index = (uint32_t)(queue - session->queues);

	if (inflight->base != NULL) {
		/* Each format packs its queues by its own size. */
		uint64_t bytes = inflight_queue_bytes(inflight->queue_size, packed);
		if (index >= inflight->queue_count || queue->size > inflight->queue_size ||
		    !range_within(index * bytes, bytes, inflight->size_bytes))
			return -EINVAL;
		*out = inflight->base + index * bytes;
		*capacity = inflight->queue_size;
		return 0;
	}
	size_t bytes = inflight_queue_bytes(queue->size, packed);
	queue->private_journal = aligned_alloc(INFLIGHT_ALIGNMENT_BYTES, bytes);
	if (queue->private_journal == NULL)
		return -ENOMEM;
	memset(queue->private_journal, 0, bytes);
	*out = queue->private_journal;
	*capacity = (uint16_t)queue->size;
	return 0;
}

void session_journal_put(struct session_queue *queue)
{
	free(queue->private_journal);
	queue->private_journal = NULL;
}
