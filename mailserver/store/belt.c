/* The commit thread's work (store/belt.py), outside the interpreter's lock: the thread had to wait for that before and
 * after every batch while the event loop was busy.
 *
 * The loop puts parcels on the belt; those that come while a batch is on disk are the next batch.
 */
#define _GNU_SOURCE
#include "commit.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH_FILES = 256, COMPARISONS_MAX = 1000 }; /* files: job.py has the same number */

struct belt {
    pthread_mutex_t lock; /* of the next four; held for a few instructions, as the loop waits for it */
    pthread_cond_t filled;
    struct parcel *first, *last;
    int waiting, closed;
    /* The commit thread's own: */
    struct parcel *batch, *end; /* taken over; the first ones are being done */
    const char *const *folders; /* where files begin, one after the other */
    int folder_count, turn, report; /* an eventfd that counts finished parcels */
    int64_t rest; /* nanoseconds waited since the last batch with files */
    int64_t finished, batches;
};

/* How batches are synced: in which way, when one has to be looked at first (it comes after so many nanoseconds of
 * rest), and when a sync was a slow one (so many, and so many for each file). Removals alone are no batch here. */
struct orders {
    int how;
    int64_t rest, slow, slow_file;
};

/* What Python is to do: the next `parcels` ones, of which the first is number `first` since the start, and how far
 * they are; `fast`: batches with files since the last time. */
struct taken {
    int64_t first;
    int parcels, rested, fast;
    struct progress progress;
    int fds[BATCH_FILES];
};

/* It is there as long as the process. */
struct belt *belt_new(const char *const *folders, int count, int report)
{
    struct belt *belt = calloc(1, sizeof *belt);
    if (belt) {
        pthread_mutex_init(&belt->lock, NULL);
        pthread_cond_init(&belt->filled, NULL);
        belt->folders = folders;
        belt->folder_count = count;
        belt->report = report;
    }
    return belt;
}

static void put(struct belt *belt, struct parcel *parcel)
{
    pthread_mutex_lock(&belt->lock);
    if (!parcel)
        belt->closed = 1;
    else if (belt->first)
        belt->last = belt->last->next = parcel;
    else
        belt->first = belt->last = parcel;
    int waiting = belt->waiting;
    pthread_mutex_unlock(&belt->lock);
    if (waiting)
        pthread_cond_signal(&belt->filled);
}

/* parcel.c; the contents must stay until they are reported. 0: there is no memory. */
int belt_put(struct belt *belt, int files, int parts, int names, int removals, const int64_t *numbers,
             const char *const *contents, const char *text, long size)
{
    struct parcel *parcel = parcel_new(files, parts, names, removals, numbers, contents, text, size);
    if (parcel)
        put(belt, parcel);
    return parcel != NULL;
}

/* One that is to come out again, in its turn, as it is. */
void belt_carry(struct belt *belt)
{
    struct parcel *parcel = calloc(1, sizeof *parcel);
    if (!parcel)
        abort(); /* somebody would wait for ever; a restart loses nothing */
    put(belt, parcel);
}

/* There will be no more. */
void belt_close(struct belt *belt)
{
    put(belt, NULL);
}

/* Since the start; any thread may ask. */
int64_t belt_batches(struct belt *belt)
{
    return __atomic_load_n(&belt->batches, __ATOMIC_RELAXED);
}

/* The commit thread is done with its batch of so many parcels. */
void belt_report(struct belt *belt, int parcels)
{
    uint64_t count = (uint64_t)parcels;
    crash_point(BEFORE_REPORT);
    for (int i = 0; i < parcels; i++) {
        struct parcel *done = belt->batch;
        belt->batch = done->next;
        free(done);
    }
    belt->finished += parcels;
    __atomic_fetch_add(&belt->batches, 1, __ATOMIC_RELAXED);
    while (write(belt->report, &count, sizeof count) < 0 && errno == EINTR)
        ;
}

/* Whether `parcel` has a name that an earlier one, from `first` on, removes: removals come last in a batch. */
static int collides(const struct parcel *first, const struct parcel *parcel)
{
    int left = COMPARISONS_MAX;
    if (!parcel->names_total)
        return 0;
    for (; first != parcel; first = first->next)
        for (int i = 0; i < first->removals; i++)
            for (int k = 0; k < parcel->names_total; k++)
                if (left-- == 0 || strcmp(first->remove[i], parcel->names[k]) == 0)
                    return 1;
    return 0;
}

/* Take over what was put, and wait for it if there is nothing to do. */
static void take_over(struct belt *belt)
{
    pthread_mutex_lock(&belt->lock);
    if (!belt->batch && !belt->first && !belt->closed) {
        int64_t start = nanoseconds();
        belt->waiting = 1;
        while (!belt->first && !belt->closed)
            pthread_cond_wait(&belt->filled, &belt->lock);
        belt->waiting = 0;
        belt->rest += nanoseconds() - start;
    }
    struct parcel *first = belt->first, *last = belt->last;
    belt->first = NULL;
    pthread_mutex_unlock(&belt->lock);
    if (!first)
        return;
    if (belt->batch)
        belt->end->next = first;
    else
        belt->batch = first;
    belt->end = last;
}

/* How many of the first parcels make a batch, 0: closed. */
static int take_batch(struct belt *belt, int *files)
{
    int count = 0;
    *files = 0;
    take_over(belt);
    const struct parcel *first = belt->batch, *end = first;
    for (; end && (!count || (end->plain && first->plain && *files + end->files <= BATCH_FILES)); end = end->next) {
        if (count && collides(first, end))
            break;
        *files += end->files;
        count++;
    }
    return count;
}

static int remove_all(const struct parcel *parcel, int parcels)
{
    for (int i = 0; i < parcels; i++, parcel = parcel->next)
        for (int k = 0; k < parcel->removals; k++) {
            crash_point(BEFORE_REMOVE);
            if (unlink(parcel->remove[k]) < 0 && errno != ENOENT)
                return 0;
            crash_point(AFTER_REMOVE);
        }
    return 1;
}

/* Do batch after batch, and return with the first that needs Python: it is not plain, it failed on the way, it comes
 * after a rest, its sync was slow. Returns whether there is one; else the belt is closed. */
int belt_take(struct belt *belt, const struct orders *orders, struct taken *taken)
{
    for (taken->fast = 0;;) {
        int files, whole = orders->how == SYNC_WHOLE;
        taken->parcels = take_batch(belt, &files);
        if (!taken->parcels)
            return 0;
        const struct parcel *first = belt->batch;
        taken->first = belt->finished;
        taken->rested = belt->rest > orders->rest;
        if (files || !first->plain)
            belt->rest = 0;
        taken->progress = (struct progress){.error = -1};
        if (!first->plain || orders->how == SYNC_NOTHING || (whole && files && taken->rested))
            return 1;
        const char *folder = belt->folders[belt->turn = (belt->turn + 1) % belt->folder_count];
        if (files
            && !commit_files(first, taken->parcels, files, folder, orders->how, taken->fds, &taken->progress))
            return 1;
        if (files && whole && taken->progress.time > orders->slow + files * orders->slow_file)
            return 1;
        if (!remove_all(first, taken->parcels))
            return 1;
        belt_report(belt, taken->parcels);
        taken->fast += files > 0;
    }
}
