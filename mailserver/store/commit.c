/* One batch of commits: its files written, named, and synced (store/durable.py says why in this order).
 *
 * The steps work from the first file on and stop at the first that fails. They never say why: Python does the rest one
 * by one (store/disk.py), meets the same failure, and deals with it there.
 */
#define _GNU_SOURCE
#include "commit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int die_at = -1, die_count;

void arm_crash(int point, int count)
{
    die_at = point;
    die_count = count;
}

void crash_point(int point)
{
    if (point == die_at && --die_count == 0)
        raise(SIGKILL);
}

enum { PARTS_MAX = 64 }; /* of one file; more is left to Python */

static int write_whole(int fd, const char *const *parts, const int64_t *sizes, int64_t count)
{
    struct iovec vector[PARTS_MAX];
    int64_t size = 0;
    if (count > PARTS_MAX)
        return -1;
    for (int k = 0; k < count; k++) {
        vector[k] = (struct iovec){(void *)parts[k], (size_t)sizes[k]};
        size += sizes[k];
    }
    /* A disk that fills up takes less than all; that is Python's to find out. */
    return writev(fd, vector, (int)count) == size ? 0 : -1;
}

/* Make the files of a parcel in `folder`, without a name, and begin to write them to the device. Returns how many. */
static int start_files(const struct parcel *parcel, const char *folder, int *fds)
{
    const char *const *parts = parcel->parts;
    const int64_t *sizes = parcel->sizes;
    for (int i = 0; i < parcel->files; i++) {
        crash_point(BEFORE_WRITE);
        int64_t count = parcel->part_counts[i];
        int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            return i;
        if (write_whole(fd, parts, sizes, count) < 0) {
            close(fd);
            return i;
        }
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        fds[i] = fd;
        parts += count;
        sizes += count;
        crash_point(AFTER_WRITE);
    }
    return parcel->files;
}

/* Make all files and bring their content to the device (no metadata, no flush of the device's cache). Only files that
 * are whole and there are counted, and only their descriptors are open. */
static int write_files(const struct parcel *parcel, int parcels, const char *folder, int *fds)
{
    int written = 0, done, here;
    for (int i = 0; i < parcels; i++, parcel = parcel->next) {
        written += here = start_files(parcel, folder, fds + written);
        if (here < parcel->files)
            break;
    }
    crash_point(BEFORE_DATA_SYNC);
    for (done = 0; done < written; done++)
        if (sync_file_range(fds[done], 0, 0,
                            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) < 0)
            break;
    crash_point(AFTER_DATA_SYNC);
    for (int i = done; i < written; i++)
        close(fds[i]);
    return done;
}

/* Give file fds[i] the next counts[i] of `names`. Returns how many names are made. */
int link_files(const int *fds, const int64_t *counts, const char *const *names, int files)
{
    char self[40];
    int made = 0;
    for (int i = 0; i < files; i++) {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fds[i]);
        for (int64_t end = made + counts[i]; made < end; made++) {
            crash_point(BEFORE_NAME);
            if (linkat(AT_FDCWD, self, AT_FDCWD, names[made], AT_SYMLINK_FOLLOW) < 0)
                return made;
            crash_point(AFTER_NAME);
        }
    }
    return made;
}

/* The same for all. Returns whether every name is made; `made` counts them. */
static int name_files(const struct parcel *parcel, int parcels, const int *fds, int *made)
{
    *made = 0;
    for (int i = 0; i < parcels; i++, parcel = parcel->next) {
        int here = link_files(fds, parcel->name_counts, parcel->names, parcel->files);
        *made += here;
        if (here < parcel->names_total)
            return 0;
        fds += parcel->files;
    }
    return 1;
}

int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* All steps of a batch with `files` files but the removals. Returns whether it is durable; all is closed then, and else
 * the caller goes on from there with the descriptors of the `written` files. */
int commit_files(const struct parcel *first, int parcels, int files, const char *folder, int how, int *fds,
                 struct progress *progress)
{
    *progress = (struct progress){.error = -1};
    progress->written = write_files(first, parcels, folder, fds);
    if (progress->written < files || !name_files(first, parcels, fds, &progress->named) || how == SYNC_NOTHING)
        return 0;
    crash_point(BEFORE_NAME_SYNC);
    int64_t start = nanoseconds();
    progress->error = (how == SYNC_LAST ? fsync(fds[files - 1]) : syncfs(fds[files - 1])) < 0 ? errno : 0;
    progress->time = nanoseconds() - start;
    if (progress->error)
        return 0;
    crash_point(AFTER_NAME_SYNC);
    for (int i = 0; i < files; i++)
        close(fds[i]);
    return progress->durable = 1;
}

/* The same for one parcel, which is freed. -1: there is none, for want of memory. */
int commit_parcel(struct parcel *parcel, const char *folder, int how, int *fds, struct progress *progress)
{
    if (!parcel)
        return -1;
    int durable = commit_files(parcel, 1, parcel->files, folder, how, fds, progress);
    free(parcel);
    return durable;
}
