"""A message's content on its way in: in memory, or in a file it was streamed to. Line ends are LF."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Body:
    """Trace headers (``head``) and then the content as received: un-stuffed, CRLF turned into LF, nothing re-parsed.

    Small messages are in memory: ``head`` + ``chunks``. Large ones were streamed to ``path``, a file below
    data_dir/tmp that already begins with ``head``; ``chunks`` is empty then. ``size`` and ``lines`` (number of LF)
    count head and content, so ``size + lines`` is the size on the wire. Whoever consumes the body owns the file:
    ``Queue.accept`` links or removes it, whatever happens.
    """

    head: bytes
    size: int
    lines: int
    chunks: tuple[bytes, ...] = ()
    path: str | None = None
    eight_bit: bool = False  # some octet above 127 in the content
