"""A stored message's bytes, wherever they lie: a range of a file. Line ends are LF."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

# Another program may put a FIFO in a message's place, which must not be waited for; to read it at an offset fails.
READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Content(NamedTuple):
    """``length`` octets from ``offset`` of the file at ``path``; ``data``: they themselves, in memory too."""

    path: str
    offset: int
    length: int
    data: bytes | None = None

    def read(self) -> bytes:
        """All of it. Blocking: beyond 256 KiB call it in a thread. Raises OSError; EIO when short."""
        if self.data is not None:
            return self.data
        fd = os.open(self.path, READ_ONLY)
        try:
            data = os.pread(fd, self.length, self.offset)
            while len(data) < self.length:  # one pread brings at most 2 GiB
                more = os.pread(fd, self.length - len(data), self.offset + len(data))
                if not more:
                    raise OSError(errno.EIO, "file is shorter than it should be", self.path)
                data += more
        finally:
            os.close(fd)
        return data

    def chunks(self, size: int = 262144) -> Iterator[bytes]:
        """Pieces of ``size`` octets, the last one shorter. Blocking, each step. Raises OSError like read().

        The file is opened at the first step and stays readable to the end even if it is unlinked meanwhile.
        """
        fd = os.open(self.path, READ_ONLY)
        try:
            offset, end = self.offset, self.offset + self.length
            while offset < end:
                piece = os.pread(fd, min(size, end - offset), offset)
                if not piece:
                    raise OSError(errno.EIO, "file is shorter than it should be", self.path)
                offset += len(piece)
                yield piece
        finally:
            os.close(fd)
