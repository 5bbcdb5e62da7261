"""Jobs in the form that compiled code takes (commit.h), and how far it came with them."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from mailserver.store.job import BATCH_FILES, Job, NewFile


class How(IntEnum):
    """The last step of a batch: none here, fsync of the last file, or syncfs (commit.h has the same numbers)."""

    NOTHING, LAST, WHOLE = range(3)


class Progress(NamedTuple):
    """How far a batch came. ``fds``: of the first files, which are written; empty when all is ``durable``. ``named``:
    how many names were made, the first ones. ``error``: errno of the last sync, -1: not tried; ``seconds``: its time.
    """

    durable: bool = False
    fds: Sequence[int] = ()
    named: int = 0
    error: int = -1
    seconds: float = 0.0


class ProgressForm(ctypes.Structure):
    """``struct progress``"""

    _fields_ = (
        ("durable", ctypes.c_int), ("written", ctypes.c_int), ("named", ctypes.c_int), ("error", ctypes.c_int),
        ("time", ctypes.c_int64),
    )  # fmt: skip

    def read(self, fds: ctypes.Array[ctypes.c_int]) -> Progress:
        """``fds``: room that the descriptors were written to."""
        written = () if self.durable else fds[: self.written]
        return Progress(bool(self.durable), written, self.named, self.error, self.time / 1e9)


class Form(NamedTuple):
    """The arguments of parcel_new (parcel.c). The contents must stay until they are written."""

    files: int
    parts: int
    names: int
    removals: int
    numbers: bytes
    contents: ctypes.Array[ctypes.c_char_p]
    text: bytes
    size: int


FORM_TYPES = (
    ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p),
    ctypes.c_char_p, ctypes.c_long,
)  # fmt: skip


def form(jobs: Sequence[Job]) -> Form | None:
    """Of jobs that are ``together`` in one batch. None: compiled code cannot do all of it."""
    files = [file for job in jobs for file in job.files]
    if len(files) > BATCH_FILES or not all(map(_is_plain, files)):
        return None
    parts = [part for file in files for part in file.parts if type(part) is bytes]  # as all are
    paths = [name for file in files for name in file.names]
    names = len(paths)
    for job in jobs:
        paths += job.remove
    for job in jobs:
        paths += job.remove_then
    try:
        text = os.fsencode("\0".join(paths))
    except UnicodeEncodeError:
        return None
    if text.count(b"\0") != max(0, len(paths) - 1):  # a name that no file can have
        return None
    numbers = [
        *[len(file.parts) for file in files], *[len(file.names) for file in files], *map(len, parts)
    ]  # fmt: skip
    return Form(
        len(files), len(parts), names, len(paths) - names, struct.pack(f"={len(numbers)}q", *numbers),
        (ctypes.c_char_p * len(parts))(*parts), text, len(text) + 1,
    )  # fmt: skip


def _is_plain(file: NewFile) -> bool:
    """Such a file has a name, too: the last one of a batch is what is synced."""
    return (
        not file.replace
        and file.adopt is None
        and file.names != ()
        and all(type(part) is bytes for part in file.parts)
    )


def path_of(name: str) -> bytes:
    """As functions of ``os`` take it: C would take what stands before a NUL for the whole name. Raises ValueError."""
    path = os.fsencode(name)
    if b"\0" in path:
        raise ValueError("embedded null byte")
    return path
