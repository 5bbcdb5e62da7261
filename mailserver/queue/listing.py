"""What ``queue list`` and ``queue show`` print about a queued message."""

from __future__ import annotations

import msgspec

from mailserver.message.envelope import Envelope
from mailserver.queue.schedule import Schedule


class QueuedRecipient(msgspec.Struct, frozen=True):
    """``state``: pending, delivered or failed."""

    address: str
    state: str
    last_reply: str


class QueuedMessage(msgspec.Struct, frozen=True):
    """Times are Unix seconds; ``size`` in octets as stored; ``sender`` None is the null sender; ``account``
    is who was logged in; ``hold_reason`` why it is held: a rule, or "by an administrator"."""

    id: str
    sender: str | None
    recipients: tuple[QueuedRecipient, ...]
    size: int
    accepted: float
    next_attempt: float
    attempts: int
    held: bool
    account: str | None = None
    hold_reason: str = ""


def describe(envelope: Envelope, schedule: Schedule) -> QueuedMessage:
    """The message as it stands: the most attempts any of its parts had, the earliest next one."""
    batches = schedule.batches(envelope.id)
    due = min((batch.due for batch in batches), default=envelope.accepted)
    attempts = max((batch.attempts for batch in batches), default=0)
    return message(envelope, due=due, attempts=attempts, held=schedule.is_held(envelope.id))


def message(envelope: Envelope, *, due: float, attempts: int, held: bool) -> QueuedMessage:
    """The message, with what is known about its next attempt (Unix seconds)."""
    return QueuedMessage(
        envelope.id,
        envelope.sender,
        tuple(QueuedRecipient(r.address, r.state.value, r.last_reply) for r in envelope.recipients),
        envelope.size,
        envelope.accepted,
        due,
        attempts,
        held,
        envelope.account,
        (envelope.hold or "by an administrator") if held else "",
    )
