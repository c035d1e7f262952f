/* SPDX-License-Identifier: Apache-2.0 */
/* A few threads that run blocking jobs in the order submitted. */
#include "reactor/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/assert.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct worker_job *first;
	struct worker_job **last;
	pthread_t *threads;
	unsigned int thread_count;
	bool ending;
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.some = PTHREAD_COND_INITIALIZER,
};

static void report_done(struct reactor_msg *msg)
{
	struct worker_job *job = container_of(msg, struct worker_job, msg);

	job->done(job);
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
	}
	return NULL;
}

int worker_init(unsigned int thread_count)
{
	ensure(pool.threads == NULL && thread_count > 0);
	pool.threads = calloc(thread_count, sizeof(*pool.threads));
	if (pool.threads == NULL)
		return -ENOMEM;
	pool.last = &pool.first;
	pool.ending = false;
	for (pool.thread_count = 0; pool.thread_count < thread_count; pool.thread_count++) {
		int rc = pthread_create(&pool.threads[pool.thread_count], NULL, worker_main, NULL);
		if (rc != 0) {
			worker_fini();
			return -rc;
		}
	}
	return 0;
}

void worker_fini(void)
{
	pthread_mutex_lock(&pool.lock);
	pool.ending = true;
	pthread_cond_broadcast(&pool.some);
	pthread_mutex_unlock(&pool.lock);
	for (unsigned int i = 0; i < pool.thread_count; i++)
		pthread_join(pool.threads[i], NULL);
	free(pool.threads);
	pool.threads = NULL;
	pool.thread_count = 0;
}

void worker_submit(struct worker_job *job)
{
	ensure(pool.thread_count > 0);
	job->origin = reactor_current();
	ensure(job->origin != NULL);
	job->next = NULL;
	pthread_mutex_lock(&pool.lock);
	*pool.last = job;
	pool.last = &job->next;
	pthread_cond_signal(&pool.some);
	pthread_mutex_unlock(&pool.lock);
}
