/* SPDX-License-Identifier: Apache-2.0 */
/* The fds of a reactor, by epoll. The reactor's own thread. */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fd.h"
#include "reactor/reactor_impl.h"

int reactor_fd_add(struct reactor *reactor, struct reactor_fd *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	ensure(!watch->registered);
	if (epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0)
		return -errno;
	watch->reactor = reactor;
	watch->registered = true;
	return 0;
}

int reactor_fd_modify(struct reactor_fd *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	ensure(watch->registered);
	return epoll_ctl(watch->reactor->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0 ? -errno
											 : 0;
}

void reactor_fd_remove(struct reactor_fd *watch)
{
	struct reactor *reactor = watch->reactor;

	if (!watch->registered)
		return;
	watch->registered = false;
	epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	/* The batch being delivered may hold a later event of it. */
	for (int i = reactor->event_index + 1; i < reactor->event_count; i++) {
		if (reactor->events[i].data.ptr == watch)
			reactor->events[i].data.ptr = NULL;
	}
}

void reactor_events_fetch(struct reactor *reactor, int timeout_ms)
{
	int n = epoll_wait(reactor->epoll_fd, reactor->events, REACTOR_EVENT_BATCH, timeout_ms);

	reactor->event_count = n > 0 ? n : 0;
}

unsigned int reactor_events_deliver(struct reactor *reactor)
{
	unsigned int delivered = 0;

	for (int i = 0; i < reactor->event_count; i++) {
		struct reactor_fd *watch = reactor->events[i].data.ptr;
		if (watch == NULL)
			continue;
		reactor->event_index = i;
		watch->fn(watch, reactor->events[i].events);
		delivered++;
	}
	reactor->event_count = 0;
	return delivered;
}

/* Edge-triggered, so the counter is never read: every write is an event of its own. */
static void on_wake(struct reactor_fd *watch, uint32_t epoll_events)
{
	(void)watch;
	(void)epoll_events;
}

int reactor_events_init(struct reactor *reactor)
{
	int rc;

	reactor->wake_watch.fd = -1;
	reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (reactor->epoll_fd < 0)
		return -errno;
	rc = fd_eventfd_create();
	if (rc < 0)
		return rc;
	reactor->wake_watch.fd = rc;
	reactor->wake_watch.fn = on_wake;
	return reactor_fd_add(reactor, &reactor->wake_watch, EPOLLIN | EPOLLET);
}

void reactor_events_fini(struct reactor *reactor)
{
	reactor_fd_remove(&reactor->wake_watch);
	fd_close(&reactor->wake_watch.fd);
	fd_close(&reactor->epoll_fd);
}
