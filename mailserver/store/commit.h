/* What parcel.c, commit.c (one batch) and belt.c (batch after batch) have in common. */
#ifndef COMMIT_H
#define COMMIT_H
#include <stdint.h>
#include <stddef.h>

/* store/crash.py: a test kills the process at one of these; places in CRASH_POINTS there. */
enum { BEFORE_WRITE, AFTER_WRITE, BEFORE_DATA_SYNC, AFTER_DATA_SYNC, BEFORE_NAME, AFTER_NAME, BEFORE_NAME_SYNC,
       AFTER_NAME_SYNC, BEFORE_REMOVE = 10, AFTER_REMOVE, BEFORE_REPORT };
void crash_point(int point);

/* What one turn of the event loop hands over. File i consists of the next part_counts[i] of `parts`, which have `sizes`,
 * and is to have the next name_counts[i] of `names`. `remove` is unlinked after that, in its order. `plain`: the belt may
 * do it all; else it only carries it. */
struct parcel {
    struct parcel *next;
    int plain, files, names_total, removals;
    const int64_t *part_counts, *name_counts, *sizes;
    const char *const *parts;
    const char *const *names;
    const char *const *remove;
};
struct parcel *parcel_new(int files, int parts, int names, int removals, const int64_t *numbers,
                          const char *const *contents, const char *text, long size);

/* What became of a batch: whether it is durable, files written, names made, what prevented the last sync (errno; -1:
 * not tried), and how long that took in nanoseconds. */
struct progress {
    int durable, written, named, error;
    int64_t time;
};

enum { SYNC_NOTHING, SYNC_LAST, SYNC_WHOLE }; /* steps.py: How */

int64_t nanoseconds(void);
int commit_files(const struct parcel *first, int parcels, int files, const char *folder, int how, int *fds,
                 struct progress *progress);
#endif
