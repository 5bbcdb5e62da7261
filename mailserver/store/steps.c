/* What takes many system calls, in one call (store/steps.py): outside the interpreter's lock, where the same
 * calls made one by one from Python wait for the event loop's thread every time.
 *
 * The steps of a commit work from the first item on, stop at the first that fails, and tell how many they have done.
 * They never say why: the caller does the rest one by one in Python, meets the same failure, and deals with it there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* Of these functions' arguments and meaning, and of those in listing.c; steps.py wants the same number. */
const int steps_version = 5;

/* store/crash.py: a test kills the process at one of these, the first ones of CRASH_POINTS there. */
enum { BEFORE_WRITE, AFTER_WRITE, BEFORE_DATA_SYNC, AFTER_DATA_SYNC, BEFORE_NAME, AFTER_NAME, BEFORE_NAME_SYNC,
       AFTER_NAME_SYNC };
static int die_at = -1, die_count;

void arm_crash(int point, int count)
{
    die_at = point;
    die_count = count;
}

static void crash_point(int point)
{
    if (point == die_at && --die_count == 0)
        raise(SIGKILL);
}

enum { PARTS_MAX = 64 }; /* of one file; more is left to the caller */

/* Files begin without a name in `folder`. File i consists of the next part_counts[i] of `parts`, and is to have the
 * next name_counts[i] of `names`. fds[i] gets its descriptor. */
struct batch {
    const char *folder;
    int files;
    const int *part_counts;
    const char *const *parts;
    const size_t *sizes;
    const int *name_counts;
    const char *const *names;
    int *fds;
};

static int write_whole(int fd, const char *const *parts, const size_t *sizes, int count)
{
    struct iovec vector[PARTS_MAX];
    size_t size = 0;
    if (count > PARTS_MAX)
        return -1;
    for (int k = 0; k < count; k++) {
        vector[k] = (struct iovec){(void *)parts[k], sizes[k]};
        size += sizes[k];
    }
    /* A disk that fills up takes less than all; that is the caller's to find out. */
    return writev(fd, vector, count) == (ssize_t)size ? 0 : -1;
}

/* Make the files and bring their content to the device (no metadata, no flush of the device's cache). Only files that
 * are whole and there are counted, and only their descriptors are open. */
static int write_files(const struct batch *batch)
{
    const char *const *parts = batch->parts;
    const size_t *sizes = batch->sizes;
    int done, written, *fds = batch->fds;
    for (written = 0; written < batch->files; written++) {
        crash_point(BEFORE_WRITE);
        int count = batch->part_counts[written];
        int fd = open(batch->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            break;
        fds[written] = fd;
        if (write_whole(fd, parts, sizes, count) < 0) {
            close(fd);
            break;
        }
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        parts += count;
        sizes += count;
        crash_point(AFTER_WRITE);
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
int link_files(const int *fds, const int *counts, const char *const *names, int files)
{
    char self[40];
    int made = 0;
    for (int i = 0; i < files; i++) {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fds[i]);
        for (int end = made + counts[i]; made < end; made++) {
            crash_point(BEFORE_NAME);
            if (linkat(AT_FDCWD, self, AT_FDCWD, names[made], AT_SYMLINK_FOLLOW) < 0)
                return made;
            crash_point(AFTER_NAME);
        }
    }
    return made;
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* What became of a batch: files written, names made, what prevented the last sync (errno; -1: not tried), and how long
 * that took in nanoseconds. */
struct progress {
    int written, named, error;
    int64_t time;
};

enum { SYNC_NOTHING, SYNC_LAST, SYNC_WHOLE }; /* steps.py: How */

/* All steps of a batch. Returns whether all of it is durable; all is closed then, and else the caller goes on from
 * there with the descriptors of the `written` files. */
int commit_files(const struct batch *batch, int how, struct progress *progress)
{
    int files = batch->files, names = 0;
    *progress = (struct progress){.error = -1};
    for (int i = 0; i < files; i++)
        names += batch->name_counts[i];
    progress->written = write_files(batch);
    if (progress->written < files)
        return 0;
    progress->named = link_files(batch->fds, batch->name_counts, batch->names, files);
    if (progress->named < names || how == SYNC_NOTHING)
        return 0;
    crash_point(BEFORE_NAME_SYNC);
    int64_t start = nanoseconds(), last = batch->fds[files - 1];
    progress->error = (how == SYNC_LAST ? fsync(last) : syncfs(last)) < 0 ? errno : 0;
    progress->time = nanoseconds() - start;
    if (progress->error)
        return 0;
    crash_point(AFTER_NAME_SYNC);
    for (int i = 0; i < files; i++)
        close(batch->fds[i]);
    return 1;
}

/* Close all. Nothing is left to fail: everything is synced, or given up. */
void close_files(const int *fds, int files)
{
    for (int i = 0; i < files; i++)
        close(fds[i]);
}

/* Remove all `paths`, whatever becomes of the others; errors[i] is 0 or says what prevented it. */
void unlink_files(const char *const *paths, int count, int *errors)
{
    for (int i = 0; i < count; i++)
        errors[i] = unlink(paths[i]) < 0 ? errno : 0;
}

/* A whole file into `data` if it has at most `most` octets (there is room for one more) and all of it is in memory, so
 * that nothing waits for a disk. Returns how many, or -1. */
long read_cached(const char *path, char *data, long most)
{
    struct { uint64_t flags, mode, resolve; } how = {O_RDONLY | O_CLOEXEC, 0, 0x20 /* RESOLVE_CACHED */};
    long got, more = -1;
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (fd < 0)
        return -1;
    got = preadv2(fd, &(struct iovec){data, (size_t)most + 1}, 1, 0, RWF_NOWAIT);
    /* Only at the end of the file there is nothing more; elsewhere this fails. */
    if (got >= 0 && got <= most)
        more = preadv2(fd, &(struct iovec){data + got, 1}, 1, got, RWF_NOWAIT);
    close(fd);
    return more == 0 ? got : -1;
}

/* Whole files of up to `most` octets, one behind the other, into `room` of `size` octets. lengths[i] is how many octets
 * of file i, or -1: it is empty, larger, or has to be looked at more closely. Returns how many files were tried; fewer
 * than all when the room might not do. */
int read_files(const char *const *paths, int count, char *room, long size, long most, long *lengths)
{
    long used = 0;
    int i;
    for (i = 0; i < count && size - used > most; i++) {
        lengths[i] = -1;
        int fd = open(paths[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        long got = read(fd, room + used, (size_t)most + 1);
        close(fd);
        if (got > 0 && got <= most) {
            lengths[i] = got;
            used += got;
        }
    }
    return i;
}
