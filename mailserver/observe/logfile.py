"""Where log lines go: standard error, or a file rotated by size that neither loses nor splits a line.

``write`` takes from the left of a deque exactly what reached the operating system; on OSError the rest stays
there, to be tried again. After opening, all of it runs in the log's writer thread.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import islice

CHUNK = 1 << 18  # octets handed to one write call


class Descriptor:
    """An open descriptor that is never rotated (standard error)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = (
            b""  # the whole of the line whose beginning is written and whose rest is first in the deque
        )

    def begin(self) -> None:
        """Called once, when the target's turn comes."""

    def write(self, lines: deque[bytes]) -> None:
        """Write and remove all ``lines``. Raises OSError with what is left still in ``lines``."""
        while lines:
            self._write_some(lines, CHUNK)

    def _write_some(self, lines: deque[bytes], room: int) -> int:
        """One write call with as many lines as fit into ``room`` (at least one); octets written."""
        chunk = b"".join(lines)
        if len(chunk) > room:
            chunk = _first(lines, room)
        written = left = os.write(self._fd, chunk)
        while left and left >= len(lines[0]):
            left -= len(lines.popleft())
            self._torn = b""
        if left:
            self._torn = self._torn or lines[0]
            lines[0] = lines[0][left:]
        return written

    def leave(self, lines: deque[bytes]) -> None:
        """Prepare ``lines`` for another target: a line written in part goes there whole."""
        if self._torn:
            lines[0] = self._torn

    def close(self) -> None:
        """Standard error is not ours to close."""


class RotatedFile(Descriptor):
    """``path``, renamed to ``path.1`` … ``path.<keep>`` before a line would exceed ``max_size`` octets.

    ``max_size`` 0 leaves rotation to another program (logrotate; see ``Log.reopen``). A single line larger
    than ``max_size`` gets a file of its own. Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: str, *, max_size: int, keep: int) -> None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._path, self._max_size, self._keep = path, max_size, keep
        super().__init__(_open(path))
        self._size = 0

    def begin(self) -> None:
        """Open again: since ``__init__`` a predecessor may have rotated the file or let it grow."""
        fd = _open(self._path)
        os.close(self._fd)
        self._fd, self._size = fd, _mend(fd, self._path)

    def write(self, lines: deque[bytes]) -> None:
        """As Descriptor.write; a failed rotation raises OSError too, once the lines are in the old file."""
        fault: OSError | None = None
        while lines:
            if self._is_full(lines[0]) and not fault:
                try:
                    self._rotate()
                except OSError as error:
                    fault = error
            room = max(self._max_size - self._size, 0) if self._max_size and not fault else CHUNK
            self._size += self._write_some(lines, min(room, CHUNK))
        if fault:
            raise fault

    def _is_full(self, line: bytes) -> bool:
        return bool(
            self._max_size and self._size and not self._torn and self._size + len(line) > self._max_size
        )

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = f"{self._path}.{number}"
            if os.path.exists(older):
                os.rename(older, f"{self._path}.{number + 1}")
        os.rename(self._path, f"{self._path}.1")
        try:
            fd = _open(self._path)
        except OSError:
            os.rename(f"{self._path}.1", self._path)  # go on in the file that is still open
            raise
        os.close(self._fd)
        self._fd, self._size = fd, os.fstat(fd).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _first(lines: deque[bytes], room: int) -> bytes:
    """The lines that fit into ``room``, at least one."""
    size, count = len(lines[0]), 1
    while count < len(lines) and size + len(lines[count]) <= room:
        size += len(lines[count])
        count += 1
    return b"".join(islice(lines, count))


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _mend(fd: int, path: str) -> int:
    """End a line that a crash of the machine left open, lest the next one is glued to it; the file's size."""
    size = os.fstat(fd).st_size
    if size:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                size += os.write(fd, b"\n")
    return size
