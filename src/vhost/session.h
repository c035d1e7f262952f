/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the vhost-user server: controllers, sessions and their queues as the control
 * thread sees them. Control thread only; what runs on reactors is vhost_queue.h.
 *
 * A session handles one message at a time. A message that concerns running queues sends them
 * operations, waits for all to be done, and only then is answered and the next one read:
 *
 *   read -> handle (notes what is wanted) -> settle (stop and start queues accordingly)
 *        -> then (what had to wait for stopped queues) -> settle -> reply -> read
 *
 * A move of queues to other reactors takes the place of a message: hold -> settle -> settle.
 */
#ifndef SLUICE_VHOST_SESSION_H
#define SLUICE_VHOST_SESSION_H

#include "base/fd.h"
#include "base/log.h"
#include "memory/dirty_log.h"
#include "memory/guest_memory.h"
#include "vhost/vhost.h"
#include "vhost/vhost_queue.h"
#include "vhost/vhost_user_wire.h"

#define VHOST_SESSIONS_MAX 16 /* front-ends at once on one controller */

struct vhost_session;

/* What a kind of device brings along. */
struct vhost_device_ops {
	const char *transport; /* "vhost_user_blk" */
	/* Feature bits on offer, and configuration space: bytes beyond its end are zero. */
	uint64_t (*features)(const struct vhost_controller *controller);
	void (*config_get)(const struct vhost_controller *controller, uint8_t *config,
			   uint32_t config_bytes);
	/* Writes of the driver: 0, or -EINVAL for a field that it may not write. */
	int (*config_set)(struct vhost_session *session, uint32_t offset, const uint8_t *data,
			  uint32_t data_bytes);
	/* Memory for a running queue, with nothing but the device's part filled. */
	int (*queue_create)(struct vhost_session *session, uint16_t size,
			    struct vhost_channel *channel, struct vhost_queue **out);
	void (*queue_destroy)(struct vhost_queue *queue);
};

struct vhost_controller {
	struct list link;
	char name[VHOST_NAME_MAX];
	char *socket_path;
	char serial[21];
	const struct vhost_device_ops *device;
	struct bdev_open *open; /* NULL: the bdev was removed */
	struct bdev *ghost;     /* stands for it then: its name and limits, and no blocks */
	uint64_t cpu_mask[REACTOR_CPU_WORDS];
	struct vhost_coalescing coalescing;
	struct vhost_channel *channels; /* one a data reactor */
	uint32_t queue_count;
	uint32_t running_count; /* queues that run, or are about to */
	bool read_only;
	bool packed_ring;
	bool writeback; /* the cache mode that the configuration space shows */
	bool serial_given;
	struct reactor_fd listener;
	struct list sessions;
	uint32_t session_count;
	uint64_t connect_count;
	struct log_limit log_limit;
	void (*delete_done)(void *arg); /* set: being deleted */
	void *delete_arg;
};

/* Journals of all queues in memory that the front-end keeps. */
struct session_inflight {
	void *map; /* NULL: the front-end keeps none */
	size_t map_bytes;
	uint8_t *base;
	uint64_t size_bytes;
	uint16_t queue_count;
	uint16_t queue_size;
	bool faulted;
};

/* A move of a running queue to another reactor: asked for, then an operation of the session as a
 * message is. */
struct session_move {
	enum { MOVE_NONE, MOVE_WANTED, MOVE_UNDER_WAY } state;
	unsigned int from; /* reactor index; while under way */
	unsigned int to;
	int result;
	void (*done)(void *arg, int result); /* may be NULL */
	void *arg;
	struct vhost_queue_stats stats; /* carried over */
	const char *broken_why;         /* carried over; NULL: sound */
};

/* The channel on which we send requests to the front-end. */
struct session_backend {
	struct reactor_fd watch;               /* fd -1: none */
	bool wanted;                           /* a change of configuration is still to be told */
	bool unanswered;                       /* it was told, and the answer has not come */
	struct vhost_user_backend_reply reply; /* what has come of it */
	size_t received_bytes;
};

/* A virtqueue of a session as its front-end described it. */
struct session_queue {
	struct vhost_session *session;
	struct vhost_queue *run; /* NULL: not on a reactor */
	struct vhost_queue_op op;
	unsigned int reactor_index; /* while run, and where it ran last */
	struct session_move move;
	uint64_t move_count;
	bool placed; /* reactor_index was chosen by a move, and is kept when the queue restarts */
	bool pinned; /* by hand: the balancer leaves it alone */
	struct list running_link; /* while run: the balancer's list */
	/* The balancer's. */
	uint64_t balance_request_count; /* of the run, when it last looked */
	uint64_t balance_recent;        /* between its last two looks */
	uint64_t balance_not_before_ns;
	uint64_t desc_user;
	uint64_t avail_user;
	uint64_t used_user;
	uint32_t size;         /* 0: not told */
	uint32_t base;         /* virtqueue_base() when it last stood still */
	void *private_journal; /* while run, if the front-end keeps none */
	bool addr_set;
	bool kick_set;
	bool enabled;
	bool hold; /* must not run while the message under way is handled */
	int kick_fd;
	int call_fd; /* owned here unless run has it */
	int err_fd;
};

struct vhost_session {
	struct list link;
	struct vhost_controller *controller;
	uint64_t id;
	struct reactor_fd socket;
	uint64_t features;
	uint64_t protocol_features;
	uint64_t status;
	struct mem_table *memory; /* never NULL */
	struct session_queue *queues;
	uint32_t queue_count;
	struct session_inflight inflight;
	struct dirty_log *log;     /* NULL: none given */
	struct dirty_log *log_old; /* of then */
	struct session_backend backend;

	/* The message under way. */
	struct vhost_user_message message;
	size_t received_bytes;
	int fds[FD_PASS_MAX];
	size_t fd_count;
	bool busy;                           /* handled, not answered yet; or moving */
	bool moving;                         /* a move is under way in the place of a message */
	uint32_t moves_wanted;               /* of queues, not begun yet */
	int (*then)(struct vhost_session *); /* waits for pending_count to be 0 */
	struct vhost_user_message reply;
	uint32_t reply_bytes;                  /* of payload; 0: none */
	int reply_fd;                          /* goes with it; -1: none */
	uint32_t argument;                     /* of then: a queue index */
	struct mem_table *memory_next;         /* of then: replaces memory */
	struct session_inflight inflight_next; /* of then */
	unsigned int pending_count;            /* operations on reactors under way */
	bool muted;                            /* not reading the socket meanwhile */
	bool closing;
	struct reactor_deferred close_work;
};

/* ---- session.c ---------------------------------------------------------------------------- */

int session_create(struct vhost_controller *controller, int socket_fd);
/* Ends a session with one log line, once its queues have let go. Legal at any moment: nothing is
 * freed before the control reactor's iteration ends. */
void session_close(struct vhost_session *session, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Goes on with the message under way after all operations are done. */
void session_continue(struct vhost_session *session);
/* Stops reading messages while something is under way, and begins again. */
void session_mute(struct vhost_session *session);
void session_unmute(struct vhost_session *session);
/* Closes the sessions whose memory file was truncated. */
void session_check_faults(struct vhost_session *session);

/* ---- messages.c: the table of messages ---------------------------------------------------- */

/* The payload bounds of a request: 0, or -EPROTO for a request that is unknown. */
int message_payload_bounds(uint32_t request, uint32_t *min_bytes, uint32_t *max_bytes);
const char *message_name(uint32_t request);
/* Handles the message that was read: 0, or -errno and *why. */
int message_handle(struct vhost_session *session, const char **why);
bool message_has_reply(uint32_t request);

/* ---- session_queues.c --------------------------------------------------------------------- */

int session_queues_create(struct vhost_session *session);
void session_queues_destroy(struct vhost_session *session);
/* Starts and stops queues until each runs exactly if it should. Failures close the session. */
void session_settle(struct vhost_session *session);
/* Makes settle stop the queue, or every queue, until the message is answered. */
void session_hold(struct session_queue *queue);
void session_hold_all(struct vhost_session *session);
void session_release_holds(struct vhost_session *session);
/* Gives the running queue another call fd, or stores it. Takes ownership of call_fd. */
void session_queue_set_call(struct session_queue *queue, int call_fd);
/* Makes a running queue use another memory table. */
void session_queue_set_memory(struct session_queue *queue, const struct mem_table *memory);
/* Makes a running queue keep another dirty log, or none. */
void session_queue_set_log(struct session_queue *queue, struct dirty_log *log);
/* True if the ring of a queue lies at the same host addresses in another table. */
bool session_queue_same_place(const struct session_queue *queue, const struct mem_table *memory);

/* ---- session_move.c: moving running queues between reactors -------------------------------- */

/* Asks for a move. It is carried out when the session has nothing else under way; then, or when
 * the session ends, done is called: 0; -ECANCELED: the queue was stopped or its session closed
 * meanwhile; or why it could not start there, and then it serves where it was. Returns 0; -ENOENT:
 * the queue is not running; -EBUSY: it is being moved already. */
int session_move_queue(struct session_queue *queue, unsigned int reactor_index,
		       void (*done)(void *arg, int result), void *arg);
/* Begins the moves that are wanted, if nothing is under way. */
void session_moves_begin(struct vhost_session *session);
/* The queues of the move under way run again. */
void session_moves_finish(struct vhost_session *session);
/* The session ends: nothing moves any more. */
void session_moves_cancel(struct vhost_session *session);
/* Of a queue in a move: what the run that stops leaves to the one that starts. */
void session_move_save(struct session_queue *queue);
void session_move_restore(struct session_queue *queue);

/* ---- session_memory.c --------------------------------------------------------------------- */

int session_memory_set(struct vhost_session *session, const char **why);
int session_memory_add(struct vhost_session *session, const char **why);
int session_memory_remove(struct vhost_session *session, const char **why);

/* ---- session_log.c ------------------------------------------------------------------------ */

int session_log_set_base(struct vhost_session *session, const char **why);
int session_log_set_fd(struct vhost_session *session, const char **why);
/* The log that queues are to keep, or NULL. */
struct dirty_log *session_active_log(const struct vhost_session *session);
/* Tells it to all running queues. */
void session_log_update(struct vhost_session *session);

/* ---- session_backend.c: the channel to the front-end --------------------------------------- */

void session_backend_init(struct vhost_session *session);
/* Takes over fd, in place of the one there was: 0 or -errno. */
int session_backend_open(struct vhost_session *session, int fd);
void session_backend_close(struct vhost_session *session);
/* Tells the front-end that the configuration space has changed, if it can be told. */
void session_config_changed(struct vhost_session *session);

/* ---- session_inflight.c ------------------------------------------------------------------- */

int session_inflight_get(struct vhost_session *session, const char **why);
int session_inflight_set(struct vhost_session *session, const char **why);
void session_inflight_fini(struct vhost_session *session);
/* The journal for a queue that is about to run, and the queue size that it was made for: 0; -EINVAL
 * if the front-end's has no room for it; -ENOMEM. */
int session_journal_get(struct session_queue *queue, bool packed, void **out, uint16_t *capacity);
/* The queue stands still. */
void session_journal_put(struct session_queue *queue);

/* ---- placement.c -------------------------------------------------------------------------- */

/* True if a controller of this CPU mask (all zero: any) may use a reactor, or any reactor. */
bool placement_allowed(const uint64_t *cpu_mask, unsigned int reactor_index);
bool placement_possible(const uint64_t *cpu_mask);
/* The reactor for another queue: of those allowed, the one that has fewest. */
unsigned int controller_choose_reactor(const struct vhost_controller *controller);
/* The channel on a reactor, for one more queue; its bdev is NULL if there was no memory. */
struct vhost_channel *controller_place_queue(struct vhost_controller *controller,
					     unsigned int reactor_index);
void controller_unplace_queue(struct vhost_controller *controller, unsigned int reactor_index);
/* Asks for moves of the queues that run where their controller's CPU mask does not allow it. */
void placement_enforce(struct vhost_session *session);
void placement_count_move(unsigned int from, unsigned int to);
uint64_t placement_move_count(void);
void placement_reset(void);

/* ---- balancer.c --------------------------------------------------------------------------- */

/* A queue begins to run: the balancer looks after it from now on. */
void balancer_add(struct session_queue *queue);
void balancer_remove(struct session_queue *queue);
void balancer_fini(void);
/* ---- controller_bdev.c: what a controller serves ------------------------------------------- */

/* Opens the bdev, watched: 0, or -errno with a sentence. */
int controller_bdev_open(struct vhost_controller *controller,
			 const struct vhost_blk_options *options, char *error, size_t error_bytes);
void controller_bdev_close(struct vhost_controller *controller);
/* The bdev, or what stands for it when it was removed. */
static inline const struct bdev *controller_bdev(const struct vhost_controller *controller)
{
	return controller->open != NULL ? controller->open->bdev : controller->ghost;
}

/* ---- controller.c ------------------------------------------------------------------------- */

const struct reactor_set *vhost_reactors(void);
/* All controllers, those being deleted too. */
struct list *vhost_controllers(void);
/* Before a queue starts: 0, or -EBUSY if another process has the storage. And after it stopped. */
int controller_begin_serving(struct vhost_controller *controller);
void controller_end_serving(struct vhost_controller *controller);
/* A session is gone: its memory is freed by now. */
void controller_session_gone(struct vhost_controller *controller);

#endif
