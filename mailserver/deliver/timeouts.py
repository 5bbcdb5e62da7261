"""How patient a client is in each phase, in seconds (RFC 5321 4.5.3.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The RFC's values; ``block`` is for one 256 KiB slice of content, ``final`` for the reply to the dot."""

    greeting: float = 300.0
    hello: float = 300.0
    tls: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    rset: float = 20.0
    quit: float = 5.0
