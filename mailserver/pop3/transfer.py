"""Reading a message for RETR and TOP without ever waiting for a disk on the event loop.

What the kernel has in memory is read at once: ``openat2`` with RESOLVE_CACHED and ``preadv2`` with RWF_NOWAIT
fail instead of sleeping. What would sleep is read by a thread. A thread for every message would cost more
than the whole rest of RETR (some 50 µs against 15), hence the effort.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

from mailserver.pop3.protocol import TERMINATOR
from mailserver.pop3.stuffing import Stuffing
from mailserver.store.content import Content

SLICE = 256 << 10  # octets read (and held) at once, whatever the message's size

_OPENAT2 = 437  # the same number on every architecture Linux got since it exists (5.6)
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20  # Linux 5.12


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(os.O_RDONLY | os.O_CLOEXEC, 0, _RESOLVE_CACHED)
_HOW_POINTER = ctypes.byref(_HOW)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long

_scratch = bytearray(SLICE + 1)  # the loop thread's only buffer to read into
_SCRATCH = memoryview(_scratch)
_ONE_OCTET = (bytearray(1),)
_NOWAIT = os.RWF_NOWAIT


def read_cached(path: str, most: int) -> bytes | None:
    """The whole file if it has at most ``most`` (not above SLICE) octets and all are in memory; None: ask a
    thread (or it is gone)."""
    fd = _syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), _HOW_POINTER, 24)
    if fd < 0:
        return None
    try:
        got = os.preadv(fd, (_SCRATCH[: most + 1],), 0, _NOWAIT)
        # A short read is the end of the file or of what is in memory. Only at the end of the file there is
        # nothing more; elsewhere this fails (and costs half of what fstat does).
        return None if got > most or os.preadv(fd, _ONE_OCTET, got, _NOWAIT) else bytes(_SCRATCH[:got])
    except OSError:
        return None
    finally:
        os.close(fd)


class Transfer:
    """A message on its way out: header line, wire form in slices, terminating line.

    ``cached`` gives the next piece if that needs no disk, else None, and ``blocking`` (in a thread) gives it.
    Raises OSError when the file cannot be read to its end: the reply has begun then, so only hanging up is
    honest.
    """

    __slots__ = ("_end", "_fd", "_offset", "_stuffing", "finished")

    def __init__(self, content: Content, lines: int | None) -> None:
        """Opens the file; blocking. Raises OSError."""
        self._fd = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = content.offset
        self._end = content.offset + content.length
        self._stuffing = Stuffing(lines)
        self.finished = False

    def cached(self) -> bytes | None:
        """The next piece of wire form, or None."""
        want = min(SLICE, self._end - self._offset)
        if not want:
            return self._piece(b"")
        try:
            got = os.preadv(self._fd, (_SCRATCH[:want],), self._offset, _NOWAIT)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:
                return None
            raise
        return self._piece(bytes(_SCRATCH[:got]))

    def blocking(self) -> bytes:
        """The next piece of wire form; may wait for the disk."""
        return self._piece(os.pread(self._fd, min(SLICE, self._end - self._offset), self._offset))

    def _piece(self, data: bytes) -> bytes:
        if not data and self._offset < self._end:
            raise OSError(errno.EIO, "the message became shorter while it was read")
        self._offset += len(data)
        wire = self._stuffing.feed(data) if data else b""
        if self._stuffing.done or self._offset == self._end:
            self.finished = True
            wire += self._stuffing.finish()
        return wire

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._fd)


class Listing:
    """LIST or UIDL of a large maildrop on its way out: the parts, then the terminating line. Never blocks."""

    __slots__ = ("_parts", "finished")

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self.finished = False

    def cached(self) -> bytes:
        """The next part."""
        part = next(self._parts, None)
        if part is None:
            self.finished = True
            return TERMINATOR
        return part

    def close(self) -> None:
        """Nothing is held."""
