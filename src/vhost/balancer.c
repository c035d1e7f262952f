/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balancer: moves a queue from a reactor that has been hot for a while to one that has room.
 *
 * It looks at how busy each reactor was in the last period, and shares a hot one's time out among
 * its queues by the requests that they took. A queue moves only if the busier one of the two
 * reactors is then clearly less busy than the hot one is now: what it does, it has no reason to
 * undo. At most one queue moves a period, and none twice within its rest.
 *
 * Its timer runs while queues do: four times a second if a reactor is busy, once if none is.
 * Control thread.
 */
#include "base/clock.h"
#include "vhost/balance.h"
#include "vhost/session.h"

#define PERIOD_BUSY_NS 250000000ull
#define PERIOD_IDLE_NS 1000000000ull
/* Before a queue that was moved is moved again, and before its reactors are looked at again. */
#define QUEUE_REST_NS 5000000000ull
#define REACTOR_REST_PERIODS 3

static struct {
	struct list queues; /* that run */
	struct reactor_timer timer;
	bool running;
	bool off;
	uint64_t last_ticks;
	uint64_t busy_ticks[REACTOR_COUNT_MAX]; /* when it last looked */
	struct balance_reactor reactors[REACTOR_COUNT_MAX];
	uint64_t move_count;
} balancer = {.queues = {&balancer.queues, &balancer.queues}};

#define for_each_queue(queue)                                                       \
	list_for_each (node_, &balancer.queues)                                     \
		for (struct session_queue *queue =                                  \
			     list_entry(node_, struct session_queue, running_link); \
		     queue != NULL; queue = NULL)

bool vhost_rebalance(void)
{
	return !balancer.off;
}

void vhost_get_move_counts(struct vhost_move_counts *out)
{
	out->total = placement_move_count();
	out->balanced = balancer.move_count;
}

/* How busy each reactor was since the last look. True if one of them was at all. */
static bool measure_reactors(void)
{
	const struct reactor_set *set = vhost_reactors();
	uint64_t now = ticks_now();
	uint64_t elapsed = now - balancer.last_ticks;
	bool any = false;

	balancer.last_ticks = now;
	for (unsigned int i = 0; i < set->data_count; i++) {
		struct reactor_stats stats;
		reactor_get_stats(set->data[i], &stats);
		uint64_t busy = stats.busy_ticks - balancer.busy_ticks[i];
		balancer.busy_ticks[i] = stats.busy_ticks;
		unsigned int permille =
			elapsed == 0 ? 0 : (unsigned int)(MIN(busy, elapsed) * 1000 / elapsed);
		balance_note(&balancer.reactors[i], permille);
		any |= permille >= BALANCE_BUSY_PERMILLE;
	}
	return any;
}

/* ---- candidates --------------------------------------------------------------------------- */

struct candidate {
	struct session_queue *queue;
	unsigned int to;
	unsigned int peak_permille; /* of the busier reactor, after the move */
};

/* Requests of each queue since the last look, and of each reactor. */
static void measure_queues(uint64_t *totals)
{
	for_each_queue(queue)
	{
		uint64_t count = load_relaxed(&queue->run->stats.request_count);
		/* A queue that was stopped and started counts from 0 again. */
		queue->balance_recent = count >= queue->balance_request_count
						? count - queue->balance_request_count
						: count;
		queue->balance_request_count = count;
		totals[queue->reactor_index] += queue->balance_recent;
	}
}

struct search {
	const uint64_t *totals;
	uint64_t now_ns;
	unsigned int hot;
	struct candidate best;
};

static void consider_queue(struct search *search, struct session_queue *queue)
{
	const struct vhost_controller *controller = queue->session->controller;
	uint64_t total = search->totals[search->hot];

	if (queue->reactor_index != search->hot || queue->pinned || total == 0 ||
	    queue->balance_recent == 0 || queue->move.state != MOVE_NONE ||
	    queue->session->closing || search->now_ns < queue->balance_not_before_ns)
		return;
	unsigned int hot_permille = balancer.reactors[search->hot].busy_permille;
	unsigned int load = (unsigned int)(hot_permille * queue->balance_recent / total);
	for (unsigned int i = 0; i < vhost_reactors()->data_count; i++) {
		unsigned int peak;
		if (i == search->hot || !placement_allowed(controller->cpu_mask, i) ||
		    !balance_improves(&balancer.reactors[search->hot], &balancer.reactors[i], load,
				      &peak))
			continue;
		if (search->best.queue == NULL || peak < search->best.peak_permille)
			search->best = (struct candidate){queue, i, peak};
	}
}

/* ---- the timer ---------------------------------------------------------------------------- */

static void on_moved(void *arg, int result)
{
	(void)arg;
	if (result == 0)
		balancer.move_count++;
}

static void move_best(const struct search *search)
{
	struct session_queue *queue = search->best.queue;

	if (queue == NULL || session_move_queue(queue, search->best.to, on_moved, NULL) < 0)
		return;
	queue->balance_not_before_ns = search->now_ns + QUEUE_REST_NS;
	balance_rest(&balancer.reactors[search->hot], REACTOR_REST_PERIODS);
	balance_rest(&balancer.reactors[search->best.to], REACTOR_REST_PERIODS);
}

static void balance(void)
{
	const struct reactor_set *set = vhost_reactors();
	uint64_t totals[REACTOR_COUNT_MAX] = {0};
	struct search search = {.totals = totals, .now_ns = clock_ns()};
	bool any = false;

	/* Requests are counted every period, so that a hot period is judged by its own. */
	measure_queues(totals);
	for (unsigned int i = 0; i < set->data_count; i++) {
		if (!balance_is_hot(&balancer.reactors[i]))
			continue;
		if (any && balancer.reactors[i].busy_permille <=
				   balancer.reactors[search.hot].busy_permille)
			continue;
		any = true;
		search.hot = i;
	}
	if (!any)
		return;
	for_each_queue(queue) consider_queue(&search, queue);
	move_best(&search);
}

static void on_timer(struct reactor_timer *timer)
{
	bool busy = measure_reactors();

	if (list_empty(&balancer.queues) || balancer.off) {
		balancer.running = false;
		return;
	}
	if (busy)
		balance();
	reactor_timer_start(vhost_reactors()->control, timer,
			    busy ? PERIOD_BUSY_NS : PERIOD_IDLE_NS);
}

static void wake(void)
{
	const struct reactor_set *set = vhost_reactors();

	if (balancer.running || balancer.off || list_empty(&balancer.queues) || set->data_count < 2)
		return;
	balancer.running = true;
	balancer.timer.fn = on_timer;
	for (unsigned int i = 0; i < set->data_count; i++)
		balancer.reactors[i] = (struct balance_reactor){0};
	measure_reactors();
	reactor_timer_start(set->control, &balancer.timer, PERIOD_IDLE_NS);
}

void vhost_set_rebalance(bool on)
{
	balancer.off = !on;
	wake();
}

void balancer_add(struct session_queue *queue)
{
	list_add_tail(&balancer.queues, &queue->running_link);
	wake();
}

void balancer_remove(struct session_queue *queue)
{
	list_remove(&queue->running_link);
}

void balancer_fini(void)
{
	reactor_timer_stop(&balancer.timer);
	balancer.running = false;
}
