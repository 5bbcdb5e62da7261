"""A message's content on its way out, and what must be known of it before MAIL FROM.

Small content is read at once, in place (one pread of cached pages is cheaper than a thread's wake-up); larger
content is read slice by slice in a thread, so memory per delivery is bounded by the slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor

from mailserver.deliver.downgrade import SIZE_MAX, CannotConvert, to_seven_bit
from mailserver.message.envelope import Envelope
from mailserver.store.content import Content

SLICE = 262144  # octets
_CONVERTER = ThreadPoolExecutor(1, "seven-bit")  # one message at a time, for a conversion takes much memory


class Payload:
    """``whole`` is the content when it is small, else it comes by ``slices()``. ``size``: octets on the wire,
    an estimate for large content. ``eight_bit``: octets above 127; ``utf8_headers``: some in the headers."""

    __slots__ = ("_content", "eight_bit", "size", "utf8_headers", "whole")

    def __init__(self, whole: bytes | None, content: Content | None, *, head: bytes, eight_bit: bool) -> None:
        self.whole = whole
        self._content = content
        self.eight_bit = eight_bit
        self.utf8_headers = eight_bit and not head[: _end_of_headers(head)].isascii()
        if whole is not None:
            self.size = len(whole) + whole.count(b"\n")
        else:
            assert content is not None
            self.size = content.length

    async def slices(self) -> AsyncGenerator[bytes, None]:
        """Everything, in pieces of SLICE octets at most. Raises OSError."""
        if self.whole is not None:
            for start in range(0, len(self.whole), SLICE):
                yield self.whole[start : start + SLICE]
            return
        assert self._content is not None
        chunks = self._content.chunks(SLICE)
        while piece := await asyncio.to_thread(_next, chunks):
            yield piece

    async def seven_bit(self) -> Payload:
        """The same message without an octet above 127. Raises CannotConvert, OSError."""
        content, whole = self._content, self.whole
        if whole is None:
            assert content is not None
            if await asyncio.to_thread(_is_ascii, content):  # large content is declared, not examined
                return Payload(None, content, head=b"", eight_bit=False)
            if content.length > SIZE_MAX:
                raise CannotConvert("too large")
        work = asyncio.get_running_loop().run_in_executor(_CONVERTER, _converted, whole, content)
        return Payload(await work, None, head=b"", eight_bit=False)


async def load(content: Content, envelope: Envelope) -> Payload:
    """What can be known without reading all of a large message. Raises OSError."""
    if content.length <= SLICE:
        whole = content.read()
        return Payload(whole, None, head=whole, eight_bit=not whole.isascii())
    head = await asyncio.to_thread(next, content.chunks(SLICE))
    eight_bit = envelope.body != "7BIT" or envelope.smtputf8 or not head.isascii()
    return Payload(None, content, head=head, eight_bit=eight_bit)


def _is_ascii(content: Content) -> bool:
    return all(piece.isascii() for piece in content.chunks(SLICE))


def _converted(whole: bytes | None, content: Content | None) -> bytes:
    if whole is None:
        assert content is not None
        whole = content.read()
    return to_seven_bit(whole)


def _next(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


def _end_of_headers(head: bytes) -> int:
    end = head.find(b"\n\n")
    return end if end >= 0 else len(head)
