"""Memory for all messages being received: one budget, and a file for what does not fit.

A message is kept in memory up to MEMORY_MAX and while the budget lasts; beyond that its content goes to a
file in data_dir/tmp, slice by slice, written by a thread while the client is not read from. So memory is
bounded by the budget and one read per client on its way to disk, however many clients send however much.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

MEMORY_MAX = 1 << 20  # octets of one message kept in memory
SLICE = 65536  # octets gathered before the next write to a file
READ_AHEAD = 65536  # octets a client may be expected to bring when it is read from again


class Budget:
    """Octets held by all transfers of one service against ``limit``; clients that must wait for room."""

    __slots__ = ("_waiting", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def exhausted(self) -> bool:
        """More is in memory than there should be."""
        return self.used > self.limit

    def wait(self, room: asyncio.Future[None]) -> None:
        """``room`` gets its result when there is some again."""
        self._waiting.append(room)

    def give(self, octets: int) -> None:
        """``octets`` have left memory. At least one waiter goes on each time, so no silent client blocks
        the rest."""
        self.used -= octets
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
