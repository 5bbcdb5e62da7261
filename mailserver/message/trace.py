"""The trace headers we prefix (RFC 5321 4.4): Return-Path, Delivered-To, Received. Line ends are LF, as on disk.

The message's own bytes are never parsed and generated again: these lines go in front of them.
"""

from __future__ import annotations

from email.utils import formatdate

from mailserver.message.envelope import Envelope, Local


def all_local(envelope: Envelope) -> bool:
    """Whether every recipient is one of our mailboxes, so one file serves them all."""
    return all(type(r.route) is Local for r in envelope.recipients)


def return_path(sender: str | None) -> bytes:
    """Written at final delivery only (RFC 5321 4.4)."""
    return f"Return-Path: <{sender or ''}>\n".encode()


def head(envelope: Envelope, received: bytes) -> bytes:
    """What stands before the content in the stored file.

    A message for mailboxes only gets its Return-Path here, and Delivered-To when the mailbox is one (with several
    the file is shared by hard links and may not name one of them, nor betray Bcc). A message that travels on gets
    neither; its local copies, if any, are written apart.
    """
    if not all_local(envelope):
        return received
    lines = return_path(envelope.sender)
    if len(envelope.recipients) == 1:
        lines += f"Delivered-To: {envelope.recipients[0].address}\n".encode()
    return lines + received


class DateLine:
    """RFC 5322 dates, made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def at(self, now: float) -> str:
        """The local date and time of ``now`` (Unix seconds) with its zone."""
        second = int(now)
        if second != self._second:
            self._second, self._text = second, formatdate(second, localtime=True)
        return self._text


def received(
    *, helo: str, peer: str, by: str, protocol: str, id: str, recipient: str | None, date: str
) -> bytes:
    """``Received: from HELO ([192.0.2.1]) by HOST with ESMTP id ID for <R>; date`` (RFC 5321 4.4).

    ``helo`` must be free of control characters and at most 255 octets; ``recipient`` only when there is just one.
    """
    for_clause = f"\n\tfor <{recipient}>" if recipient else ""
    return f"Received: from {helo} ([{peer}])\n\tby {by} with {protocol} id {id}{for_clause};\n\t{date}\n".encode()
