/* SPDX-License-Identifier: Apache-2.0 */
/* RPC methods about which reactor serves which queue. Control thread. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "control/change.h"
#include "control/control.h"
#include "control/methods.h"
#include "control/objects.h"
#include "vhost/vhost.h"

/* The controller that a request names; NULL after an error reply. */
static struct vhost_controller *find(struct rpc_request *request, const char *name)
{
	struct vhost_controller *controller = vhost_controller_find(name);

	if (controller == NULL)
		rpc_reply_error(request, -ENODEV, "ctrlr: there is no controller %s", name);
	return controller;
}

/* ---- sluice_vhost_move_queue ------------------------------------------------------------- */

struct move_args {
	const char *ctrlr;
	uint64_t session;
	uint32_t queue;
	uint32_t cpu;
	bool pin;
};

static void moved(void *arg, int result)
{
	struct rpc_request *request = arg;

	if (result == -ECANCELED)
		rpc_reply_error(
			request, result,
			"the queue was stopped, or its session ended, before it could move");
	else if (result < 0)
		rpc_reply_error(request, result,
				"the queue stays where it was; it cannot be served there: %s",
				strerror(-result));
	else
		rpc_reply(request, json_true());
}

static void move_queue(struct rpc_request *request, const void *args)
{
	const struct move_args *a = args;
	struct vhost_controller *controller = find(request, a->ctrlr);
	char error[RPC_ERROR_BYTES] = "";

	if (controller == NULL)
		return;
	const struct vhost_move move = {
		.session_id = a->session,
		.queue_index = a->queue,
		.cpu = (int)a->cpu,
		.pinned = a->pin,
		.done = moved,
		.arg = request,
	};
	int rc = vhost_controller_move_queue(controller, &move, error, sizeof(error));
	if (rc < 0)
		rpc_reply_error(request, rc, "%s", error);
}

static const struct rpc_param move_params[] = {
	{.name = "ctrlr",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct move_args, ctrlr),
	 .min = 1,
	 .max = VHOST_NAME_MAX - 1,
	 .help = "Name of the controller."},
	{.name = "queue",
	 .type = RPC_TYPE_U32,
	 .required = true,
	 .offset = offsetof(struct move_args, queue),
	 .max = VHOST_QUEUE_MAX - 1,
	 .help = "Index of the queue."},
	{.name = "cpu",
	 .type = RPC_TYPE_U32,
	 .required = true,
	 .offset = offsetof(struct move_args, cpu),
	 .max = REACTOR_CPU_MAX - 1,
	 .help = "CPU of the reactor that is to serve it."},
	{.name = "session",
	 .type = RPC_TYPE_U64,
	 .offset = offsetof(struct move_args, session),
	 .min = 1,
	 .max = INT64_MAX,
	 .help = "Id of the session, as vhost_get_controllers shows it. Absent: the only one that "
		 "runs the queue."},
	{.name = "pin",
	 .type = RPC_TYPE_BOOL,
	 .offset = offsetof(struct move_args, pin),
	 .fallback = true,
	 .help = "Whether the queue stays there as long as its session lasts. Otherwise the "
		 "balancer may move it on."},
};

/* ---- sluice_vhost_set_cpumask ------------------------------------------------------------ */

struct cpumask_args {
	const char *ctrlr;
	uint64_t cpumask[REACTOR_CPU_WORDS];
};

/* What to go back to if the change cannot be saved: changes run one at a time. */
static uint64_t cpumask_before[REACTOR_CPU_WORDS];

static void cpumask_saved(struct rpc_request *request, const char *name, int rc)
{
	struct vhost_controller *controller = vhost_controller_find(name);

	if (rc == 0) {
		rpc_reply(request, json_true());
		return;
	}
	if (controller != NULL)
		vhost_controller_set_cpu_mask(controller, cpumask_before);
	rpc_reply_unsaved(request, rc);
}

static void set_cpumask(struct rpc_request *request, const void *args)
{
	const struct cpumask_args *a = args;
	struct vhost_controller *controller = find(request, a->ctrlr);

	if (controller == NULL)
		return;
	memcpy(cpumask_before, vhost_controller_cpu_mask(controller), sizeof(cpumask_before));
	int rc = vhost_controller_set_cpu_mask(controller, a->cpumask);
	if (rc < 0)
		rpc_reply_error(request, rc, "cpumask: no reactor runs on a CPU of the mask");
	else
		change_save(request, CHANGE_ADDED, OBJECTS_VHOST_BLK, a->ctrlr, cpumask_saved);
}

static const struct rpc_param cpumask_params[] = {
	{.name = "ctrlr",
	 .type = RPC_TYPE_STRING,
	 .required = true,
	 .offset = offsetof(struct cpumask_args, ctrlr),
	 .min = 1,
	 .max = VHOST_NAME_MAX - 1,
	 .help = "Name of the controller."},
	{.name = "cpumask",
	 .type = RPC_TYPE_CPUMASK,
	 .offset = offsetof(struct cpumask_args, cpumask),
	 .help = "CPUs of the reactors over which the queues are spread. Absent: all reactors."},
};

/* ---- sluice_set_rebalance ---------------------------------------------------------------- */

struct rebalance_args {
	bool enabled;
};

static void set_rebalance(struct rpc_request *request, const void *args)
{
	vhost_set_rebalance(((const struct rebalance_args *)args)->enabled);
	rpc_reply(request, json_true());
}

static const struct rpc_param rebalance_params[] = {
	{.name = "enabled",
	 .type = RPC_TYPE_BOOL,
	 .required = true,
	 .offset = offsetof(struct rebalance_args, enabled),
	 .help = "Whether queues are moved from hot reactors to others."},
};

/* ---- table ------------------------------------------------------------------------------- */

static const struct rpc_method methods[] = {
	{.name = "sluice_vhost_move_queue",
	 .help = "Moves a running queue of a VM to another reactor, under I/O: what is in flight "
		 "ends first, then the other reactor goes on.",
	 .result = "true, once the queue is served there.",
	 RPC_PARAMS(move_params),
	 .args_bytes = sizeof(struct move_args),
	 .handler = move_queue},
	{.name = "sluice_vhost_set_cpumask",
	 .help = "Changes the CPUs whose reactors may serve a controller. Queues that are served "
		 "elsewhere move soon after the reply.",
	 .result = "true",
	 RPC_PARAMS(cpumask_params),
	 .args_bytes = sizeof(struct cpumask_args),
	 .changes = true,
	 .handler = set_cpumask},
	{.name = "sluice_set_rebalance",
	 .help = "Switches the balancer, which moves queues from reactors that are hot to ones "
		 "that "
		 "have room. Holds until the daemon ends; its start is up to --rebalance.",
	 .result = "true",
	 RPC_PARAMS(rebalance_params),
	 .args_bytes = sizeof(struct rebalance_args),
	 .handler = set_rebalance},
};

const struct rpc_method_list methods_placement = {methods, ARRAY_COUNT(methods)};
