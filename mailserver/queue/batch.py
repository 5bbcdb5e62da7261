"""What is tried together: recipients of one message with one destination, at most ``recipients_per_transaction``.

A batch is in exactly one stage and a recipient in exactly one batch, so nobody is tried twice at once::

    add ──> WAITING (heap by due time) ──due──> READY (a destination's lane) ──take──> IN_FLIGHT ──> GONE
               ^   │ hold                          │ hold                                 │ settle
               │   └──────────> HELD <─────────────┘                                      │
               └──────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from enum import IntEnum


class Stage(IntEnum):
    """See the drawing above: HELD by an administrator or a rule; GONE: settled or removed."""

    WAITING = 0
    READY = 1
    IN_FLIGHT = 2
    HELD = 3
    GONE = 4


class Batch:
    """Recipients (ids within their envelope) of message ``id``. ``attempts`` counts this one
    too once it is in flight; ``due`` is Unix seconds. ``suspended``: why not to try it now, "" = try it."""

    __slots__ = ("attempts", "destination", "due", "held", "id", "recipients", "stage", "suspended", "ticket")

    def __init__(
        self, message: str, destination: str, recipients: tuple[int, ...], due: float, attempts: int
    ) -> None:
        self.id = message
        self.destination = destination
        self.recipients = recipients
        self.due = due
        self.attempts = attempts
        self.suspended = ""
        self.held = False  # asked for while in flight: it goes to HELD when it comes back
        self.stage = Stage.WAITING
        self.ticket = 0  # the one heap entry that counts; older ones are stale
