"""Memory for all messages being received: one budget, and a file for what does not fit.

A message is kept in memory up to MEMORY_MAX and while the budget lasts; beyond that its content goes to a
file in data_dir/tmp, slice by slice, written by a thread while the client is not read from. So memory is
bounded by the budget and one read per client on its way to disk, however many clients send however much.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

MEMORY_MAX = 1 << 20  # octets of one message kept in memory
SLICE = 65536  # octets gathered before the next write to a file
READ_AHEAD = 262_144  # octets a client may be expected to bring when it is read from again


class Budget:
    """Octets held by all transfers of one service against ``limit``.

    When it is used up, every client that is sending is told once (``squeeze``) to put what it has on
    disk or to wait; from then on clients are read from one after the other as room appears.
    """

    __slots__ = ("_readers", "_tight", "_waiting", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._tight = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._readers: dict[object, Callable[[], None]] = {}

    @property
    def exhausted(self) -> bool:
        """More is in memory than there should be."""
        return self.used > self.limit

    def take(self, octets: int, reader: object, squeeze: Callable[[], None]) -> None:
        """``reader`` holds so much more; the others are squeezed when that was too much."""
        self._readers[reader] = squeeze
        self.used += octets
        if self.used > self.limit and not self._tight:
            self._tight = True
            for other, others_squeeze in list(self._readers.items()):
                if other is not reader:
                    others_squeeze()

    def wait(self, room: asyncio.Future[None]) -> None:
        """``room`` gets its result when there is some again."""
        self._waiting.append(room)

    def give(self, octets: int, gone: object = None) -> None:
        """``octets`` have left memory; ``gone`` reads no more. At least one waiter goes on each time, so no
        silent client blocks the rest."""
        self._readers.pop(gone, None)
        self.used -= octets
        self._tight = self.used > self.limit
        for _ in range(min(len(self._waiting), max(1, (self.limit - self.used) // READ_AHEAD))):
            self._waiting.popleft().set_result(None)


class SpillFile:
    """A file that takes the head and content of one message. All methods block: they belong in a thread.

    Not synced and not named for delivery: that is for store/durable, which adopts ``path``.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str) -> None:
        self.path, self._descriptor = path, -1

    def write(self, chunks: list[bytes]) -> None:
        """Append. Raises OSError; the file is unusable then."""
        if self._descriptor < 0:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """No more is written."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def remove(self) -> None:
        """The message was refused or its client is gone: nothing was promised, so nothing needs to be
        durable."""
        try:
            self.close()
            os.unlink(self.path)
        except OSError:
            return  # never created, or a sick disk: data_dir/tmp is emptied at start anyway

    def read(self) -> bytes:
        """The whole content."""
        with open(self.path, "rb") as file:
            return file.read()


def clear(folder: str) -> None:
    """Empty data_dir/tmp at start: what a crash left there was never acknowledged. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
