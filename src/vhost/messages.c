/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of vhost-user messages and their handlers (vhost-user.rst, "Front-end message types").
 * A handler checks, notes what is wanted, and fills a reply; running queues are dealt with by
 * session_settle() and session->then. Control thread.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vhost/session.h"

#define BIT(n) (1ull << (n))

/* clang-format off */
#define PROTOCOL_FEATURES                                                                          \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |                    \
	 BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |           \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |          \
	 BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |     \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | BIT(VHOST_USER_PROTOCOL_F_STATUS) |      \
	 BIT(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT))
/* clang-format on */

static int reply_u64(struct vhost_session *session, uint64_t value)
{
	session->reply.payload.u64 = value;
	session->reply_bytes = sizeof(session->reply.payload.u64);
	return 0;
}

/* The queue that a message names, or NULL. */
static struct session_queue *find_queue(struct vhost_session *session, uint32_t index,
					const char **why)
{
	if (index < session->queue_count)
		return &session->queues[index];
	*why = "no such queue";
	return NULL;
}

/* Takes the only fd of the message over; -1 if it has none. */
static int take_fd(struct vhost_session *session)
{
	int fd = session->fd_count > 0 ? session->fds[0] : -1;

	if (fd >= 0)
		session->fds[0] = -1;
	return fd;
}

/* ---- features ---------------------------------------------------------------------------- */

static int get_features(struct vhost_session *session, const char **why)
{
	(void)why;
	return reply_u64(session, session->controller->device->features(session->controller));
}

static int set_features(struct vhost_session *session, const char **why)
{
	uint64_t wanted = session->message.payload.u64;

	if (wanted & ~session->controller->device->features(session->controller)) {
		*why = "a feature that was not offered";
		return -EINVAL;
	}
	uint64_t changed = wanted ^ session->features;
	session->features = wanted;
	/* Logging goes on and off under way; anything else begins anew. */
	if (changed & ~BIT(VHOST_F_LOG_ALL))
		session_hold_all(session);
	else if (changed != 0)
		session_log_update(session);
	return 0;
}

static int get_protocol_features(struct vhost_session *session, const char **why)
{
	(void)why;
	return reply_u64(session, PROTOCOL_FEATURES);
}

static int set_protocol_features(struct vhost_session *session, const char **why)
{
	uint64_t wanted = session->message.payload.u64;

	if (wanted & ~PROTOCOL_FEATURES) {
		*why = "a protocol feature that was not offered";
		return -EINVAL;
	}
	session->protocol_features = wanted;
	return 0;
}

static int get_queue_num(struct vhost_session *session, const char **why)
{
	(void)why;
	return reply_u64(session, session->queue_count);
}

static int set_owner(struct vhost_session *session, const char **why)
{
	(void)session;
	(void)why;
	return 0;
}

/* ---- reset and status -------------------------------------------------------------------- */

static int disable_queues(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++)
		session->queues[i].enabled = false;
	return 0;
}

/* Stops every ring; what was told about them is forgotten, memory and features stay. */
static int forget_queues(struct vhost_session *session)
{
	for (uint32_t i = 0; i < session->queue_count; i++) {
		struct session_queue *queue = &session->queues[i];
		queue->base = 0;
		queue->addr_set = false;
		queue->kick_set = false;
		queue->size = 0;
		fd_close(&queue->kick_fd);
		fd_close(&queue->call_fd);
		fd_close(&queue->err_fd);
	}
	return disable_queues(session);
}

static int reset_device(struct vhost_session *session, const char **why)
{
	(void)why;
	session->status = 0;
	session_hold_all(session);
	session->then = forget_queues;
	return 0;
}

static int reset_owner(struct vhost_session *session, const char **why)
{
	(void)why;
	session_hold_all(session);
	session->then = disable_queues;
	return 0;
}

static int get_status(struct vhost_session *session, const char **why)
{
	(void)why;
	return reply_u64(session, session->status);
}

static int set_status(struct vhost_session *session, const char **why)
{
	uint64_t status = session->message.payload.u64;

	if (status > UINT8_MAX) {
		*why = "status does not fit a byte";
		return -EINVAL;
	}
	session->status = status;
	/* Zero is the driver's reset: rings stop until they are enabled again. */
	if (status == 0) {
		session_hold_all(session);
		session->then = disable_queues;
	}
	return 0;
}

/* ---- memory ------------------------------------------------------------------------------ */

static int get_max_mem_slots(struct vhost_session *session, const char **why)
{
	(void)why;
	return reply_u64(session, MEM_SLOTS_MAX);
}

static bool is_packed(const struct vhost_session *session)
{
	return session->features & BIT(VIRTIO_F_RING_PACKED);
}

/* ---- rings ------------------------------------------------------------------------------- */

static int set_vring_num(struct vhost_session *session, const char **why)
{
	const struct vhost_user_vring_state *state = &session->message.payload.state;
	struct session_queue *queue = find_queue(session, state->index, why);

	if (queue == NULL)
		return -EINVAL;
	if (state->num == 0 || state->num > VHOST_QUEUE_SIZE_MAX ||
	    (!is_packed(session) && (state->num & (state->num - 1)) != 0)) {
		*why = "queue size is not a power of two up to 1024";
		return -EINVAL;
	}
	if (queue->run != NULL && state->num != queue->size) {
		*why = "the ring is running";
		return -EBUSY;
	}
	queue->size = state->num;
	return 0;
}

static int set_vring_base(struct vhost_session *session, const char **why)
{
	const struct vhost_user_vring_state *state = &session->message.payload.state;
	struct session_queue *queue = find_queue(session, state->index, why);

	if (queue == NULL)
		return -EINVAL;
	if (!is_packed(session) && state->num > UINT16_MAX) {
		*why = "base does not fit a ring index";
		return -EINVAL;
	}
	if (queue->run != NULL) {
		*why = "the ring is running";
		return -EBUSY;
	}
	queue->base = state->num;
	return 0;
}

static int reply_vring_base(struct vhost_session *session)
{
	struct session_queue *queue = &session->queues[session->argument];

	/* Stopped until the front-end kicks it off again with a new fd. */
	queue->kick_set = false;
	fd_close(&queue->kick_fd);
	fd_close(&queue->call_fd);
	session->reply.payload.state.index = session->argument;
	session->reply.payload.state.num = queue->base;
	session->reply_bytes = sizeof(session->reply.payload.state);
	return 0;
}

static int get_vring_base(struct vhost_session *session, const char **why)
{
	uint32_t index = session->message.payload.state.index;
	struct session_queue *queue = find_queue(session, index, why);

	if (queue == NULL)
		return -EINVAL;
	session_hold(queue);
	session->argument = index;
	session->then = reply_vring_base;
	return 0;
}

static int set_vring_addr(struct vhost_session *session, const char **why)
{
	const struct vhost_user_vring_addr *addr = &session->message.payload.addr;
	struct session_queue *queue = find_queue(session, addr->index, why);

	if (queue == NULL)
		return -EINVAL;
	/* Whether writes to the used ring are logged follows VHOST_F_LOG_ALL: a front-end
	 * sets the flag here together with it. */
	if (addr->flags & ~(1u << VHOST_VRING_F_LOG)) {
		*why = "unknown flags";
		return -EINVAL;
	}
	if (queue->run != NULL &&
	    (queue->desc_user != addr->descriptor || queue->avail_user != addr->available ||
	     queue->used_user != addr->used))
		session_hold(queue);
	queue->desc_user = addr->descriptor;
	queue->avail_user = addr->available;
	queue->used_user = addr->used;
	queue->addr_set = true;
	return 0;
}

static int set_vring_enable(struct vhost_session *session, const char **why)
{
	const struct vhost_user_vring_state *state = &session->message.payload.state;
	struct session_queue *queue = find_queue(session, state->index, why);

	if (queue == NULL)
		return -EINVAL;
	if (state->num > 1) {
		*why = "neither 0 nor 1";
		return -EINVAL;
	}
	queue->enabled = state->num == 1;
	return 0;
}

/* The queue and fd of SET_VRING_KICK, _CALL and _ERR: the payload is the index and a bit
 * that says that there is no fd. *fd is -1 then. */
static int take_vring_fd(struct vhost_session *session, struct session_queue **queue, int *fd,
			 const char **why)
{
	uint64_t value = session->message.payload.u64;
	bool none = value & VHOST_USER_VRING_NOFD_MASK;

	if (value & ~(uint64_t)(VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NOFD_MASK)) {
		*why = "reserved bits are set";
		return -EINVAL;
	}
	*queue = find_queue(session, value & VHOST_USER_VRING_INDEX_MASK, why);
	if (*queue == NULL)
		return -EINVAL;
	if (session->fd_count != (none ? 0 : 1)) {
		*why = none ? "an fd where none was announced" : "one fd is needed";
		return -EINVAL;
	}
	/* Nothing else: a socket could be one end of our own connection, and any other
	 * kind of file could block or fail where an eventfd does not. */
	if (!none &&
	    (!fd_is_eventfd(session->fds[0]) || fd_set_nonblocking(session->fds[0], true) < 0)) {
		*why = "the fd is no eventfd";
		return -EINVAL;
	}
	*fd = take_fd(session);
	return 0;
}

static int replace_kick(struct vhost_session *session)
{
	struct session_queue *queue = &session->queues[session->argument];

	fd_close(&queue->kick_fd);
	queue->kick_fd = take_fd(session);
	queue->kick_set = true;
	return 0;
}

/* A running queue is stopped before an fd that it uses is replaced. */
static int replace_stopped(struct vhost_session *session, int (*replace)(struct vhost_session *),
			   const char **why)
{
	struct session_queue *queue;
	int fd;

	int rc = take_vring_fd(session, &queue, &fd, why);
	if (rc < 0)
		return rc;
	session_hold(queue);
	session->argument = (uint32_t)(queue - session->queues);
	if (session->fd_count > 0)
		session->fds[0] = fd;
	session->then = replace;
	return 0;
}

static int set_vring_kick(struct vhost_session *session, const char **why)
{
	return replace_stopped(session, replace_kick, why);
}

static int set_vring_call(struct vhost_session *session, const char **why)
{
	struct session_queue *queue;
	int fd;

	int rc = take_vring_fd(session, &queue, &fd, why);
	if (rc < 0)
		return rc;
	session_queue_set_call(queue, fd);
	return 0;
}

static int replace_err(struct vhost_session *session)
{
	struct session_queue *queue = &session->queues[session->argument];

	fd_close(&queue->err_fd);
	queue->err_fd = take_fd(session);
	return 0;
}

static int set_vring_err(struct vhost_session *session, const char **why)
{
	return replace_stopped(session, replace_err, why);
}

/* ---- configuration space ------------------------------------------------------------------ */

static bool config_in_bounds(const struct vhost_session *session, const char **why)
{
	const struct vhost_user_config *config = &session->message.payload.config;

	/* Every term is at most 2^32: no sum wraps in 64 bits. */
	if ((uint64_t)config->offset + config->size_bytes <= VHOST_USER_CONFIG_MAX_BYTES &&
	    (uint64_t)VHOST_USER_CONFIG_HEADER_BYTES + config->size_bytes <=
		    session->message.header.size)
		return true;
	*why = "offset or size is out of bounds";
	return false;
}

static int get_config(struct vhost_session *session, const char **why)
{
	const struct vhost_controller *controller = session->controller;
	const struct vhost_user_config *wanted = &session->message.payload.config;
	struct vhost_user_config *reply = &session->reply.payload.config;
	uint8_t config[VHOST_USER_CONFIG_MAX_BYTES];

	if (!config_in_bounds(session, why))
		return -EINVAL;
	controller->device->config_get(controller, config, sizeof(config));
	reply->offset = wanted->offset;
	reply->size_bytes = wanted->size_bytes;
	reply->flags = wanted->flags;
	memcpy(reply->region, config + wanted->offset, wanted->size_bytes);
	session->reply_bytes = VHOST_USER_CONFIG_HEADER_BYTES + wanted->size_bytes;
	return 0;
}

static int set_config(struct vhost_session *session, const char **why)
{
	const struct vhost_user_config *config = &session->message.payload.config;

	if (!config_in_bounds(session, why))
		return -EINVAL;
	*why = "a field that the driver may not write";
	return session->controller->device->config_set(session, config->offset, config->region,
						       config->size_bytes);
}

static int set_backend_req_fd(struct vhost_session *session, const char **why)
{
	if (session->fd_count != 1) {
		*why = "one fd is needed";
		return -EINVAL;
	}
	if (!fd_is_socketpair_end(session->fds[0])) {
		*why = "the fd is no end of a socket pair";
		return -EINVAL;
	}
	*why = "the fd cannot be watched";
	return session_backend_open(session, take_fd(session));
}

/* ---- the table --------------------------------------------------------------------------- */

struct message {
	const char *name;
	int (*handle)(struct vhost_session *session, const char **why);
	uint32_t min_bytes; /* of payload */
	uint32_t max_bytes;
	uint32_t fd_max;
	bool has_reply;
};

#define U64 sizeof(uint64_t), sizeof(uint64_t)
#define STATE sizeof(struct vhost_user_vring_state), sizeof(struct vhost_user_vring_state)
#define ADDR sizeof(struct vhost_user_vring_addr), sizeof(struct vhost_user_vring_addr)
#define REGION sizeof(struct vhost_user_single_region), sizeof(struct vhost_user_single_region)
#define LOG sizeof(struct vhost_user_log), sizeof(struct vhost_user_log)
#define MEMORY 8, sizeof(struct vhost_user_memory)
#define CONFIG VHOST_USER_CONFIG_HEADER_BYTES, sizeof(struct vhost_user_config)
#define INFLIGHT sizeof(struct vhost_user_inflight), sizeof(struct vhost_user_inflight)
/* Requests without a payload that some front-ends send with eight bytes of nothing. */
#define NONE_OR_U64 0, sizeof(uint64_t)

/* clang-format off */
static const struct message messages[VHOST_USER_REQUEST_MAX] = {
	[VHOST_USER_GET_FEATURES] = { "GET_FEATURES", get_features, NONE_OR_U64, 0, true },
	[VHOST_USER_SET_FEATURES] = { "SET_FEATURES", set_features, U64, 0, false },
	[VHOST_USER_SET_OWNER] = { "SET_OWNER", set_owner, NONE_OR_U64, 0, false },
	[VHOST_USER_RESET_OWNER] = { "RESET_OWNER", reset_owner, NONE_OR_U64, 0, false },
	[VHOST_USER_SET_MEM_TABLE] = { "SET_MEM_TABLE", session_memory_set, MEMORY, VHOST_USER_MEM_TABLE_REGIONS_MAX, false },
	[VHOST_USER_SET_LOG_BASE] = { "SET_LOG_BASE", session_log_set_base, LOG, 1, true },
	[VHOST_USER_SET_LOG_FD] = { "SET_LOG_FD", session_log_set_fd, NONE_OR_U64, 1, false },
	[VHOST_USER_SET_VRING_NUM] = { "SET_VRING_NUM", set_vring_num, STATE, 0, false },
	[VHOST_USER_SET_VRING_ADDR] = { "SET_VRING_ADDR", set_vring_addr, ADDR, 0, false },
	[VHOST_USER_SET_VRING_BASE] = { "SET_VRING_BASE", set_vring_base, STATE, 0, false },
	[VHOST_USER_GET_VRING_BASE] = { "GET_VRING_BASE", get_vring_base, STATE, 0, true },
	[VHOST_USER_SET_VRING_KICK] = { "SET_VRING_KICK", set_vring_kick, U64, 1, false },
	[VHOST_USER_SET_VRING_CALL] = { "SET_VRING_CALL", set_vring_call, U64, 1, false },
	[VHOST_USER_SET_VRING_ERR] = { "SET_VRING_ERR", set_vring_err, U64, 1, false },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", get_protocol_features, NONE_OR_U64, 0, true },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", set_protocol_features, U64, 0, false },
	[VHOST_USER_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", get_queue_num, NONE_OR_U64, 0, true },
	[VHOST_USER_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", set_vring_enable, STATE, 0, false },
	[VHOST_USER_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", set_backend_req_fd, NONE_OR_U64, 1, false },
	[VHOST_USER_GET_CONFIG] = { "GET_CONFIG", get_config, CONFIG, 0, true },
	[VHOST_USER_SET_CONFIG] = { "SET_CONFIG", set_config, CONFIG, 0, false },
	[VHOST_USER_GET_INFLIGHT_FD] = { "GET_INFLIGHT_FD", session_inflight_get, INFLIGHT, 0, true },
	[VHOST_USER_SET_INFLIGHT_FD] = { "SET_INFLIGHT_FD", session_inflight_set, INFLIGHT, 1, false },
	[VHOST_USER_RESET_DEVICE] = { "RESET_DEVICE", reset_device, NONE_OR_U64, 0, false },
	[VHOST_USER_GET_MAX_MEM_SLOTS] = { "GET_MAX_MEM_SLOTS", get_max_mem_slots, NONE_OR_U64, 0, true },
	[VHOST_USER_ADD_MEM_REG] = { "ADD_MEM_REG", session_memory_add, REGION, 1, false },
	[VHOST_USER_REM_MEM_REG] = { "REM_MEM_REG", session_memory_remove, REGION, 1, false },
	[VHOST_USER_SET_STATUS] = { "SET_STATUS", set_status, U64, 0, false },
	[VHOST_USER_GET_STATUS] = { "GET_STATUS", get_status, NONE_OR_U64, 0, true },
};
/* clang-format on */

static const struct message *find_message(uint32_t request)
{
	if (request >= VHOST_USER_REQUEST_MAX || messages[request].handle == NULL)
		return NULL;
	return &messages[request];
}

const char *message_name(uint32_t request)
{
	const struct message *message = find_message(request);

	return message != NULL ? message->name : "unknown request";
}

bool message_has_reply(uint32_t request)
{
	const struct message *message = find_message(request);

	return message != NULL && message->has_reply;
}

int message_payload_bounds(uint32_t request, uint32_t *min_bytes, uint32_t *max_bytes)
{
	const struct message *message = find_message(request);

	if (message == NULL)
		return -EPROTO;
	*min_bytes = message->min_bytes;
	*max_bytes = message->max_bytes;
	return 0;
}

/* True for a front-end's end of a connection to one of our own sockets. A session that
 * held it would never end: nothing but that end's closing tells that the front-end has
 * left. */
static bool leads_to_us(int fd)
{
	struct sockaddr_un peer = {0};
	socklen_t peer_bytes = sizeof(peer) - 1;
	const struct vhost_controller *controller = NULL;

	if (getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) < 0 ||
	    peer.sun_family != AF_UNIX || peer.sun_path[0] == '\0')
		return false;
	while ((controller = vhost_controller_next(controller)) != NULL) {
		if (strcmp(peer.sun_path, controller->socket_path) == 0)
			return true;
	}
	return false;
}

int message_handle(struct vhost_session *session, const char **why)
{
	const struct message *message = find_message(session->message.header.request);

	if (session->fd_count > message->fd_max) {
		*why = "more fds than it may carry";
		return -EINVAL;
	}
	for (size_t i = 0; i < session->fd_count; i++) {
		if (leads_to_us(session->fds[i])) {
			*why = "an fd that is a connection to ourselves";
			return -EINVAL;
		}
	}
	return message->handle(session, why);
}
