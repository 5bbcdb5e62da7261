"""What a caller asks store/durable.py to make durable: files with their names, and what may go then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

BATCH_FILES = 256  # files open at once


class FileSlice(NamedTuple):
    """``length`` octets from ``offset`` of the file at ``path``, copied in the commit thread."""

    path: str
    offset: int
    length: int


@dataclass(slots=True)
class NewFile:
    """One file and its names.

    ``parts``: its content; with ``adopt`` they are appended to that file instead.
    ``tmp``: a unique path in a ``tmp/`` folder of the same file system, used when the file must have a name
    before it is finished. ``names``: final names of the same content; where a hard link is impossible (other
    file system, too many links) it is copied, through the ``tmp/`` beside that name's folder.
    ``adopt``: an already written file; gone after success, as it was after failure.
    ``replace``: rename over an existing name; ``names`` is exactly one then.
    """

    parts: tuple[bytes | FileSlice, ...]
    tmp: str
    names: tuple[str, ...]
    adopt: str | None = None
    replace: bool = False


@dataclass(slots=True)
class Job:
    """``remove`` is unlinked after the names of ``files`` are synced, ``remove_then`` only when all of ``remove``
    is gone; what is missing already is fine."""

    files: tuple[NewFile, ...] = ()
    remove: tuple[str, ...] = ()
    remove_then: tuple[str, ...] = ()


class RemovalFailed(OSError):  # noqa: N818 - says what happened, like the other outcomes here
    """The names are durable, but something to be removed could not be unlinked: it may be seen again."""


def together(jobs: Iterable[Job]) -> int:
    """How many of the first ``jobs`` may be committed as one batch: at least one, if there is one.

    Removal comes last in a batch, so a job making a name that an earlier job removes must wait for the next.
    """
    count = files = 0
    removed: set[str] = set()
    for job in jobs:
        files += len(job.files)
        if count and files > BATCH_FILES:
            break
        if removed and not all(removed.isdisjoint(file.names) for file in job.files):
            break
        removed.update(job.remove, job.remove_then)
        count += 1
    return count
