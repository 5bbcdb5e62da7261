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
from mailserver.store.content import READ_ONLY, Content
from mailserver.store.steps import STEPS
from mailserver.store.wire import Octets

SLICE = 64 << 10  # octets read (and held) at once: in the processor's cache, and malloc(3) need not map them
HEADER_MAX = 256 << 10  # octets of a header that may be converted

_OPENAT2 = 437  # the same number on every architecture Linux got since it exists (5.6)
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20  # Linux 5.12


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(READ_ONLY, 0, _RESOLVE_CACHED)
_HOW_POINTER = ctypes.byref(_HOW)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long

_scratch = bytearray(SLICE)  # the loop thread's only buffer to read into
_SCRATCH = memoryview(_scratch)
_room = ctypes.create_string_buffer(SLICE)  # the same for compiled code
_NOWAIT = os.RWF_NOWAIT


def _open_now(path: str) -> int:
    """-1: that might wait for the disk, or fails."""
    return int(_syscall(_OPENAT2, _AT_FDCWD, os.fsencode(path), _HOW_POINTER, 24))


def _read_now(fd: int, offset: int, most: int) -> int:
    """How many octets of the file are in _scratch now; fewer than ``most`` (SLICE at most) are its end or that of
    what is in memory. Raises OSError: EAGAIN when none is in memory."""
    return os.preadv(fd, (_SCRATCH[:most],), offset, _NOWAIT)


def read_cached(path: str, most: int) -> bytes | None:
    """The whole file if it has at most ``most`` octets, fewer than SLICE, and all are in memory; None: ask a thread
    (or it is gone)."""
    if STEPS is not None:
        return STEPS.read_cached(path, _room, most)
    fd = _open_now(path)
    if fd < 0:
        return None
    try:
        got = _read_now(fd, 0, most + 1)
        if got > most:
            return None
        data = bytes(_scratch[:got])
        # Only at the end of the file there is nothing more; elsewhere this fails (at half of what fstat costs).
        return None if _read_now(fd, got, 1) else data
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

    def __init__(self, fd: int, offset: int, end: int, lines: int | None) -> None:
        """``fd`` is closed by ``close``; the message lies from ``offset`` to ``end`` in it."""
        self._fd, self._offset, self._end = fd, offset, end
        self._stuffing = Stuffing(lines)
        self._header = b""  # the converted one, still to be sent
        self.growth = 0
        self.finished = False

    @classmethod
    def now(cls, path: str, lines: int | None, header: Header) -> Transfer | None:
        """Of a file whose beginning is in memory and needs no conversion; None: ask a thread, with ``opened``."""
        fd = _open_now(path)
        if fd < 0:
            return None
        try:
            start = bytes(_scratch[: _read_now(fd, 0, SLICE)]) if header != "as-is" else b""
            if header == "as-is" or (header_end(start) is not None and is_conventional(start)):
                return cls(fd, 0, os.fstat(fd).st_size, lines)
        except OSError:
            pass
        os.close(fd)
        return None

    @classmethod
    def opened(cls, content: Content, lines: int | None, header: Header) -> Transfer:
        """Of any message; blocking. Raises OSError, and HeaderInUtf8 where that is to be refused."""
        fd = os.open(content.path, READ_ONLY)
        transfer = cls(fd, content.offset, content.offset + content.length, lines)
        if header != "as-is":
            try:
                transfer._look_at_header(header)
            except Exception:
                transfer.close()
                raise
        return transfer

    def _look_at_header(self, header: Header) -> None:
        """A header larger than HEADER_MAX is left as it is: everybody would rather have it so than not."""
        start = os.pread(self._fd, min(HEADER_MAX, self._end - self._offset), self._offset)
        end = header_end(start)
        if end is None and len(start) < HEADER_MAX:
            end = len(start)  # a header without a body
        old = start[: end or 0]
        if is_conventional(old) or (new := to_ascii(old)) == old:
            return
        if header == "refuse":
            raise HeaderInUtf8
        self._header = new
        self._offset += len(old)
        self.growth = _on_wire(new) - _on_wire(old)

    def cached(self) -> Octets | None:
        """The next piece of wire form, or None."""
        if self._header:
            header, self._header = self._header, b""
            return self._sent(header)
        want = min(SLICE, self._end - self._offset)
        if not want:
            return self._piece(b"")
        try:
            got = _read_now(self._fd, self._offset, want)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:
                return None
            raise
        return self._piece(_scratch if got == SLICE else _scratch[:got])

    def blocking(self) -> Octets:
        """The next piece of wire form; may wait for the disk."""
        return self._piece(os.pread(self._fd, min(SLICE, self._end - self._offset), self._offset))

    def _piece(self, data: Octets) -> Octets:
        if not data and self._offset < self._end:
            raise OSError(errno.EIO, "the message became shorter while it was read")
        self._offset += len(data)
        return self._sent(data)

    def _sent(self, data: Octets) -> Octets:
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
