"""What a submission server may add to a message (RFC 6409 8): From, Date and Message-ID where they are missing.

The lines stand between our trace headers and the message, whose own octets stay as they are. From is the
sender's address, which was found to be the account's, or else the account itself: a message without it is
against RFC 5322 3.6 and thrown away elsewhere. Where the end of the header block is not known in time (it is
longer than HEADER_MAX, or memory was short before it arrived) nothing is added: a second Date would be worse.

Content whose first line is no header field has no header: it gets all three and the empty line that ends them, or its
first lines would be taken for a header (RFC 5322 2.1). An mbox separator ("From ") is no sign of that.
"""

from __future__ import annotations

import re

from mailserver.message.envelope import Envelope
from mailserver.receive.collector import HEADER_MAX, Collector

_FIELD = re.compile(rb"^(from|date|message-id)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_FIRST_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|>?From ")  # of a header, RFC 5322 2.2 and 4.5


class Additions:
    """What this message may need. ``date`` as RFC 5322 writes it, ``hostname`` is ours."""

    __slots__ = ("_fields",)

    def __init__(self, message: Envelope, date: str, hostname: str) -> None:
        author = message.sender or message.account or ""
        self._fields = {
            b"from": f"From: <{author}>\n" if author.isascii() or message.smtputf8 else "",  # RFC 6532 3
            b"date": f"Date: {date}\n",
            b"message-id": f"Message-ID: <{message.id}@{hostname}>\n",
        }

    def to(self, header: bytes) -> bytes:
        """The lines that a header block in stored form lacks."""
        if _is_text(header):
            return "".join([*self._fields.values(), "\n"]).encode()
        present = {name.lower() for name in _FIELD.findall(header)}
        return "".join([line for name, line in self._fields.items() if name not in present]).encode()

    def to_collected(self, collector: Collector, *, ended: bool) -> bytes:
        """The same for what ``collector`` has in memory, all of it so far; ``ended``: no more will come."""
        header = collector.header()
        most = HEADER_MAX if ended else min(HEADER_MAX, collector.held - 1)
        known = len(header) < most or (b"\n" in header and _is_text(header))
        return self.to(header) if known else b""


def _is_text(header: bytes) -> bool:
    """Whether what stands where the header should be is the body already. Nothing at all is an empty header."""
    return bool(header) and _FIRST_LINE.match(header) is None
