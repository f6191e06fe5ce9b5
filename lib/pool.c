#include "lib/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { POOL_MAX_THREADS = 16 };

struct pool {
	pthread_mutex_t lock; /* guards everything below */
	size_t next, n;
	size_t failed_at; /* the item whose error is in *e; n while none failed */
	struct err *e;
	pool_work_fn work; /* these two are never written after the start */
	void *ctx;
};

unsigned pool_default_threads(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

	return n < 1 ? 1 : n > POOL_MAX_THREADS ? POOL_MAX_THREADS : (unsigned)n;
}

static void *pool_worker(void *arg)
{
	struct pool *p = arg;

	for (;;) {
		struct err e = ERR_INIT;
		size_t i;
		int r;

		(void)pthread_mutex_lock(&p->lock);
		i = p->failed_at < p->n ? p->n : p->next;
		if (i < p->n)
			p->next++;
		(void)pthread_mutex_unlock(&p->lock);
		if (i >= p->n)
			return NULL;
		r = p->work(p->ctx, i, &e);
		if (r < 0) {
			(void)pthread_mutex_lock(&p->lock);
			if (i < p->failed_at) {
				p->failed_at = i;
				*p->e = e;
			}
			(void)pthread_mutex_unlock(&p->lock);
		}
	}
}

int pool_run(unsigned n_threads, size_t n, pool_work_fn work, void *ctx, struct err *e)
{
	struct pool p = { .n = n, .failed_at = n, .e = e, .work = work, .ctx = ctx };
	pthread_t threads[POOL_MAX_THREADS];
	unsigned started = 0;
	sigset_t all, old;

	if (n_threads == 0)
		n_threads = pool_default_threads();
	if (n_threads > POOL_MAX_THREADS)
		n_threads = POOL_MAX_THREADS;
	if (n_threads > n)
		n_threads = (unsigned)n;
	(void)pthread_mutex_init(&p.lock, NULL);
	/* Signals are for the thread that knows what to do with them. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	/* The caller is a worker too; where a thread cannot be had, the others do its share. */
	while (started + 1 < n_threads && pthread_create(&threads[started], NULL, pool_worker, &p) == 0)
		started++;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pool_worker(&p);
	while (started > 0)
		(void)pthread_join(threads[--started], NULL);
	(void)pthread_mutex_destroy(&p.lock);
	return p.failed_at < n ? e->code : 0;
}
