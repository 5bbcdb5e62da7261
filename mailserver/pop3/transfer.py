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
from typing import Literal

from mailserver.pop3.protocol import TERMINATOR
from mailserver.pop3.stuffing import Stuffing
from mailserver.pop3.surrogate import header_end, is_conventional, to_ascii
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


Header = Literal["convert", "as-is", "refuse"]  # what is done about UTF-8 in a message's header


class HeaderInUtf8(Exception):  # noqa: N818 - says the fact
    """It has no other form to be sent in."""


class Transfer:
    """A message on its way out: header line, wire form in slices, terminating line.

    ``cached`` gives the next piece if that needs no disk, else None, and ``blocking`` (in a thread) gives it.
    Raises OSError when the file cannot be read to its end: the reply has begun then, so only hanging up is
    honest. ``growth``: octets on the wire by which a converted header is longer (RFC 6858).
    """

    __slots__ = ("_end", "_fd", "_header", "_offset", "_stuffing", "finished", "growth")

    def __init__(self, content: Content, lines: int | None, header: Header) -> None:
        """Opens the file; blocking. Raises OSError, and HeaderInUtf8 where that is to be refused."""
        self._fd = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = content.offset
        self._end = content.offset + content.length
        self._stuffing = Stuffing(lines)
        self._header = b""  # the converted one, still to be sent
        self.growth = 0
        self.finished = False
        if header != "as-is":
            try:
                self._look_at_header(header)
            except Exception:
                self.close()
                raise

    def _look_at_header(self, header: Header) -> None:
        """A header that is larger than SLICE is left as it is: everybody would rather have it so than not."""
        start = os.pread(self._fd, min(SLICE, self._end - self._offset), self._offset)
        end = header_end(start)
        if end is None and len(start) < SLICE:
            end = len(start)  # a header without a body
        old = start[: end or 0]
        if is_conventional(old) or (new := to_ascii(old)) == old:
            return
        if header == "refuse":
            raise HeaderInUtf8
        self._header = new
        self._offset += len(old)
        self.growth = _on_wire(new) - _on_wire(old)

    def cached(self) -> bytes | None:
        """The next piece of wire form, or None."""
        if self._header:
            header, self._header = self._header, b""
            return self._sent(header)
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
        return self._sent(data)

    def _sent(self, data: bytes) -> bytes:
        wire = self._stuffing.feed(data) if data else b""
        if self._stuffing.done or self._offset == self._end:
            self.finished = True
            wire += self._stuffing.finish()
        return wire

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._fd)


def _on_wire(lines: bytes) -> int:
    return len(lines) + lines.count(b"\n") - lines.count(b"\r\n")


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
