/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user controllers: a listening socket, a bdev behind it, and the sessions of the
 * front-ends that connect. Control thread only; the rings are served by the data reactors.
 */
#ifndef SLUICE_VHOST_VHOST_H
#define SLUICE_VHOST_VHOST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "reactor/reactor.h"

#define VHOST_NAME_MAX 64
#define VHOST_QUEUE_MAX 256u
#define VHOST_QUEUE_SIZE_MAX 1024

struct vhost_controller;

/* Once, before any controller: 0 or -errno. The set must outlive all of them. Takes over SIGBUS. */
int vhost_init(const struct reactor_set *reactors);
/* After the last controller is gone. */
void vhost_fini(void);

/* When drivers that sleep are called; vhost_call.h says how. */
enum vhost_coalescing_mode {
	VHOST_COALESCING_ADAPTIVE,
	VHOST_COALESCING_FIXED, /* by the two numbers */
	VHOST_COALESCING_NONE,
};
struct vhost_coalescing {
	enum vhost_coalescing_mode mode;
	uint32_t delay_base_us;
	uint32_t iops_threshold;
};
#define VHOST_DELAY_MAX_US 1000000u

struct vhost_blk_options {
	const char *name;        /* as bdev_name_valid() */
	const char *socket_path; /* absolute, or relative to the working directory */
	const char *bdev_name;
	const char *serial;                   /* at most 20 bytes; NULL: from the bdev's uuid */
	uint64_t cpu_mask[REACTOR_CPU_WORDS]; /* all zero: every reactor */
	struct vhost_coalescing coalescing;
	uint32_t queue_count; /* 1 to VHOST_QUEUE_MAX; 0: the default */
	bool read_only;
	bool packed_ring; /* offer VIRTIO_F_RING_PACKED */
	bool writeback;   /* initial write cache mode shown to the guest; default true */
};
/* Opens the bdev and the socket: 0; -EEXIST (name), -ENODEV (bdev), -EBUSY (bdev has another
 * writer), -EROFS, -EINVAL (no reactor in cpu_mask), -EADDRINUSE and others from the socket.
 * error receives a sentence that says what was wrong. */
int vhost_blk_create(const struct vhost_blk_options *options, struct vhost_controller **out,
		     char *error, size_t error_bytes);

/* Ends all sessions (waiting for their I/O), closes socket and bdev, frees, then calls done. */
void vhost_controller_delete(struct vhost_controller *controller, void (*done)(void *arg),
			     void *arg);

/* For the sessions there are and for those to come. */
void vhost_controller_set_coalescing(struct vhost_controller *controller,
				     const struct vhost_coalescing *coalescing);
const struct vhost_coalescing *
vhost_controller_coalescing(const struct vhost_controller *controller);

/* ---- placement ---------------------------------------------------------------------------- */

struct vhost_move {
	uint64_t session_id; /* 0: the only one that runs the queue */
	uint32_t queue_index;
	int cpu;     /* of the reactor to go to */
	bool pinned; /* the balancer leaves the queue there while its session lasts */
	/* 0; -ECANCELED: the queue was stopped, or its session ended, before it could move; or why
	 * it could not be served there, and then it stays where it was. */
	void (*done)(void *arg, int result);
	void *arg;
};
/* Moves a running queue to another reactor under I/O: 0, and done follows, maybe at once; -EINVAL
 * (no reactor there, or none that the controller may use), -ENOENT (no such queue runs), -EBUSY (it
 * is being moved). error receives a sentence. */
int vhost_controller_move_queue(struct vhost_controller *controller, const struct vhost_move *move,
				char *error, size_t error_bytes);
/* Changes the CPUs that may serve a controller; queues elsewhere move soon after. 0, or -EINVAL if
 * no reactor runs on any of them. All zero: every reactor. */
int vhost_controller_set_cpu_mask(struct vhost_controller *controller, const uint64_t *cpu_mask);
const uint64_t *vhost_controller_cpu_mask(const struct vhost_controller *controller);

/* The balancer moves queues off reactors that are hot to ones that are not. On by default. */
void vhost_set_rebalance(bool on);
bool vhost_rebalance(void);
/* Moves of queues so far: all, and those that the balancer made. */
struct vhost_move_counts {
	uint64_t total;
	uint64_t balanced;
};
void vhost_get_move_counts(struct vhost_move_counts *out);
/* Queues that came to a data reactor, or left it, by a move. */
void vhost_get_reactor_moves(unsigned int reactor_index, uint64_t *in, uint64_t *out);

struct vhost_controller *vhost_controller_find(const char *name);
/* In order of creation; NULL starts, NULL ends. */
struct vhost_controller *vhost_controller_next(const struct vhost_controller *controller);
const char *vhost_controller_name(const struct vhost_controller *controller);
/* True when the bdev of a controller was removed, or is about to be: it is no part of a
 * configuration then, which could not be carried out. */
bool vhost_controller_is_orphan(const struct vhost_controller *controller);
const char *vhost_controller_socket_path(const struct vhost_controller *controller);

/* What vhost_get_controllers shows of one controller, sessions included. New reference. */
json_t *vhost_controller_describe(const struct vhost_controller *controller);
/* The parameters of the RPC *method that makes it again. New reference. */
json_t *vhost_controller_config(const struct vhost_controller *controller, const char **method);

#endif
