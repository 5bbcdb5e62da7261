"""The content of one message, from the wire's form to the stored form (RFC 5321 4.5.2, RFC 3030).

Sans-IO, and no work per line: dots are un-stuffed and CRLF becomes LF by ``bytes.replace`` over whole
buffers. Only CR LF . CR LF ends DATA. A CR or LF that is not part of a CRLF makes the message unacceptable
("smuggling": another server might take it for a line end), but is read to the end all the same; so is a
message over its size limit. NUL is text like any other octet below 128 here. What cannot be decided yet, a
beginning of the terminator or a CR, is held back until more arrives.
"""

from __future__ import annotations

import re

TERMINATOR = b"\r\n.\r\n"
_DOT_LINE = TERMINATOR[:3]
COALESCE = (
    16384  # octets below which pieces are collected before they are worked on: tiny packets cost no objects
)
HEADER_MAX = 262_144  # octets of the header block that are looked at
TRACE_MAX = 16_384  # octets of its trace lines kept once the content has left memory
_TRACE = re.compile(rb"^(?:received|delivered-to):[^\n]{0,300}", re.IGNORECASE | re.MULTILINE)


class Collector:
    """Collects one message's content. ``limit`` octets on the wire, dot-stuffing and terminator not
    counted.

    ``chunks`` holds ``held`` octets not yet taken; ``size`` and ``lines`` count all of the content in
    stored form. ``raw`` (BODY=BINARYMIME): octets are kept untouched and nothing is counted but size.
    """

    __slots__ = (
        "_carry",
        "_first",
        "_newline",
        "_scanned",
        "_stuffed",
        "_trace",
        "_trace_size",
        "bare",
        "chunks",
        "eight_bit",
        "held",
        "limit",
        "lines",
        "raw",
        "refusing",
        "size",
    )

    def __init__(self, limit: int, *, chunked: bool = False, raw: bool = False) -> None:
        self.limit, self.raw = limit, raw
        self._carry = b"" if chunked else b"\r\n"  # a terminator may stand at the very beginning of DATA
        self._first = not chunked
        self._stuffed = False  # some line of the carry begins with a dot that is not the end
        self._newline = True
        self._trace: list[bytes] = []
        self._trace_size = self._scanned = 0  # octets of header that left memory; -1: all of it has
        self.chunks: list[bytes] = []
        self.held = self.size = self.lines = 0
        self.eight_bit = self.bare = self.refusing = False

    @property
    def waiting(self) -> int:
        """Octets in memory: ``held`` and what is held back."""
        return self.held + len(self._carry)

    @property
    def too_large(self) -> bool:
        """More octets than ``limit``."""
        return self.size + self.lines > self.limit

    def data(self, received: bytes, position: int) -> int:
        """DATA: work on ``received[position:]``; where the octet after the terminator is, or -1: not yet."""
        carry = self._carry
        buffer = carry + received[position:] if position else carry + received
        # One scan finds the terminator, or that there are dots to un-stuff before it. The last four octets
        # of the carry may be the beginning of either.
        end = buffer.find(_DOT_LINE, max(0, len(carry) - 4))
        if end >= 0 and buffer[end + 3 : end + 5] != b"\r\n":
            self._stuffed = True
            end = buffer.find(TERMINATOR, end)
        if end >= 0:
            self._carry = b""
            self._take(buffer[: end + 2])
            return position + end + 5 - len(carry)
        if len(buffer) < COALESCE:
            self._carry = buffer
            return -1
        back = _beginning_of_terminator(buffer)
        self._carry = buffer[len(buffer) - back :]
        self._take(buffer[: len(buffer) - back])
        return -1

    def chunk(self, piece: bytes) -> None:
        """BDAT: the next octets of a chunk."""
        buffer = self._carry + piece if self._carry else piece
        if len(buffer) < COALESCE:
            self._carry = buffer
        elif buffer.endswith(b"\r") and not self.raw:
            self._carry = b"\r"
            self._take(buffer[:-1])
        else:
            self._carry = b""
            self._take(buffer)

    def finish(self) -> None:
        """BDAT LAST: no more octets. Text that does not end with a line end gets one, as DATA would give
        it."""
        buffer, self._carry = self._carry, b""
        self._take(buffer)
        ended = self.chunks[-1].endswith(b"\n") if self.chunks else self._newline
        if not (ended or self.raw or self.refusing):
            self._keep(b"\n")
            self.lines += 1

    def _take(self, buffer: bytes) -> None:
        if not buffer:
            return
        if self.raw:
            self._keep(buffer)
            return
        text = buffer.replace(b"\r\n", b"\n")
        lines = len(buffer) - len(text)
        if b"\r" in text or text.count(b"\n") != lines:
            self.bare = self.refusing = True
        if self._stuffed:
            self._stuffed = False
            text = text.replace(b"\n.", b"\n")
        if self._first:
            self._first = False
            text, lines = text[1:], lines - 1
        self.lines += lines
        if not self.eight_bit and not text.isascii():
            self.eight_bit = True
        self._keep(text)

    def _keep(self, text: bytes) -> None:
        self.size += len(text)
        if self.size + self.lines > self.limit:
            self.refusing = True
        if self.refusing:
            self.chunks.clear()
            self.held = 0
        elif text:
            self.chunks.append(text)
            self.held += len(text)

    def take(self) -> list[bytes]:
        """Hand over what is in memory; its trace lines are remembered for ``header``."""
        chunks, self.chunks, self.held = self.chunks, [], 0
        if chunks:
            self._newline = chunks[-1].endswith(b"\n")
        for chunk in chunks:
            if self._scanned < 0:
                break
            self._remember(chunk)
        return chunks

    def _remember(self, chunk: bytes) -> None:
        """Keep what ``header`` needs of a part of the header block that leaves memory."""
        end = 0 if not self._scanned and chunk.startswith(b"\n") else chunk.find(b"\n\n")
        if self._trace_size < TRACE_MAX:
            found = _TRACE.findall(chunk, 0, len(chunk) if end < 0 else end)
            self._trace += found
            self._trace_size += sum(map(len, found))
        self._scanned += len(chunk)
        if end >= 0 or self._scanned > HEADER_MAX:
            self._scanned = -1

    def refuse(self) -> None:
        """Forget everything and swallow the rest."""
        self.refusing = True
        self.chunks.clear()
        self.held = 0

    def header(self) -> bytes:
        """The header block in stored form, without the empty line, at most HEADER_MAX octets of it; of what has
        left memory only the Received and Delivered-To lines."""
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


def _beginning_of_terminator(buffer: bytes) -> int:
    """Length of the longest end of ``buffer`` that is a beginning of TERMINATOR."""
    for length in (4, 3, 2, 1):
        if buffer.endswith(TERMINATOR[:length]):
            return length
    return 0
