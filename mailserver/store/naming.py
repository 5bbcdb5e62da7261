"""Names for what is written: hard links into place, or a rename over what stands there.

A name that exists already is FileExistsError. Where a link is impossible (other file system, too many links) the
content is copied.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from mailserver.store.crash import crash_point
from mailserver.store.job import NewFile
from mailserver.store.steps import Steps
from mailserver.store.task import Task
from mailserver.store.write import OpenFile, copy, create


def make_names(tasks: Sequence[Task], steps: Steps | None, made: int = 0) -> None:
    """Give every file of ``tasks`` its names, in order; a task that cannot have them fails. The first ``made`` names
    are there already, and the next one cannot be had, if there is any."""
    left = made or (_linked_at_once(tasks, steps) if steps else 0)
    for task in tasks:
        try:
            for file in tuple(task.files):
                left = _name(task, file, left)
        except OSError as error:
            task.fail(error)
            left = 0  # a name that cannot be made comes after all that were made at once


def _linked_at_once(tasks: Sequence[Task], steps: Steps) -> int:
    """Link files without a name, as many as can be; how many names are made, the first ones."""
    files = [file for task in tasks for file in task.files]
    if any(file.tmp is not None for file in files):
        return 0
    return steps.link([(file.fd, file.spec.names) for file in files])


def _name(task: Task, file: OpenFile, linked: int) -> int:
    """One file; ``linked`` of the names that come next are made already. Returns how many of those are left."""
    if file.spec.replace and file.tmp:
        crash_point("before-name")
        os.rename(file.tmp, file.spec.names[0])
        file.tmp = None
        task.named.append(file)
        crash_point("after-name")
        return linked
    for name in file.spec.names:
        crash_point("before-name")
        if linked:
            linked -= 1
        else:
            file = _link(task, file, name)
        task.made.append(name)
        if file not in task.named[-1:]:
            task.named.append(file)
        crash_point("after-name")
    return linked


def _link(task: Task, file: OpenFile, name: str) -> OpenFile:
    """Returns the file that the next names are to be links to."""
    try:
        _link_one(file, name)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EMLINK}:
            raise
        file = _duplicate(task, file, name)
        _link_one(file, name)
    return file


def _link_one(file: OpenFile, name: str) -> None:
    if file.tmp is None:
        # Any src_dir_fd makes CPython call linkat, which follows the link in /proc; link(2) would not.
        os.link(f"/proc/self/fd/{file.fd}", name, src_dir_fd=file.fd, follow_symlinks=True)
    else:
        os.link(file.tmp, name)


def _duplicate(task: Task, file: OpenFile, name: str) -> OpenFile:
    """A synced copy of ``file`` in the tmp/ that belongs to ``name``'s folder."""
    folder, _, base = name.rpartition("/")
    tmp = f"{folder.rpartition('/')[0]}/tmp/{base}"  # noqa: S108 - the Maildir's or the spool's tmp
    twin = create(NewFile((), tmp, ()))
    task.files.append(twin)
    copy(twin.fd, file.fd, 0, os.fstat(file.fd).st_size)
    os.fdatasync(twin.fd)
    return twin
