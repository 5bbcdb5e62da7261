"""The steps of one batch of jobs, in the order that durable.py explains."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

from mailserver.store.belt import Taken
from mailserver.store.crash import crash_point
from mailserver.store.job import RemovalFailed
from mailserver.store.naming import make_names
from mailserver.store.parcel import How, Progress, path_of
from mailserver.store.removal import unlink_each
from mailserver.store.steps import Steps
from mailserver.store.sync import Sync
from mailserver.store.task import Task
from mailserver.store.write import OpenFile, create, fill, start_writing, wait_written


class Disk:
    """``nursery``: folders in which files begin without a name; ``steps``: None when there is no compiled code."""

    def __init__(self, nursery: Sequence[str], sync: Sync, steps: Steps | None) -> None:
        self._sync, self._steps = sync, steps
        self._nursery = cycle(nursery or (None,))

    def commit(self, batch: list[Task], taken: Taken) -> int:
        """What is left of a batch. Each task's ``error`` says how it went. Returns how many were done: fewer than all
        when descriptors ran out, and the rest is to be tried again."""
        nursery = next(self._nursery)
        files, how, progress = [file for task in batch for file in task.job.files], taken.how, taken.progress
        if taken.fast:
            self._sync.was_fast()
        if progress.error < 0 and not progress.fds:  # nothing is done yet
            refused = _refuse(batch)
            names = sum(len(file.names) for file in files)
            how = self._sync.how(nursery, len(files), names, rested=taken.rested)
            if self._steps is not None and nursery is not None and not refused:
                progress = self._steps.commit(nursery, [task.job for task in batch], how)
        if how is How.WHOLE and progress.error >= 0:
            self._sync.took(progress.seconds, len(files), progress.error)
        done = len(batch)
        if not progress.durable:
            done = _write_each(batch, nursery, progress.fds)
            self._complete([task for task in batch[:done] if task.files], how, progress)
        _remove(batch[:done], self._steps)
        return done

    # ---- step by step ----------------------------------------------------------------------------------------
    def _complete(self, tasks: list[Task], how: How, progress: Progress) -> None:
        """What is written becomes durable; a part of that may be done."""
        if not tasks:
            return
        crash_point("before-data-sync")
        _push(tasks)
        crash_point("after-data-sync")
        make_names([task for task in tasks if task.error is None], self._steps, progress.named)
        crash_point("before-name-sync")
        if progress.error > 0:  # which files it is about, no second call would tell
            for task in tasks:
                task.fail(OSError(progress.error, os.strerror(progress.error)))
        else:
            self._sync.all(tasks, how)
        crash_point("after-name-sync")
        self._finish(tasks)

    def _finish(self, tasks: list[Task]) -> None:
        """It cannot fail any more: close, and drop the names below tmp/ (start-up cleans up one that stays)."""
        fds = []
        for task in tasks:
            for file in task.files:
                if file.tmp is not None:
                    crash_point("before-tmp-unlink")
                    with suppress(OSError):
                        os.unlink(file.tmp)
                    crash_point("after-tmp-unlink")
                fds.append(file.fd)
            task.files = []
            task.made = []
            task.named = []
        if self._steps is not None:
            self._steps.close(fds)
            return
        for fd in fds:
            with suppress(OSError):
                os.close(fd)


def _refuse(batch: Sequence[Task]) -> bool:
    """A job with a path that no file can have fails, alone; whether there is any. Below, it would fail for all."""
    for task in batch:
        job = task.job
        try:
            for path in (name for file in job.files for name in (file.adopt or file.tmp, *file.names)):
                path_of(path)
            for path in (*job.remove, *job.remove_then):
                path_of(path)
        except ValueError as error:
            task.fail(OSError(errno.EINVAL, f"no name of a file: {error}"))
    return any(task.error is not None for task in batch)


def _write_each(batch: list[Task], nursery: str | None, fds: Sequence[int]) -> int:
    """One by one. ``fds``: of the first files, which are written; then the batch has none but plain ones. Returns how
    many tasks there were descriptors for."""
    written = iter(fds)
    for number, task in enumerate(batch):
        if task.error is not None:
            continue
        try:
            for spec in task.job.files:
                crash_point("before-write")
                fd = next(written, None)
                file = (
                    create(spec, nursery)
                    if fd is None
                    else OpenFile(spec, fd, nursery or "", None, pushed=True)
                )
                task.files.append(file)
                if not file.pushed:
                    fill(file.fd, spec.parts)
                crash_point("after-write")
        except OSError as error:
            task.fail(error)
            if number and error.errno in {errno.EMFILE, errno.ENFILE}:
                task.error = None  # our own batch holds the descriptors: commit it, then try again
                return number
    return len(batch)


def _push(tasks: list[Task]) -> None:
    """Content to the device: writing is started for all files before the first is waited for."""
    files = [file for task in tasks for file in task.files if not file.pushed]
    for file in files:
        start_writing(file.fd)
    if not files:
        return
    for task in tasks:
        try:
            for file in task.files:
                if not file.pushed and not wait_written(file.fd):
                    os.fdatasync(file.fd)
        except OSError as error:
            task.fail(error)


def _remove(tasks: Sequence[Task], steps: Steps | None) -> None:
    """What the jobs say is settled; ``remove_then`` only of those of which all of ``remove`` is gone."""
    for then in (False, True):
        owed = [
            (task, path)
            for task in tasks
            if task.error is None
            for path in (task.job.remove_then if then else task.job.remove)
        ]
        errors = unlink_each([path for _, path in owed], steps) if owed else []
        for (task, path), error in zip(owed, errors, strict=True):
            if error not in {0, errno.ENOENT}:
                task.error = RemovalFailed(error, os.strerror(error), path)
