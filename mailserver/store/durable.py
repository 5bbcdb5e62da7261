"""Group commit: the only fsync, rename, link and unlink of mail in the tree.

A Job is all or nothing. One thread takes the jobs that arrived while the previous batch was on disk, in the
order they were submitted, and does for the whole batch, each step for all jobs before the next step begins:

1. write    every file's content, under no name (O_TMPFILE, in the nursery) or below ``tmp/``
2. push     the content to the device: started for all files, then waited for (sync_file_range)
3. name     link into place (an existing name is FileExistsError); ``replace`` renames over
4. sync     content, names and all: fsync of files and directories, or one syncfs for a large batch
5. remove   what the job says is settled (unlink, not synced: at worst a settled message is seen again)
6. report   the futures, all in one call into the loop

So a name never exists on disk without the content it promises, and a future is resolved only when both are
there. The promise to the caller rests on step 4 alone, one journal commit for the whole batch; step 2 keeps a
power cut between 3 and 4 from leaving a name with half a content, of a message that nobody was promised
(docs/decisions/005-one-sync.md). A job that fails at 1–4 is undone (its names and temporary files are unlinked)
and only its future gets the OSError. What cannot be undone: a ``replace`` that was renamed stays; and after a
failure at step 5 (RemovalFailed) the names stand.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle

from mailserver.store.batches import BatchThread
from mailserver.store.crash import CRASH_POINTS, crash_point
from mailserver.store.job import FileSlice, Job, NewFile, RemovalFailed, together
from mailserver.store.write import OpenFile, copy, create, fill, start_writing, wait_written

__all__ = ["CRASH_POINTS", "Durable", "FileSlice", "Job", "NewFile", "RemovalFailed", "crash_point"]

ONE_BY_ONE = 2  # files; measured: from three on, one syncfs beats an fdatasync for each
# Seconds, and for each file: syncfs calls that take longer write somebody else's data. After SLOW_ROW of them in a
# row fdatasync is faster, and the next SLOW_BATCHES go file by file.
SLOW_SYNC, SLOW_FILE, SLOW_ROW, SLOW_BATCHES = 0.01, 0.001, 4, 32

_libc = ctypes.CDLL(None, use_errno=True)


class _Task:
    """A job under way. ``made``: names it has made so far, what undo removes."""

    __slots__ = ("error", "files", "future", "job", "made")

    def __init__(self, job: Job, future: asyncio.Future[None]) -> None:
        self.job, self.future = job, future
        self.files: list[OpenFile] = []
        self.made: list[str] = []
        self.error: OSError | None = None

    def fail(self, error: OSError) -> None:
        """Undo: after this nothing of the job is visible. Best effort, for the disk may be sick."""
        self.error = error
        for name in self.made:
            with suppress(OSError):
                os.unlink(name)
        for file in self.files:
            with suppress(OSError):
                if file.grown >= 0:
                    os.ftruncate(file.fd, file.grown)
                elif file.tmp:
                    os.unlink(file.tmp)
            with suppress(OSError):
                os.close(file.fd)
        self.files = []
        self.made = []


class Durable:
    """Group commit for one event loop; ``commit`` is called in the loop's thread.

    ``nursery``: where files begin without a name (store/nursery.py); ``now`` measures how long syncs take
    (seconds, monotonic).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, nursery: Sequence[str] = (), *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._disk = _Disk(nursery, now)
        self._batches = self._jobs = self._failed = 0
        self._thread = BatchThread(loop, _cut, self._commit)

    def commit(self, job: Job) -> asyncio.Future[None]:
        """Make ``job`` durable. Its future: None, or the OSError that stopped it (RemovalFailed: see there).

        Jobs take effect in the order of the calls. A cancelled future does not stop the commit. Raises
        RuntimeError after close().
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._thread.put(_Task(job, future))
        return future

    def close(self) -> None:
        """Finish what was submitted, join the thread. Blocking; the loop's next turn resolves the futures."""
        self._thread.close()

    def status(self) -> dict[str, int]:
        """Counts since the start: batches, jobs, failed jobs."""
        return {"batches": self._batches, "jobs": self._jobs, "failed": self._failed}

    def _commit(self, batch: list[_Task]) -> int:
        try:
            done = self._disk.commit(batch)
        except Exception as bug:  # the thread must outlive a bug, and no waiter may wait for ever
            done = len(batch)
            for task in batch:
                if task.error is None:
                    error = OSError(errno.EIO, f"commit failed: {bug!r}")
                    error.__cause__ = bug
                    task.fail(error)
        told = batch[:done]
        self._batches += 1
        self._jobs += done
        self._failed += sum(task.error is not None for task in told)
        crash_point("before-report")
        with suppress(RuntimeError):  # the loop was closed before us: nobody is left to hear
            self._loop.call_soon_threadsafe(_report, told)
        return done


def _report(batch: list[_Task]) -> None:
    crash_point("after-report")
    for task in batch:
        if not task.future.done():
            if task.error is None:
                task.future.set_result(None)
            else:
                task.future.set_exception(task.error)


def _cut(queued: deque[_Task]) -> list[_Task]:
    return [queued.popleft() for _ in range(together(task.job for task in queued))]


class _Disk:
    """The steps of one batch."""

    def __init__(self, nursery: Sequence[str], now: Callable[[], float]) -> None:
        self._now = now
        self._slow = 0  # syncfs calls in a row
        self._avoid_syncfs = 0  # batches
        # A file without a name gets one through /proc.
        self._nursery = cycle(nursery if nursery and os.path.isdir("/proc/self/fd") else (None,))

    def commit(self, batch: list[_Task]) -> int:
        """Each task's ``error`` says how it went. Returns how many were taken: fewer than all when
        descriptors ran out, and the rest is to be tried again."""
        whole = sum(len(task.job.files) for task in batch) > ONE_BY_ONE and not self._avoid_syncfs
        self._avoid_syncfs -= self._avoid_syncfs > 0
        done = self._write(batch)
        tasks = [task for task in batch[:done] if task.files]
        if tasks:
            crash_point("before-data-sync")
            _push(tasks)
            crash_point("after-data-sync")
            for task in tasks:
                if task.error is None:
                    self._name(task)
            crash_point("before-name-sync")
            self._sync(tasks, whole)
            crash_point("after-name-sync")
            for task in tasks:
                _finish(task)
        for task in batch[:done]:
            if task.job.remove and task.error is None:
                task.error = _remove(task.job)
        return done

    # ---- 1. write ------------------------------------------------------------------------------------------
    def _write(self, batch: list[_Task]) -> int:
        nursery = next(self._nursery)
        for number, task in enumerate(batch):
            try:
                for spec in task.job.files:
                    crash_point("before-write")
                    file = create(spec, nursery)
                    task.files.append(file)
                    fill(file.fd, spec.parts)
                    crash_point("after-write")
            except OSError as error:
                task.fail(error)
                if number and error.errno in {errno.EMFILE, errno.ENFILE}:
                    task.error = None  # our own batch holds the descriptors: commit it, then try again
                    return number
        return len(batch)

    # ---- 4. sync -------------------------------------------------------------------------------------------
    def _sync(self, tasks: list[_Task], whole: bool) -> None:
        tasks = [task for task in tasks if task.error is None]
        if whole and self._sync_file_systems(tasks):
            return
        # Also after a failed syncfs: each descriptor is told of its own file's errors, so this finds the job.
        for task in tasks:
            try:
                for file in task.files:
                    os.fsync(file.fd)  # the first one commits the journal for all
            except OSError as error:
                task.fail(error)
        _sync_directories(tasks)

    def _sync_file_systems(self, tasks: list[_Task]) -> bool:
        devices: dict[int, int] = {}
        folders: set[str] = set()
        for task in tasks:
            for file in task.files:
                if file.folder not in folders:
                    folders.add(file.folder)
                    devices.setdefault(os.fstat(file.fd).st_dev, file.fd)
        start = self._now()
        ok = all(_libc.syncfs(fd) == 0 for fd in devices.values())
        slow = self._now() - start > SLOW_SYNC + SLOW_FILE * sum(len(task.files) for task in tasks)
        self._slow = self._slow + 1 if slow else 0
        if self._slow >= SLOW_ROW:
            self._slow, self._avoid_syncfs = 0, SLOW_BATCHES
        return ok

    # ---- 3. name -------------------------------------------------------------------------------------------
    def _name(self, task: _Task) -> None:
        try:
            for file in tuple(task.files):
                if file.spec.replace and file.tmp:
                    crash_point("before-name")
                    os.rename(file.tmp, file.spec.names[0])
                    file.tmp = None
                    crash_point("after-name")
                else:
                    _link(task, file)
        except OSError as error:
            task.fail(error)


def _push(tasks: list[_Task]) -> None:
    """Content to the device: writing is started for all files before the first is waited for."""
    for task in tasks:
        for file in task.files:
            start_writing(file.fd)
    for task in tasks:
        try:
            for file in task.files:
                if not wait_written(file.fd):
                    os.fdatasync(file.fd)
        except OSError as error:
            task.fail(error)


def _finish(task: _Task) -> None:
    """It cannot fail any more: close, and drop the names below tmp/ (start-up cleans up one that stays)."""
    for file in task.files:
        if file.tmp is not None:
            crash_point("before-tmp-unlink")
            with suppress(OSError):
                os.unlink(file.tmp)
            crash_point("after-tmp-unlink")
        with suppress(OSError):
            os.close(file.fd)
    task.files = []
    task.made = []


def _link(task: _Task, file: OpenFile) -> None:
    for name in file.spec.names:
        crash_point("before-name")
        try:
            _link_one(file, name)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EMLINK}:
                raise
            file = _duplicate(task, file, name)  # the next names are linked to the copy
            _link_one(file, name)
        task.made.append(name)
        crash_point("after-name")


def _link_one(file: OpenFile, name: str) -> None:
    if file.tmp is None:
        # Any src_dir_fd makes CPython call linkat, which follows the link in /proc; link(2) would not.
        os.link(f"/proc/self/fd/{file.fd}", name, src_dir_fd=file.fd, follow_symlinks=True)
    else:
        os.link(file.tmp, name)


def _duplicate(task: _Task, file: OpenFile, name: str) -> OpenFile:
    """A synced copy of ``file`` in the tmp/ that belongs to ``name``'s folder."""
    folder, _, base = name.rpartition("/")
    tmp = f"{folder.rpartition('/')[0]}/tmp/{base}"  # noqa: S108 - the Maildir's or the spool's tmp
    twin = create(NewFile((), tmp, ()))
    task.files.append(twin)
    copy(twin.fd, file.fd, 0, os.fstat(file.fd).st_size)
    os.fdatasync(twin.fd)
    return twin


def _sync_directories(tasks: list[_Task]) -> None:
    """Each directory once; its failure is that of every job that has a name there."""
    synced: dict[str, OSError | None] = {}
    for task in tasks:
        for folder in {name.rpartition("/")[0] for file in task.files for name in file.spec.names}:
            if folder not in synced:
                synced[folder] = _sync_directory(folder)
            error = synced[folder]
            if error is not None and task.error is None:
                task.fail(error)


def _sync_directory(folder: str) -> OSError | None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error
    return None


def discard(path: str) -> None:
    """Unlink, at start-up; what is missing already is fine. Blocking, not synced, raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def discard_all(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Unlink beside the commits, not synced: for mail whose owner no longer wants it. What was missing, and what
    cannot be unlinked. Blocking."""
    missing, stuck = list[str](), list[str]()
    for path in paths:
        crash_point("before-remove")
        try:
            os.unlink(path)
        except FileNotFoundError:
            missing.append(path)
        except OSError:
            stuck.append(path)
            continue
        crash_point("after-remove")
    return missing, stuck


def move(path: str, target: str) -> None:
    """Rename to a free name on the same file system and sync both folders. Blocking, raises OSError."""
    os.rename(path, target)
    for folder in {path.rpartition("/")[0], target.rpartition("/")[0]}:
        if (error := _sync_directory(folder)) is not None:
            raise error


def make_directory(path: str) -> None:
    """Make it and its parents (mode 0700) where missing, their names synced. Blocking, raises OSError."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path) or "."
    for folder in reversed(missing):
        with suppress(FileExistsError):  # somebody else was faster
            os.mkdir(folder, 0o700)
        if (error := _sync_directory(os.path.dirname(folder) or ".")) is not None:
            raise error


def _remove(job: Job) -> OSError | None:
    return _unlink(job.remove) or _unlink(job.remove_then)


def _unlink(paths: tuple[str, ...]) -> OSError | None:
    failure: OSError | None = None
    for path in paths:
        crash_point("before-remove")
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            failure = RemovalFailed(error.errno, error.strerror, path)
        crash_point("after-remove")
    return failure
