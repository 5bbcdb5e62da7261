/* What takes many system calls, in one call (store/steps.py): outside the interpreter's lock, where the same
 * calls made one by one from Python wait for the event loop's thread every time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* Of these functions' arguments and meaning, and of those in the other files; steps.py wants the same number. */
const int steps_version = 8;

/* Close all. Nothing is left to fail: everything is synced, or given up. */
void close_files(const int *fds, int files)
{
    for (int i = 0; i < files; i++)
        close(fds[i]);
}

/* Remove `count` files, whatever becomes of the others. `paths`: each ends in NUL, one behind the other; errors[i] is 0
 * or says what prevented it, and `failed` counts those. */
struct removal {
    const char *paths;
    int *errors, count, failed;
};

void unlink_files(void *what)
{
    struct removal *all = what;
    const char *path = all->paths;
    for (int i = 0; i < all->count; i++, path += strlen(path) + 1) {
        all->errors[i] = unlink(path) < 0 ? errno : 0;
        all->failed += all->errors[i] != 0;
    }
}

/* A whole file into `data` if it has at most `most` octets (there is room for one more) and all of it is in memory, so
 * that nothing waits for a disk. Returns how many, or -1. */
long read_cached(const char *path, char *data, long most)
{
    struct { uint64_t flags, mode, resolve; } how = {O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, 0x20 /* RESOLVE_CACHED */};
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
