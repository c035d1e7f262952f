/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper threads for what may block: opening a file, mapping a large guest, an ioctl on a device.
 * A job runs on a worker and then reports back on the reactor it came from. When all threads are
 * busy another one is made, so that a few jobs stuck in the kernel (a dead network mount) do not
 * stop the others.
 */
#ifndef SLUICE_REACTOR_WORKER_H
#define SLUICE_REACTOR_WORKER_H

#include "reactor/reactor.h"

/* Intrusive; the submitter owns it until done runs, which may free it. */
struct worker_job {
	struct reactor_msg msg;               /* worker.c's own */
	struct worker_job *next;              /* worker.c's own */
	struct reactor *origin;               /* worker.c's own */
	void (*run)(struct worker_job *job);  /* on a worker thread; may block */
	void (*done)(struct worker_job *job); /* on the submitting reactor */
};

/* Beyond that many, jobs wait for a thread. */
#define WORKER_COUNT_MAX 64

/* Any thread, before the first job: starts thread_count threads. 0 or -errno. */
int worker_init(unsigned int thread_count);
/* Any thread: jobs submitted whose done has not returned yet. */
unsigned int worker_pending_count(void);
/* After all reactors have ended and before they are destroyed: runs the jobs that are queued and
 * joins the threads. */
void worker_fini(void);

/* On a reactor's thread. Takes a mutex for the length of a list insertion: for set-up and for the
 * rare blocking operation, not for ordinary I/O. */
void worker_submit(struct worker_job *job);

#endif
