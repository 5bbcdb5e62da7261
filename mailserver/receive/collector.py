"""The content of one message while it arrives (RFC 5321 4.5.2, RFC 3030).

Sans-IO. What it becomes in stored form is for store/wire.py to say; here is kept what that gives, its size against the
limit, and its header. A message that is too large or has a CR or LF alone ("smuggling": another server might take it
for a line end) is unacceptable, but read to its end all the same. NUL is text like any other octet below 128 here.
"""

from __future__ import annotations

import re

from mailserver.store.wire import storing

COALESCE = 16384  # octets below which pieces are put together: tiny packets cost no objects
HEADER_MAX = 262_144  # octets of the header block that are looked at
TRACE_MAX = 16_384  # octets of its trace lines kept once the content has left memory
_TRACE = re.compile(rb"^(?:received|delivered-to):[^\n]{0,300}", re.IGNORECASE | re.MULTILINE)
_TRACE_LINE = 320  # octets that may match


class Collector:
    """Collects one message's content. ``limit`` octets on the wire, dot-stuffing and terminator not
    counted.

    ``chunks`` holds most of the ``held`` octets not yet taken, all of them at the end; ``size`` and ``lines`` count all
    of the content in stored form. ``raw`` (BODY=BINARYMIME): octets are kept untouched and nothing is counted but size.
    """

    __slots__ = (
        "_added",
        "_cut",
        "_scanned",
        "_storing",
        "_tail",
        "_trace",
        "_trace_size",
        "chunks",
        "held",
        "limit",
        "raw",
        "refusing",
        "size",
    )

    def __init__(self, limit: int, *, chunked: bool = False, raw: bool = False) -> None:
        self.limit, self.raw = limit, raw
        self._storing = storing(dots=not chunked)
        self._added = 0  # lines
        self._tail = bytearray()
        self._cut = b"\n"  # the line that has begun where content left memory, and the LF before it
        self._trace: list[bytes] = []
        self._trace_size = self._scanned = 0  # octets of header that left memory; -1: all of it has
        self.chunks: list[bytes] = []
        self.held = self.size = 0
        self.refusing = False

    @property
    def lines(self) -> int:
        """Of the stored form."""
        return self._storing.lines + self._added

    @property
    def bare(self) -> bool:
        """There is a CR or LF that is not part of a CRLF."""
        return self._storing.bare

    @property
    def eight_bit(self) -> bool:
        """There are octets above 127."""
        return self._storing.eight_bit

    @property
    def too_large(self) -> bool:
        """More octets than ``limit``."""
        return self.size + self.lines > self.limit

    def data(self, received: bytes, position: int) -> int:
        """DATA: work on ``received[position:]``; where the octet after the terminator is, or -1: not yet."""
        ended, end = False, len(received)
        while position < end and not ended:
            text, position, ended = self._storing.take(received, position)
            self._keep(text, last=ended)
        return position if ended else -1

    def chunk(self, piece: bytes) -> None:
        """BDAT: the next octets of a chunk."""
        if self.raw:
            self._keep(piece)
            return
        position, end = 0, len(piece)
        while position < end:
            text, position, _ = self._storing.take(piece, position)
            self._keep(text)

    def finish(self) -> None:
        """BDAT LAST: no more octets. Text that does not end with a line end gets one, as DATA would give
        it."""
        rest = self._storing.rest()
        if not (rest or self.raw or self._storing.complete):
            rest, self._added = b"\n", 1
        self._keep(rest, last=True)

    def _keep(self, text: bytes, *, last: bool = False) -> None:
        self.size += len(text)
        if self.bare or self.too_large:
            self.refusing = True
        if self.refusing:
            self.refuse()
            return
        self.held += len(text)
        if self._tail or (len(text) < COALESCE and not last):
            self._tail += text
            if last or len(self._tail) >= COALESCE:
                self._gather()
        elif text:
            self.chunks.append(text)

    def _gather(self) -> None:
        if self._tail:
            self.chunks.append(bytes(self._tail))
            self._tail.clear()

    def take(self) -> list[bytes]:
        """Hand over what is in memory; its trace lines are remembered for ``header``."""
        self._gather()
        chunks, self.chunks, self.held = self.chunks, [], 0
        for chunk in chunks:
            if self._scanned < 0:
                break
            self._remember(chunk)
        return chunks

    def _remember(self, chunk: bytes) -> None:
        """Keep what ``header`` needs of a part of the header block that leaves memory."""
        self._scanned += len(chunk)
        chunk = self._cut + chunk
        end, last = chunk.find(b"\n\n"), chunk.rfind(b"\n")
        if self._trace_size < TRACE_MAX:
            found = _TRACE.findall(chunk, 0, last if end < 0 else end)
            self._trace += found
            self._trace_size += sum(map(len, found))
        self._cut = chunk[last : last + _TRACE_LINE]
        if end >= 0 or self._scanned > HEADER_MAX:
            self._scanned = -1

    def refuse(self) -> None:
        """Forget everything and swallow the rest."""
        self.refusing = True
        self.chunks.clear()
        self._tail.clear()
        self.held = 0

    def header(self) -> bytes:
        """The header block in stored form, without the empty line, at most HEADER_MAX octets of it; of what has
        left memory only the Received and Delivered-To lines."""
        self._gather()
        if self._scanned:
            for chunk in self.chunks:
                if self._scanned > 0:
                    self._remember(chunk)
            return b"\n".join(self._trace)
        start = self.chunks[0] if self.chunks else b""
        end = start.find(b"\n\n")
        if end < 0 and len(self.chunks) > 1:
            start = b"".join(self.chunks[: HEADER_MAX // COALESCE])[:HEADER_MAX]
            end = start.find(b"\n\n")
        if start.startswith(b"\n"):
            return b""
        return start[:end] if end >= 0 else start[:HEADER_MAX]
