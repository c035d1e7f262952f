/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that take blocking jobs in the order submitted. */
#include "reactor/worker.h"

#include <pthread.h>

#include "base/assert.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct worker_job *first;
	struct worker_job **last;
	pthread_t threads[WORKER_COUNT_MAX];
	unsigned int thread_count;
	unsigned int idle_count;    /* waiting for a job, or about to */
	unsigned int pending_count; /* read and written by any thread */
	bool ending;
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.some = PTHREAD_COND_INITIALIZER,
};

static void report_done(struct reactor_msg *msg)
{
	struct worker_job *job = container_of(msg, struct worker_job, msg);

	job->done(job);
	__atomic_sub_fetch(&pool.pending_count, 1, __ATOMIC_RELAXED);
}

static void *worker_main(void *arg);

/* With the lock held. On a worker, so that the new thread inherits no reactor's pinning. */
static int add_thread(void)
{
	int rc = pthread_create(&pool.threads[pool.thread_count], NULL, worker_main, NULL);

	if (rc != 0)
		return -rc;
	pool.thread_count++;
	pool.idle_count++;
	return 0;
}

/* The oldest job, waiting for one; NULL when the pool ends and none is left. */
static struct worker_job *take_job(void)
{
	pthread_mutex_lock(&pool.lock);
	while (pool.first == NULL && !pool.ending)
		pthread_cond_wait(&pool.some, &pool.lock);
	struct worker_job *job = pool.first;
	if (job != NULL) {
		pool.first = job->next;
		if (pool.first == NULL)
			pool.last = &pool.first;
		/* One is always left to take what comes; if it cannot be made, jobs wait. */
		if (--pool.idle_count == 0 && pool.thread_count < WORKER_COUNT_MAX && !pool.ending)
			(void)add_thread();
	}
	pthread_mutex_unlock(&pool.lock);
	return job;
}

static void *worker_main(void *arg)
{
	struct worker_job *job;

	(void)arg;
	pthread_setname_np(pthread_self(), "sluice-worker");
	while ((job = take_job()) != NULL) {
		job->run(job);
		job->msg.fn = report_done;
		reactor_send(job->origin, &job->msg);
		pthread_mutex_lock(&pool.lock);
		pool.idle_count++;
		pthread_mutex_unlock(&pool.lock);
	}
	return NULL;
}

int worker_init(unsigned int thread_count)
{
	int rc = 0;

	ensure(pool.thread_count == 0 && thread_count > 0 && thread_count <= WORKER_COUNT_MAX);
	pthread_mutex_lock(&pool.lock);
	pool.last = &pool.first;
	pool.ending = false;
	pool.idle_count = 0;
	pool.pending_count = 0;
	while (rc == 0 && pool.thread_count < thread_count)
		rc = add_thread();
	pthread_mutex_unlock(&pool.lock);
	if (rc < 0)
		worker_fini();
	return rc;
}

void worker_fini(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.ending = true;
	pthread_cond_broadcast(&pool.some);
	pthread_mutex_unlock(&pool.lock);
	for (unsigned int i = 0; i < pool.thread_count; i++)
		pthread_join(pool.threads[i], NULL);
	pool.thread_count = 0;
}

unsigned int worker_pending_count(void)
{
	return load_relaxed(&pool.pending_count);
}

void worker_submit(struct worker_job *job)
{
	job->origin = reactor_current();
	ensure(job->origin != NULL);
	job->next = NULL;
	__atomic_add_fetch(&pool.pending_count, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&pool.lock);
	ensure(pool.last != NULL);
	*pool.last = job;
	pool.last = &job->next;
	pthread_cond_signal(&pool.some);
	pthread_mutex_unlock(&pool.lock);
}
