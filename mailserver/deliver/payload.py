"""A message's content on its way out, and what must be known of it before MAIL FROM.

Small content is read at once, in place (one pread of cached pages is cheaper than a thread's wake-up); larger
content is read slice by slice in a thread, so memory per delivery is bounded by the slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

from mailserver.deliver.downgrade import to_seven_bit
from mailserver.message.envelope import Envelope
from mailserver.store.content import Content

SLICE = 262144  # octets


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
        content = self.whole
        if content is None:
            assert self._content is not None
            content = await asyncio.to_thread(self._content.read)
            if content.isascii():  # large content is declared, not examined
                return Payload(content, None, head=b"", eight_bit=False)
        return Payload(await asyncio.to_thread(to_seven_bit, content), None, head=b"", eight_bit=False)


async def load(content: Content, envelope: Envelope) -> Payload:
    """What can be known without reading all of a large message. Raises OSError."""
    if content.length <= SLICE:
        whole = content.read()
        return Payload(whole, None, head=whole, eight_bit=not whole.isascii())
    head = await asyncio.to_thread(next, content.chunks(SLICE))
    eight_bit = envelope.body != "7BIT" or envelope.smtputf8 or not head.isascii()
    return Payload(None, content, head=head, eight_bit=eight_bit)


def _next(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


def _end_of_headers(head: bytes) -> int:
    end = head.find(b"\n\n")
    return end if end >= 0 else len(head)
