"""The steps of a batch that are done in C (steps.c): one call each, without the interpreter's lock.

Each of these system calls takes microseconds, but from Python each gives the lock away and has to wait for the event
loop's thread to get it back. The compiled file is made when the package is installed and a C compiler is there
(packaging/compile_steps.py). Without it the same is done call by call: STEPS is None.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

COMPILED = Path(__file__).with_name("_steps.so")


class Steps:
    """The functions of steps.c. Raises OSError when the file cannot be loaded."""

    def __init__(self, path: Path = COMPILED) -> None:
        library = ctypes.CDLL(str(path))
        self._write, self._link, self._close = library.write_files, library.link_files, library.close_files

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


def _loaded() -> Steps | None:
    try:
        return Steps()
    except (OSError, AttributeError):  # none, or one of another version
        return None


STEPS = _loaded()
