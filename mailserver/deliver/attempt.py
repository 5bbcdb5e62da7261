"""What the queue hands to a deliverer: one message, the recipients that share a destination, one try."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mailserver.message.envelope import Envelope, Outcome, Recipient
from mailserver.store.content import Content


@dataclass(frozen=True, slots=True)
class Attempt:
    """``recipients`` are some of the envelope's, all with one ``destination``: that of their Remote route, or
    "local:" for mailboxes of ours. ``attempts`` counts this one: 1 is the first."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    destination: str
    content: Content
    attempts: int


Deliver = Callable[[Attempt], Awaitable[dict[int, Outcome]]]
"""Recipient id → Outcome, for every recipient of the attempt; never raises for the world's failures."""
