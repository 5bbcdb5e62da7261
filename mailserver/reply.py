"""Every reply the SMTP listener ever sends, named once, with its enhanced status code (RFC 5321 4.2, RFC 3463, RFC 2034).

A Reply is immutable and already encoded; replies with a variable part are functions that return one.
"""

from __future__ import annotations

from typing import NamedTuple


class Reply(NamedTuple):
    """``code`` SMTP code, ``wire`` the whole reply with CRLF. ``close``: hang up after it."""

    code: int
    wire: bytes
    close: bool = False

    @property
    def text(self) -> str:
        """For logs: without CRLF."""
        return self.wire.decode("utf-8", "replace").rstrip("\r\n")


def reply(code: int, status: str, text: str, *, close: bool = False) -> Reply:
    """Compose one reply; ``text`` is ours or already cleaned of control characters."""
    line = f"{code} {status} {text}\r\n" if status else f"{code} {text}\r\n"
    return Reply(code, line.encode("utf-8"), close)
