"""A content between its form on the wire, with CRLF and stuffed dots, and its stored form, with LF (RFC 5321 4.5.2,
RFC 1939 3).

By compiled code (wire.c) where there is some, else by ``bytes.replace`` over whole buffers, which is right, too, but
searches for two octets ten times slower than for one. No work per line in Python in either case.
"""

from __future__ import annotations

from typing import Final, Protocol

from mailserver.store.steps import STEPS, WIRE_MAX, Steps
from mailserver.store.work import Incoming

Octets = bytes | bytearray
_TERMINATOR: Final = b"\r\n.\r\n"
_DOT_LINE: Final = _TERMINATOR[:3]
_DOT: Final = 46


class Storing(Protocol):
    """What a content becomes that arrives piece by piece; ``lines`` and ``eight_bit`` (octets) are of that. A CR or LF
    that is not part of a CRLF makes it ``bare``, for another server might take it for a line end; it is kept as it is.
    ``complete``: it ends with a line end, or nothing came yet (without dots only)."""

    @property
    def lines(self) -> int: ...
    @property
    def bare(self) -> bool: ...
    @property
    def eight_bit(self) -> bool: ...
    @property
    def complete(self) -> bool: ...

    def take(self, wire: bytes, start: int) -> tuple[bytes, int, bool]:
        """The stored form of what stands from ``start`` on, or of a part of it; where to go on; whether that is behind
        the terminator. What cannot be decided yet, a beginning of the terminator or a CR, is held back."""

    def rest(self) -> bytes:
        """No more comes: the stored form of what was held back (without dots only)."""


def storing(*, dots: bool, steps: Steps | None = STEPS) -> Storing:
    """For one content; ``dots``: they are stuffed, and CR LF . CR LF alone ends it (DATA)."""
    return _Python(dots=dots) if steps is None else _Compiled(steps, dots=dots)


class _Compiled:
    __slots__ = ("_incoming", "_steps")

    def __init__(self, steps: Steps, *, dots: bool) -> None:
        self._steps, self._incoming = steps, Incoming(dots=dots)

    @property
    def lines(self) -> int:
        return int(self._incoming.lines)

    @property
    def bare(self) -> bool:
        return bool(self._incoming.bare)

    @property
    def eight_bit(self) -> bool:
        return bool(self._incoming.eight_bit)

    @property
    def complete(self) -> bool:
        return bool(self._incoming.place == Incoming.LINE_START)

    def take(self, wire: bytes, start: int) -> tuple[bytes, int, bool]:
        incoming = self._incoming
        incoming.start = start
        text = self._steps.stored_form(incoming, wire)
        return text, incoming.start, bool(incoming.ended)

    def rest(self) -> bytes:
        if self._incoming.place != Incoming.AFTER_CR:
            return b""
        self._incoming.place, self._incoming.bare = Incoming.IN_LINE, True
        return b"\r"


class _Python:
    __slots__ = ("_carry", "_dots", "_first", "bare", "complete", "eight_bit", "lines")

    def __init__(self, *, dots: bool) -> None:
        self._dots = self._first = dots
        self._carry = b"\r\n" if dots else b""  # a terminator may stand at the very beginning
        self.lines, self.bare, self.eight_bit, self.complete = 0, False, False, True

    def take(self, wire: bytes, start: int) -> tuple[bytes, int, bool]:
        carry, buffer = self._carry, self._carry + wire[start:]
        # One scan finds the terminator, or that there are dots to un-stuff before it.
        end = buffer.find(_DOT_LINE) if self._dots else -1
        stuffed = end >= 0 and buffer[end + 3 : end + 5] != b"\r\n"
        if stuffed:
            end = buffer.find(_TERMINATOR, end)
        if end >= 0:
            self._carry = b""
            return self._text(buffer[: end + 2], stuffed=stuffed), start + end + 5 - len(carry), True
        back = _beginning_of_terminator(buffer) if self._dots else int(buffer.endswith(b"\r"))
        self._carry = buffer[len(buffer) - back :]
        return self._text(buffer[: len(buffer) - back], stuffed=stuffed), len(wire), False

    def rest(self) -> bytes:
        carry, self._carry = self._carry, b""
        return self._text(carry, stuffed=False)

    def _text(self, buffer: bytes, *, stuffed: bool) -> bytes:
        if not buffer:
            return b""
        text = buffer.replace(b"\r\n", b"\n")
        lines = len(buffer) - len(text)
        self.bare = self.bare or b"\r" in text or text.count(b"\n") != lines
        if stuffed:
            text = text.replace(b"\n.", b"\n")
        if self._first:
            self._first = False
            text, lines = text[1:], lines - 1
        self.lines += lines
        self.eight_bit = self.eight_bit or not text.isascii()
        self.complete = text.endswith(b"\n")
        return text


def _beginning_of_terminator(buffer: bytes) -> int:
    """Length of the longest end of ``buffer`` that is a beginning of _TERMINATOR."""
    for length in (4, 3, 2, 1):
        if buffer.endswith(_TERMINATOR[:length]):
            return length
    return 0


def wire_form(data: Octets, *, at_line_start: bool, steps: Steps | None = STEPS) -> Octets:
    """Every LF a CRLF, whatever stands before it, and a dot before each dot that begins a line. ``at_line_start``:
    ``data`` begins one."""
    if steps is None:
        return _wire_form(data, at_line_start=at_line_start)
    if len(data) <= WIRE_MAX:
        return steps.wire_form(data, at_line_start=at_line_start)
    pieces = []
    for start in range(0, len(data), WIRE_MAX):
        pieces.append(steps.wire_form(data[start : start + WIRE_MAX], at_line_start=at_line_start))
        at_line_start = pieces[-1].endswith(b"\n")
    return b"".join(pieces)


def _wire_form(data: Octets, *, at_line_start: bool) -> Octets:
    # One octet is searched at memchr speed, two are not (3 against 260 µs for 256 KiB), and large messages
    # are mostly base64, which has no dots. rfind because CPython searches backwards twice as fast.
    if b"." in data:
        if data.rfind(b"\n.") >= 0:
            data = data.replace(b"\n.", b"\n..")
        if at_line_start and data[0] == _DOT:
            data = b"." + data
    return data.replace(b"\n", b"\r\n")
