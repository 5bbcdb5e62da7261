"""Jobs in the form that compiled code takes (commit.h), and how far it came with them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from enum import IntEnum
from itertools import chain
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

    def read(self, fds: Sequence[int]) -> Progress:
        """``fds``: room that the descriptors were written to."""
        written = () if self.durable else fds[: self.written]
        return Progress(bool(self.durable), written, self.named, self.error, self.time / 1e9)


class ParcelForm(ctypes.Structure):
    """``struct parcel``. What its fields point to lives as long as it does."""

    _fields_ = (
        ("next", ctypes.c_void_p), ("plain", ctypes.c_int), ("files", ctypes.c_int), ("removals", ctypes.c_int),
        ("part_counts", ctypes.POINTER(ctypes.c_int)),
        ("parts", ctypes.POINTER(ctypes.c_char_p)), ("sizes", ctypes.POINTER(ctypes.c_size_t)),
        ("name_counts", ctypes.POINTER(ctypes.c_int)), ("names", ctypes.POINTER(ctypes.c_char_p)),
        ("remove", ctypes.POINTER(ctypes.c_char_p)),
    )  # fmt: skip


def form(jobs: Sequence[Job]) -> ParcelForm:
    """Of jobs that are ``together`` in one batch. If compiled code cannot do all of it, it is empty and not plain."""
    files = list(chain.from_iterable([job.files for job in jobs]))
    if len(files) > BATCH_FILES or not all(map(_is_plain, files)):
        return ParcelForm()
    parts = [part for file in files for part in file.parts if type(part) is bytes]  # as all are
    try:
        names = [path_of(name) for file in files for name in file.names]
        remove = [path_of(path) for job in jobs for path in job.remove]
        remove += [path_of(path) for job in jobs for path in job.remove_then]
    except ValueError:  # a name that no file can have
        return ParcelForm()
    numbers = ctypes.c_int * len(files)
    return ParcelForm(
        None, 1, len(files), len(remove), numbers(*[len(file.parts) for file in files]),
        (ctypes.c_char_p * len(parts))(*parts),
        (ctypes.c_size_t * len(parts))(*map(len, parts)),
        numbers(*[len(file.names) for file in files]), (ctypes.c_char_p * len(names))(*names),
        (ctypes.c_char_p * len(remove))(*remove),
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
