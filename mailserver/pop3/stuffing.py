"""A stored message (LF line ends) → its form on the POP3 wire: CRLF, dots stuffed (RFC 1939 section 3), TOP's
cut.

Every LF becomes CRLF, but for those that stand in one already, as in files of other programs: what came by SMTP has no
CR.
"""

from __future__ import annotations

from mailserver.store.wire import Octets, wire_form

_LF = 10


def dot_stuff(data: bytes, lines: int | None = None) -> Octets:
    """A whole message, without the terminating ``.`` line; it ends with CRLF unless empty.

    ``lines``: None all of it; N the header, the blank line and N lines of the body (TOP), so 0 is header and
    blank line.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if lines is not None:
        data = data[: _Top(lines).cut(data, at_line_start=True)]
    if data and data[-1] != _LF:
        data += b"\n"
    return wire_form(data, at_line_start=True)


class _Top:
    """Finds where TOP's answer ends, chunk after chunk."""

    __slots__ = ("_in_header", "_lines", "done")

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_header = True
        self.done = False

    def cut(self, data: Octets, *, at_line_start: bool) -> int:
        """How much of this chunk belongs to the answer."""
        body = 0
        if self._in_header:
            if at_line_start and data[:1] == b"\n":
                body = 1
            elif (blank := data.find(b"\n\n")) >= 0:
                body = blank + 2
            else:
                return len(data)
            self._in_header = False
        here = data.count(b"\n", body)
        if here < self._lines:
            self._lines -= here
            return len(data)
        self.done = True
        return _after_lines(data, body, self._lines)


def _after_lines(data: Octets, start: int, count: int) -> int:
    """The index behind the ``count``-th LF from ``start``; halving, as counting runs far faster than finding
    one by one."""
    end = len(data)
    while end - start > 512:
        middle = (start + end) // 2
        here = data.count(b"\n", start, middle)
        if here >= count:
            end = middle
        else:
            start, count = middle, count - here
    for _ in range(count):
        start = data.find(b"\n", start) + 1
    return start


class Stuffing:
    """The same for a message that comes in chunks: ``feed`` each, then ``finish``.

    ``done``: TOP has all it needs, nothing more has to be read.
    """

    __slots__ = ("_held", "_line_start", "_top")

    def __init__(self, lines: int | None = None) -> None:
        self._top = None if lines is None else _Top(lines)
        self._held = b""  # a CR at the end of a chunk whose LF may be the next chunk's first octet
        self._line_start = True

    @property
    def done(self) -> bool:
        return self._top is not None and self._top.done

    def feed(self, chunk: Octets) -> Octets:
        """Wire form of the next chunk (any size), of its own. Not to be called once ``done``."""
        if self._held or b"\r" in chunk:
            chunk = self._without_cr(chunk)
        if not chunk:
            return b""
        at_line_start = self._line_start
        if self._top is not None:
            chunk = chunk[: self._top.cut(chunk, at_line_start=at_line_start)]
            if not chunk:
                return b""
        self._line_start = chunk[-1] == _LF
        return wire_form(chunk, at_line_start=at_line_start)

    def _without_cr(self, chunk: Octets) -> Octets:
        chunk, self._held = self._held + chunk, b""
        if chunk.endswith(b"\r"):
            chunk, self._held = chunk[:-1], b"\r"
        return chunk.replace(b"\r\n", b"\n")

    def finish(self) -> bytes:
        """What is still missing: a held octet, the last line's end, and the terminating line."""
        rest, self._held = b"" if self.done else self._held, b""
        return rest + (b".\r\n" if self._line_start and not rest else b"\r\n.\r\n")
