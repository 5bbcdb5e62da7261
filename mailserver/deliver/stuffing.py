"""Stored content → what stands between DATA and the final dot (RFC 5321 4.5.2): CRLF line ends, doubled dots.

Slice by slice, whatever the slices' borders. A stray CR becomes a space, as with Postfix:
sent bare it would let a message smuggle another one past a lenient peer.
"""

from __future__ import annotations

from mailserver.store.wire import Octets, wire_form


class Stuffer:
    """One message's pass: ``feed`` every slice in order, then send ``end()``."""

    __slots__ = ("_line_start",)

    def __init__(self) -> None:
        self._line_start = True

    def feed(self, data: bytes) -> Octets:
        """The wire form of the next slice."""
        if not data:
            return data
        at_line_start, self._line_start = self._line_start, data[-1] == 0x0A
        if b"\r" in data:
            data = data.replace(b"\r", b" ")
        return wire_form(data, at_line_start=at_line_start)

    def end(self) -> bytes:
        """What ends the message: its last line is completed if it was not."""
        return b".\r\n" if self._line_start else b"\r\n.\r\n"
