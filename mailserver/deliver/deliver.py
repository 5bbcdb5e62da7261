"""Which way an attempt goes: into our mailboxes or over the network."""

from __future__ import annotations

from collections.abc import Awaitable

from mailserver.deliver.attempt import Attempt, Deliver
from mailserver.message.envelope import Local, Outcome


def deliverer(local: Deliver, remote: Deliver) -> Deliver:
    """One callable for the queue. All recipients of an attempt have the same kind of route."""

    def deliver(attempt: Attempt) -> Awaitable[dict[int, Outcome]]:
        return (local if isinstance(attempt.recipients[0].route, Local) else remote)(attempt)

    return deliver
