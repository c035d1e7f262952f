/* SPDX-License-Identifier: Apache-2.0 */
/* One-shot timers of a reactor, in a list by due time. The reactor's own thread. */
#include <limits.h>

#include "base/clock.h"
#include "base/range.h"
#include "reactor/reactor_impl.h"

void reactor_timer_stop(struct reactor_timer *timer)
{
	if (timer->link.next != NULL)
		list_remove(&timer->link);
}

void reactor_timer_start(struct reactor *reactor, struct reactor_timer *timer, uint64_t delay_ns)
{
	struct list *before = &reactor->timers;
	uint64_t now = ticks_now();
	uint64_t delay_ticks = ns_to_ticks(delay_ns);

	reactor_timer_stop(timer);
	timer->reactor = reactor;
	timer->due_ticks = range_valid(now, delay_ticks) ? now + delay_ticks : UINT64_MAX;
	list_for_each (node, &reactor->timers) {
		if (list_entry(node, struct reactor_timer, link)->due_ticks > timer->due_ticks) {
			before = node;
			break;
		}
	}
	list_add_tail(before, &timer->link);
}

static struct reactor_timer *first_timer(const struct reactor *reactor)
{
	return list_entry(reactor->timers.next, struct reactor_timer, link);
}

unsigned int reactor_run_timers(struct reactor *reactor)
{
	unsigned int count = 0;

	while (unlikely(!list_empty(&reactor->timers))) {
		struct reactor_timer *timer = first_timer(reactor);
		if (timer->due_ticks > reactor->hot.now_ticks)
			break;
		list_remove(&timer->link);
		timer->fn(timer);
		count++;
	}
	return count;
}

int reactor_timer_wait_ms(const struct reactor *reactor)
{
	uint64_t now = ticks_now();

	if (list_empty(&reactor->timers))
		return -1;
	uint64_t due = first_timer(reactor)->due_ticks;
	if (due <= now)
		return 0;
	/* Rounded up, so that the timer is due on waking. */
	uint64_t wait_ms = ticks_to_ns(due - now) / 1000000 + 1;
	return wait_ms > INT_MAX ? INT_MAX : (int)wait_ms;
}
