/* What takes many system calls, in one call (store/steps.py): outside the interpreter's lock, where the same
 * calls made one by one from Python wait for the event loop's thread every time.
 *
 * The steps of a commit work from the first item on, stop at the first that fails, and return how many they have done.
 * They never say why: the caller does the rest one by one in Python, meets the same failure, and deals with it there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* Of these functions' arguments and meaning, and of those in listing.c; steps.py wants the same number. */
const int steps_version = 3;

enum { PARTS_MAX = 64 }; /* of one file; more is left to the caller */

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

/* Make `files` files without names in `folder` and bring their content to the device (no metadata, no flush of the
 * device's cache); file i consists of the next counts[i] of `parts`. fds[i] gets its descriptor. Only files that are
 * whole and there are counted, and only their descriptors are open. */
int write_files(const char *folder, int files, const int *counts, const char *const *parts, const size_t *sizes,
                int *fds)
{
    int done, written;
    for (written = 0; written < files; written++) {
        int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0)
            break;
        fds[written] = fd;
        if (write_whole(fd, parts, sizes, counts[written]) < 0) {
            close(fd);
            break;
        }
        sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        parts += counts[written];
        sizes += counts[written];
    }
    for (done = 0; done < written; done++)
        if (sync_file_range(fds[done], 0, 0,
                            SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) < 0)
            break;
    for (int i = done; i < written; i++)
        close(fds[i]);
    return done;
}

/* Give file fds[i] the name names[i]. */
int link_files(const int *fds, const char *const *names, int count)
{
    char self[40];
    for (int i = 0; i < count; i++) {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fds[i]);
        if (linkat(AT_FDCWD, self, AT_FDCWD, names[i], AT_SYMLINK_FOLLOW) < 0)
            return i;
    }
    return count;
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
