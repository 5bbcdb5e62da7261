/* Threads for what may wait for a disk and is no commit (store/workers.py), outside the interpreter's lock: one of
 * Python's would wait for that when it is woken, after every call, and to tell the event loop, and each time the loop
 * would wait in turn.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { STACK = 256 << 10 }; /* octets for each thread */

/* What is to be done: run(what). It belongs to the caller, who leaves it alone until it is finished. */
struct work {
    struct work *next;
    void (*run)(void *what);
    void *what;
    int64_t number;
};

struct line {
    struct work *first, *last;
};

struct workers {
    pthread_mutex_t lock; /* of the next two; held for a few instructions, as the loop waits for it */
    struct line waiting, finished;
    /* How many are waiting, and at the end one more for each thread. No condition variable: among several threads those
     * of glibc before 2.41 may lose a signal (its bug 25847), and a session would wait until the next one comes. */
    sem_t filled;
    int report; /* an eventfd: something is finished */
    int count;
    pthread_t threads[];
};

static void append(struct line *line, struct work *work)
{
    work->next = NULL;
    if (line->first)
        line->last = line->last->next = work;
    else
        line->first = line->last = work;
}

static struct work *shift(struct line *line)
{
    struct work *first = line->first;
    if (first)
        line->first = first->next;
    return first;
}

/* The next one; NULL: closed, and nothing is left. */
static struct work *take(struct workers *all)
{
    while (sem_wait(&all->filled) < 0)
        ; /* EINTR: a debugger, or the machine slept */
    pthread_mutex_lock(&all->lock);
    struct work *work = shift(&all->waiting);
    pthread_mutex_unlock(&all->lock);
    return work;
}

static void finish(struct workers *all, struct work *work)
{
    uint64_t one = 1;
    pthread_mutex_lock(&all->lock);
    int told = all->finished.first != NULL;
    append(&all->finished, work);
    pthread_mutex_unlock(&all->lock);
    if (!told)
        while (write(all->report, &one, sizeof one) < 0 && errno == EINTR)
            ;
}

static void *serve(void *argument)
{
    struct work *work;
    while ((work = take(argument)) != NULL) {
        work->run(work->what);
        finish(argument, work);
    }
    return NULL;
}

/* As many threads as there can be, up to `count`, without signals: they are for the loop's. NULL: none. */
struct workers *workers_new(int count, int report)
{
    struct workers *all = calloc(1, sizeof *all + (size_t)count * sizeof all->threads[0]);
    pthread_attr_t attributes;
    sigset_t every, before;
    if (!all)
        return NULL;
    all->report = report;
    pthread_mutex_init(&all->lock, NULL);
    sem_init(&all->filled, 0, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    while (all->count < count && pthread_create(&all->threads[all->count], &attributes, serve, all) == 0)
        all->count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (all->count)
        return all;
    free(all);
    return NULL;
}

void workers_put(struct workers *all, struct work *work)
{
    pthread_mutex_lock(&all->lock);
    append(&all->waiting, work);
    pthread_mutex_unlock(&all->lock);
    sem_post(&all->filled);
}

/* The numbers of what is finished and was not told before, up to `most`; how many. */
int workers_finished(struct workers *all, int64_t *numbers, int most)
{
    int count = 0;
    struct work *work;
    pthread_mutex_lock(&all->lock);
    while (count < most && (work = shift(&all->finished)) != NULL)
        numbers[count++] = work->number;
    pthread_mutex_unlock(&all->lock);
    return count;
}

/* Finish what was put, and end the threads. workers_finished tells of it still; `all` is for the process's life. */
void workers_close(struct workers *all)
{
    for (int i = 0; i < all->count; i++)
        sem_post(&all->filled);
    for (int i = 0; i < all->count; i++)
        pthread_join(all->threads[i], NULL);
}
