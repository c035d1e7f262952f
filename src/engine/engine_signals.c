/* SPDX-License-Identifier: Apache-2.0 */
/* Signals through a signalfd. Control thread. */
#include "engine/engine_signals.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

static void signals_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
}

void engine_signals_block(void)
{
	sigset_t set;

	signals_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void signals_event(struct reactor_fd *watch, uint32_t epoll_events)
{
	struct engine_signals *signals = container_of(watch, struct engine_signals, watch);
	struct signalfd_siginfo info;

	if (read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (signals->asked) {
		log_warn("second signal: ending without waiting for I/O");
		_exit(128 + (int)info.ssi_signo);
	}
	signals->asked = true;
	log_info("signal %u: stopping; a second one ends at once", info.ssi_signo);
	signals->stop(signals);
}

int engine_signals_init(struct engine_signals *signals, struct reactor *control,
			void (*stop)(struct engine_signals *signals))
{
	sigset_t set;

	signals_set(&set);
	signals->stop = stop;
	signals->watch.fn = signals_event;
	signals->watch.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals->watch.fd < 0)
		return -errno;
	return reactor_fd_add(control, &signals->watch, EPOLLIN);
}

void engine_signals_fini(struct engine_signals *signals)
{
	if (signals->watch.fn == NULL)
		return;
	reactor_fd_remove(&signals->watch);
	fd_close(&signals->watch.fd);
}
