"""What takes many system calls, in C (steps.c): one call for all, without the interpreter's lock.

Each of these system calls takes microseconds, but from Python each gives the lock away and has to wait for the event
loop's thread to get it back. The compiled file is made when the package is installed and a C compiler is there
(packaging/compile_steps.py). Without it the same is done call by call: STEPS is None.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from mailserver.store import crash

VERSION = 3  # of steps.c
COMPILED = Path(__file__).with_name("_steps.so")
NAMES_ROOM = 32_768, 1 << 19, 1 << 23, 1 << 27  # octets of the names of one folder: what is tried
_TOO_MANY = -2


class How(IntEnum):
    """The last step of a batch: none here, fsync of the last file, or syncfs (steps.c has the same numbers)."""

    NOTHING, LAST, WHOLE = range(3)


class Whole(NamedTuple):
    """A file to be written: its content and its names."""

    parts: Sequence[bytes]
    names: Sequence[str]


class Progress(NamedTuple):
    """How far a batch came. ``fds``: of the first files, which are written; empty when all is ``durable``. ``named``:
    how many names were made, the first ones. ``error``: errno of the last sync, -1: not tried; ``seconds``: its time.
    """

    durable: bool = False
    fds: Sequence[int] = ()
    named: int = 0
    error: int = -1
    seconds: float = 0.0


class _Batch(ctypes.Structure):
    _fields_ = (
        ("folder", ctypes.c_char_p), ("files", ctypes.c_int),
        ("part_counts", ctypes.POINTER(ctypes.c_int)), ("parts", ctypes.POINTER(ctypes.c_char_p)),
        ("sizes", ctypes.POINTER(ctypes.c_size_t)),
        ("name_counts", ctypes.POINTER(ctypes.c_int)), ("names", ctypes.POINTER(ctypes.c_char_p)),
        ("fds", ctypes.POINTER(ctypes.c_int)),
    )  # fmt: skip


class _Progress(ctypes.Structure):
    _fields_ = (
        ("written", ctypes.c_int), ("named", ctypes.c_int), ("error", ctypes.c_int), ("time", ctypes.c_int64),
    )  # fmt: skip


def _path(name: str) -> bytes:
    """As functions of ``os`` take it: C would take what stands before a NUL for the whole name."""
    path = os.fsencode(name)
    if b"\0" in path:
        raise ValueError("embedded null byte")
    return path


class Steps:
    """The functions of steps.c. Raises OSError when the file cannot be loaded or was made of another steps.c."""

    def __init__(self, path: Path = COMPILED) -> None:
        library = ctypes.CDLL(str(path))
        if ctypes.c_int.in_dll(library, "steps_version").value != VERSION:
            raise OSError(errno.ENOEXEC, "of another version", str(path))
        self._commit, self._link, self._close = library.commit_files, library.link_files, library.close_files
        self._unlink, self._list = library.unlink_files, library.list_files
        self._read = library.read_cached
        for function in (self._list, self._read):
            function.argtypes = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long
            function.restype = ctypes.c_long
        if crash.ARMED is not None:
            library.arm_crash(*crash.ARMED)

    def commit(self, folder: str, files: Sequence[Whole], how: How) -> Progress:
        """Write ``files``, which begin without a name in ``folder``, make their names, and sync."""
        count = len(files)
        parts = [part for file in files for part in file.parts]
        names = [_path(name) for file in files for name in file.names]
        fds, progress = (ctypes.c_int * count)(), _Progress()
        batch = _Batch(
            _path(folder), count,
            (ctypes.c_int * count)(*[len(file.parts) for file in files]),
            (ctypes.c_char_p * len(parts))(*parts), (ctypes.c_size_t * len(parts))(*map(len, parts)),
            (ctypes.c_int * count)(*[len(file.names) for file in files]),
            (ctypes.c_char_p * len(names))(*names), fds,
        )  # fmt: skip
        durable = self._commit(ctypes.byref(batch), how, ctypes.byref(progress))
        open_fds = () if durable else fds[: progress.written]
        return Progress(bool(durable), open_fds, progress.named, progress.error, progress.time / 1e9)

    def link(self, files: Sequence[tuple[int, Sequence[str]]]) -> int:
        """Give the file behind each descriptor its names. Returns how many names were made, the first ones."""
        count = len(files)
        names = [_path(name) for _, names in files for name in names]
        done: int = self._link(
            (ctypes.c_int * count)(*[fd for fd, _ in files]),
            (ctypes.c_int * count)(*[len(names) for _, names in files]),
            (ctypes.c_char_p * len(names))(*names), count,
        )  # fmt: skip
        return done

    def close(self, fds: Sequence[int]) -> None:
        """Close files of which nothing is expected any more."""
        self._close((ctypes.c_int * len(fds))(*fds), len(fds))

    def unlink(self, paths: Sequence[str]) -> list[int]:
        """Remove all of them; what prevented each (errno), 0 where nothing did."""
        count = len(paths)
        errors = (ctypes.c_int * count)()
        self._unlink((ctypes.c_char_p * count)(*map(_path, paths)), count, errors)
        return list(errors)

    def names(self, folder: str) -> list[str] | None:
        """The regular files in a folder, hidden ones left out; None: too many, or to be found out in another way."""
        for size in NAMES_ROOM:
            room = ctypes.create_string_buffer(size)
            used = self._list(_path(folder), room, size)
            if used >= 0:
                return os.fsdecode(ctypes.string_at(room, used)).split("\0")[:-1]
            if used != _TOO_MANY:
                break
        return None

    def read_cached(self, path: str, room: ctypes.Array[ctypes.c_char], most: int) -> bytes | None:
        """The whole file if it has at most ``most`` octets, one less than there is ``room``, and all are in memory."""
        got = self._read(_path(path), room, most)
        return None if got < 0 else ctypes.string_at(room, got)


def _loaded() -> Steps | None:
    try:
        return Steps()
    except (OSError, ValueError, AttributeError):  # none, or one of another version
        return None


STEPS = _loaded()
