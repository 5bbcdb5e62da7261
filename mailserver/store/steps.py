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
from pathlib import Path

VERSION = 2  # of steps.c
COMPILED = Path(__file__).with_name("_steps.so")
NAMES_ROOM = 32_768, 1 << 19, 1 << 23, 1 << 27  # octets of the names of one folder: what is tried
_TOO_MANY = -2


class Steps:
    """The functions of steps.c. Raises OSError when the file cannot be loaded or was made of another steps.c."""

    def __init__(self, path: Path = COMPILED) -> None:
        library = ctypes.CDLL(str(path))
        if ctypes.c_int.in_dll(library, "steps_version").value != VERSION:
            raise OSError(errno.ENOEXEC, "of another version", str(path))
        self._write, self._link, self._close = library.write_files, library.link_files, library.close_files
        self._unlink, self._list = library.unlink_files, library.list_files
        self._read = library.read_cached
        for function in (self._list, self._read):
            function.argtypes = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long
            function.restype = ctypes.c_long

    def write(self, folder: str, contents: Sequence[Sequence[bytes]]) -> list[int]:
        """Descriptors of new files without names in ``folder``, their content on the device: as many of the first
        of ``contents`` as went well."""
        count = len(contents)
        parts = [part for content in contents for part in content]
        fds = (ctypes.c_int * count)()
        done = self._write(
            os.fsencode(folder), count, (ctypes.c_int * count)(*map(len, contents)),
            (ctypes.c_char_p * len(parts))(*parts), (ctypes.c_size_t * len(parts))(*map(len, parts)), fds,
        )  # fmt: skip
        return fds[:done]

    def link(self, links: Sequence[tuple[int, str]]) -> int:
        """Give the file behind each descriptor that name. Returns how many of the first ones went well."""
        count = len(links)
        fds = (ctypes.c_int * count)(*[fd for fd, _ in links])
        names = (ctypes.c_char_p * count)(*[os.fsencode(name) for _, name in links])
        done: int = self._link(fds, names, count)
        return done

    def close(self, fds: Sequence[int]) -> None:
        """Close files of which nothing is expected any more."""
        self._close((ctypes.c_int * len(fds))(*fds), len(fds))

    def unlink(self, paths: Sequence[str]) -> list[int]:
        """Remove all of them; what prevented each (errno), 0 where nothing did."""
        count = len(paths)
        errors = (ctypes.c_int * count)()
        self._unlink((ctypes.c_char_p * count)(*map(os.fsencode, paths)), count, errors)
        return list(errors)

    def names(self, folder: str) -> list[str] | None:
        """The regular files in a folder, hidden ones left out; None: too many, or to be found out in another way."""
        for size in NAMES_ROOM:
            room = ctypes.create_string_buffer(size)
            used = self._list(os.fsencode(folder), room, size)
            if used >= 0:
                return os.fsdecode(ctypes.string_at(room, used)).split("\0")[:-1]
            if used != _TOO_MANY:
                break
        return None

    def read_cached(self, path: str, room: ctypes.Array[ctypes.c_char], most: int) -> bytes | None:
        """The whole file if it has at most ``most`` octets, one less than there is ``room``, and all are in memory."""
        got = self._read(os.fsencode(path), room, most)
        return None if got < 0 else ctypes.string_at(room, got)


def _loaded() -> Steps | None:
    try:
        return Steps()
    except (OSError, ValueError, AttributeError):  # none, or one of another version
        return None


STEPS = _loaded()
