/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-user controllers: their sockets and what they serve. Control thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "memory/sigbus.h"
#include "vhost/blk/blk_device.h"
#include "vhost/session.h"

/* The front-end's user may be another than ours, its group the same. */
#define SOCKET_MODE 0660
#define QUEUE_COUNT_DEFAULT VHOST_QUEUE_MAX

static const struct reactor_set *reactors;
static struct list controllers = {&controllers, &controllers};
static struct reactor_fd fault_watch = {.fd = -1};

const struct reactor_set *vhost_reactors(void)
{
	return reactors;
}

struct list *vhost_controllers(void)
{
	return &controllers;
}

/* ---- memory files that shrink ---------------------------------------------------------------- */

/* In the SIGBUS handler, on any thread: write(2) is async-signal-safe. */
static void notify_fault(void)
{
	fd_eventfd_signal(fault_watch.fd);
}

static void on_fault(struct reactor_fd *watch, uint32_t epoll_events)
{
	(void)watch;
	(void)epoll_events;
	list_for_each (node, &controllers) {
		struct vhost_controller *controller =
			list_entry(node, struct vhost_controller, link);
		list_for_each (session_node, &controller->sessions)
			session_check_faults(list_entry(session_node, struct vhost_session, link));
	}
}

int vhost_init(const struct reactor_set *set)
{
	reactors = set;
	int rc = fd_eventfd_create();
	if (rc < 0)
		return rc;
	fault_watch.fd = rc;
	fault_watch.fn = on_fault;
	rc = reactor_fd_add(set->control, &fault_watch, EPOLLIN | EPOLLET);
	return rc < 0 ? rc : sigbus_init(notify_fault);
}

void vhost_fini(void)
{
	ensure(list_empty(&controllers));
	balancer_fini();
	placement_reset();
	reactor_fd_remove(&fault_watch);
	fd_close(&fault_watch.fd);
	reactors = NULL;
}

/* ---- serving ------------------------------------------------------------------------------ */

int controller_begin_serving(struct vhost_controller *controller)
{
	if (controller->running_count == 0 && controller->open != NULL) {
		int rc = bdev_activate(controller->open);
		if (rc < 0)
			return rc;
	}
	controller->running_count++;
	return 0;
}

void controller_end_serving(struct vhost_controller *controller)
{
	ensure(controller->running_count > 0);
	/* A bdev that was removed has let go of its storage by itself. */
	if (--controller->running_count == 0 && controller->open != NULL)
		bdev_deactivate(controller->open);
}

/* ---- life --------------------------------------------------------------------------------- */

static void controller_free(struct vhost_controller *controller)
{
	list_remove(&controller->link);
	controller_bdev_close(controller);
	free(controller->channels);
	free(controller->socket_path);
	free(controller);
}

void controller_session_gone(struct vhost_controller *controller)
{
	void (*done)(void *) = controller->delete_done;
	void *arg = controller->delete_arg;

	controller->session_count--;
	if (done == NULL || controller->session_count > 0)
		return;
	controller_free(controller);
	done(arg);
}

static void on_connect(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct vhost_controller *controller =
		container_of(watch, struct vhost_controller, listener);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int rc = 0;

	(void)epoll_events;
	if (fd < 0)
		return;
	if (controller->session_count >= VHOST_SESSIONS_MAX)
		rc = -EMFILE;
	if (rc == 0)
		rc = session_create(controller, fd);
	if (rc < 0) {
		log_limited(&controller->log_limit, LOG_LEVEL_WARN,
			    "%s: a connection was refused: %s", controller->name, strerror(-rc));
		fd_close(&fd);
		return;
	}
	controller->session_count++;
	controller->connect_count++;
}

/* A serial that stays with the disk: the start of the bdev's uuid, without dashes. */
static void serial_from_uuid(char *serial, const uuid_t uuid)
{
	for (int i = 0; i < 10; i++)
		snprintf(serial + i * 2, 3, "%02x", uuid[i]);
}

static int listen_socket(struct vhost_controller *controller, char *error, size_t error_bytes)
{
	int rc = fd_unix_listen(controller->socket_path, SOCKET_MODE);

	if (rc >= 0) {
		controller->listener.fd = rc;
		controller->listener.fn = on_connect;
		rc = reactor_fd_add(reactors->control, &controller->listener, EPOLLIN);
	}
	if (rc == -EADDRINUSE)
		snprintf(error, error_bytes, "another process listens on socket %s",
			 controller->socket_path);
	else if (rc == -EEXIST)
		snprintf(error, error_bytes, "%s exists and is no socket", controller->socket_path);
	else if (rc < 0)
		snprintf(error, error_bytes, "cannot listen on %s: %s", controller->socket_path,
			 strerror(-rc));
	return rc;
}

static int check_options(const struct vhost_blk_options *options, char *error, size_t error_bytes)
{
	if (!bdev_name_valid(options->name)) {
		snprintf(error, error_bytes, "\"%s\" is not a valid name", options->name);
		return -EINVAL;
	}
	if (vhost_controller_find(options->name) != NULL) {
		snprintf(error, error_bytes, "controller \"%s\" exists", options->name);
		return -EEXIST;
	}
	if (options->queue_count > VHOST_QUEUE_MAX) {
		snprintf(error, error_bytes, "%u queues are more than %u", options->queue_count,
			 VHOST_QUEUE_MAX);
		return -EINVAL;
	}
	if (options->serial != NULL && strlen(options->serial) > 20) {
		snprintf(error, error_bytes, "a serial has at most 20 bytes");
		return -EINVAL;
	}
	return 0;
}

static struct vhost_controller *controller_alloc(const struct vhost_blk_options *options)
{
	struct vhost_controller *controller = calloc(1, sizeof(*controller));

	if (controller == NULL)
		return NULL;
	list_init(&controller->link);
	list_init(&controller->sessions);
	controller->listener.fd = -1;
	controller->device = &blk_device_ops;
	controller->queue_count =
		options->queue_count > 0 ? options->queue_count : QUEUE_COUNT_DEFAULT;
	controller->read_only = options->read_only;
	controller->packed_ring = options->packed_ring;
	controller->writeback = options->writeback;
	controller->coalescing = options->coalescing;
	memcpy(controller->cpu_mask, options->cpu_mask, sizeof(controller->cpu_mask));
	snprintf(controller->name, sizeof(controller->name), "%s", options->name);
	controller->channels = calloc(reactors->data_count, sizeof(*controller->channels));
	controller->socket_path = strdup(options->socket_path);
	if (controller->channels == NULL || controller->socket_path == NULL) {
		controller_free(controller);
		return NULL;
	}
	return controller;
}

int vhost_blk_create(const struct vhost_blk_options *options, struct vhost_controller **out,
		     char *error, size_t error_bytes)
{
	int rc = check_options(options, error, error_bytes);
	if (rc < 0)
		return rc;
	struct vhost_controller *controller = controller_alloc(options);
	if (controller == NULL) {
		snprintf(error, error_bytes, "out of memory");
		return -ENOMEM;
	}
	if (!placement_possible(controller->cpu_mask)) {
		snprintf(error, error_bytes, "no reactor runs on a CPU of the mask");
		rc = -EINVAL;
	}
	if (rc == 0)
		rc = controller_bdev_open(controller, options, error, error_bytes);
	if (rc == 0)
		rc = listen_socket(controller, error, error_bytes);
	if (rc < 0) {
		fd_close(&controller->listener.fd);
		controller_free(controller);
		return rc;
	}
	controller->serial_given = options->serial != NULL;
	if (options->serial != NULL)
		snprintf(controller->serial, sizeof(controller->serial), "%s", options->serial);
	else
		serial_from_uuid(controller->serial, controller->open->bdev->uuid);
	list_add_tail(&controllers, &controller->link);
	*out = controller;
	return 0;
}

void vhost_controller_set_coalescing(struct vhost_controller *controller,
				     const struct vhost_coalescing *coalescing)
{
	controller->coalescing = *coalescing;
	list_for_each (node, &controller->sessions) {
		struct vhost_session *session = list_entry(node, struct vhost_session, link);
		for (uint32_t i = 0; i < session->queue_count; i++) {
			if (session->queues[i].run != NULL)
				vhost_queue_set_coalescing(session->queues[i].run, coalescing);
		}
	}
}

const struct vhost_coalescing *
vhost_controller_coalescing(const struct vhost_controller *controller)
{
	return &controller->coalescing;
}

void vhost_controller_delete(struct vhost_controller *controller, void (*done)(void *arg),
			     void *arg)
{
	ensure(controller->delete_done == NULL);
	reactor_fd_remove(&controller->listener);
	fd_close(&controller->listener.fd);
	unlink(controller->socket_path);
	if (controller->session_count == 0) {
		controller_free(controller);
		done(arg);
		return;
	}
	controller->delete_done = done;
	controller->delete_arg = arg;
	list_for_each (node, &controller->sessions)
		session_close(list_entry(node, struct vhost_session, link),
			      "its controller was deleted");
}

/* One that is being deleted has no name any more. */
struct vhost_controller *vhost_controller_find(const char *name)
{
	list_for_each (node, &controllers) {
		struct vhost_controller *controller =
			list_entry(node, struct vhost_controller, link);
		if (controller->delete_done == NULL && strcmp(controller->name, name) == 0)
			return controller;
	}
	return NULL;
}

struct vhost_controller *vhost_controller_next(const struct vhost_controller *controller)
{
	const struct list *node = controller != NULL ? controller->link.next : controllers.next;

	for (; node != &controllers; node = node->next) {
		struct vhost_controller *next = list_entry(node, struct vhost_controller, link);
		if (next->delete_done == NULL)
			return next;
	}
	return NULL;
}

const char *vhost_controller_name(const struct vhost_controller *controller)
{
	return controller->name;
}

const char *vhost_controller_socket_path(const struct vhost_controller *controller)
{
	return controller->socket_path;
}
