"""Group commit: the only fsync, rename, link and unlink of mail in the tree.

A Job is all or nothing. One thread takes the jobs that arrived while the previous batch was on disk, in the
order they were submitted, and does for the whole batch, each step for all jobs before the next step begins:

1. write    every file's content, under no name (O_TMPFILE, in the nursery) or below ``tmp/``
2. push     the content to the device: started for all files, then waited for (sync_file_range)
3. name     link into place (an existing name is FileExistsError); ``replace`` renames over
4. sync     content, names and all: one fsync where the file system has one log, else one syncfs, or fsync of
            files and directories for a small batch that comes alone (sync.py)
5. remove   what the job says is settled (unlink, not synced: at worst a settled message is seen again)
6. report   to the loop, which resolves the futures of whole batches

Compiled code does that for batch after batch (belt.c) and gives Python the ones that it cannot do (disk.py).
So a name never exists on disk without the content it promises, and a future is resolved only when both are
there. The promise to the caller rests on step 4, one journal commit for the whole batch, and with one log on step 2
as well, which brings the content of all files to the device (docs/decisions/007-one-fsync.md). Everywhere step 2
keeps a power cut between 3 and 4 from leaving a name with half a content, of a message that nobody was promised
(docs/decisions/005-one-sync.md). A job that fails at 1–4 is undone (its names and temporary files are unlinked)
and only its future gets the OSError; one call for all at 4 fails for all. What cannot be undone: a ``replace`` that
was renamed stays; and after a failure at step 5 (RemovalFailed) the names stand.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from mailserver.store.belt import Taken
from mailserver.store.commit_thread import CommitThread
from mailserver.store.crash import CRASH_POINTS, crash_point
from mailserver.store.disk import Disk
from mailserver.store.job import FileSlice, Job, NewFile, RemovalFailed
from mailserver.store.parcel import Progress
from mailserver.store.steps import STEPS, Steps
from mailserver.store.sync import Sync, sync_directory
from mailserver.store.task import Task

__all__ = ["CRASH_POINTS", "Durable", "FileSlice", "Job", "NewFile", "RemovalFailed", "crash_point"]


class Durable:
    """Group commit for one event loop; ``commit`` is called in the loop's thread.

    ``nursery``: where files begin without a name (store/nursery.py); ``sync``: None for what fits the file system;
    ``steps``: compiled code, or None.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, nursery: Sequence[str] = (), *,
        sync: Sync | None = None, steps: Steps | None = STEPS,
    ) -> None:  # fmt: skip
        self._loop = loop
        # A file without a name gets one through /proc.
        folders = nursery if os.path.isdir("/proc/self/fd") else ()
        sync = sync or Sync(folders, time.monotonic)
        self._disk = Disk(folders, sync, steps)
        self._jobs = self._failed = 0
        self._thread = CommitThread(
            loop, steps, folders, orders=sync.orders, work=self._commit, settle=self._settle
        )

    def commit(self, job: Job) -> asyncio.Future[None]:
        """Make ``job`` durable. Its future: None, or the OSError that stopped it (RemovalFailed: see there).

        Jobs take effect in the order of the calls. A cancelled future does not stop the commit. ``job`` must not be
        changed before that: compiled code reads its octets where they lie. Raises RuntimeError after close().
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._thread.put(Task(job, future))
        return future

    def close(self) -> None:
        """Finish what was submitted, join the thread, resolve the futures. Blocking."""
        self._thread.close()

    def failures(self) -> int:
        """Jobs that failed since the start."""
        return self._failed

    def status(self) -> dict[str, int]:
        """Counts since the start: batches, jobs, failed jobs."""
        return {"batches": self._thread.batches, "jobs": self._jobs, "failed": self._failed}

    def _commit(self, batch: list[Task], taken: Taken) -> None:
        while batch:
            try:
                done = self._disk.commit(batch, taken)
            except Exception as bug:  # the thread must outlive a bug, and no waiter may wait for ever
                done = len(batch)
                for task in batch:
                    if task.error is None:
                        error = OSError(errno.EIO, f"commit failed: {bug!r}")
                        error.__cause__ = bug
                        task.fail(error)
            batch, taken = batch[done:], taken._replace(progress=Progress(), fast=0)

    def _settle(self, tasks: Sequence[Task]) -> None:
        crash_point("after-report")
        self._jobs += len(tasks)
        for task in tasks:
            if task.error is not None:
                self._failed += 1
            if task.future.done():
                continue
            if task.error is None:
                task.future.set_result(None)
            else:
                task.future.set_exception(task.error)


def discard(path: str) -> None:
    """Unlink, at start-up; what is missing already is fine. Blocking, not synced, raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def move(path: str, target: str) -> None:
    """Rename to a free name on the same file system and sync both folders. Blocking, raises OSError."""
    os.rename(path, target)
    for folder in {path.rpartition("/")[0], target.rpartition("/")[0]}:
        if (error := sync_directory(folder)) is not None:
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
        if (error := sync_directory(os.path.dirname(folder) or ".")) is not None:
            raise error
