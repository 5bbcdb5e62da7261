"""What the outcomes of one attempt mean: who is done, who is told, who waits (RFC 5321 4.5.4, RFC 3461 6.2).

Pure decisions. A deferral becomes a failure when the message is older than ``max_age``; it keeps its own
status code then, for RFC 3463 prefers the actual problem to X.4.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mailserver.config.schema import Queue as Settings
from mailserver.deliver.bounce import wants_report
from mailserver.message.envelope import (
    Deferred,
    Delivered,
    Envelope,
    Failed,
    Local,
    Outcome,
    Recipient,
    State,
)

O = TypeVar("O", bound=Outcome)  # noqa: E741 - one of the outcomes
Pairs = list[tuple[Recipient, O]]

FORGOTTEN = Deferred("internal error: no outcome", "4.3.0")


@dataclass(slots=True)
class Judgement:
    """``failure``, ``delay``, ``success``: whom a report is owed to."""

    delivered: Pairs[Delivered] = field(default_factory=list)
    failed: Pairs[Failed] = field(default_factory=list)
    deferred: Pairs[Deferred] = field(default_factory=list)
    failure: Pairs[Outcome] = field(default_factory=list)
    delay: Pairs[Outcome] = field(default_factory=list)
    success: Pairs[Outcome] = field(default_factory=list)

    @property
    def told(self) -> set[int]:
        """Whose failure is reported."""
        return {recipient.id for recipient, _ in self.failure}

    def note(self) -> Iterator[str]:
        """Put it into the recipients: what became of each, and who said so. For each who is settled, what the ledger
        calls that."""
        for recipient, done in self.delivered:
            _note(recipient, State.DELIVERED, done.reply, "2.0.0")
            yield "delivered" if isinstance(recipient.route, Local) else "forwarded"
        told = self.told
        for recipient, failed in self.failed:
            _note(recipient, State.FAILED, failed.reply, failed.status)
            yield "bounced" if recipient.id in told else "dropped"
        for recipient, later in self.deferred:
            _note(recipient, State.PENDING, later.reply, later.status)

    def keep_failed(self, reason: str) -> None:
        """Their report could not be made durable: they stay in the queue and fail again later."""
        self.deferred += [
            (recipient, Deferred(f"{outcome.reply} ({reason})", f"4{outcome.status[1:]}", outcome.remote))
            for recipient, outcome in self.failed
        ]
        self.failed, self.failure = [], []


def judge(
    envelope: Envelope,
    recipients: Sequence[Recipient],
    outcomes: Mapping[int, Outcome],
    now: float,
    settings: Settings,
) -> Judgement:
    """Sort ``outcomes`` (recipient id → Outcome; a missing one is FORGOTTEN) at the time ``now``."""
    judgement = Judgement()
    age, sender = now - envelope.accepted, envelope.sender
    for recipient in recipients:
        outcome = outcomes.get(recipient.id, FORGOTTEN)
        if isinstance(outcome, Deferred) and age >= settings.max_age:
            outcome = Failed(outcome.reply, outcome.status, outcome.remote)
        match outcome:
            case Delivered():
                judgement.delivered.append((recipient, outcome))
                if not outcome.dsn and wants_report(recipient, "success", sender):
                    judgement.success.append((recipient, outcome))
            case Failed():
                judgement.failed.append((recipient, outcome))
                if wants_report(recipient, "failure", sender):
                    judgement.failure.append((recipient, outcome))
            case Deferred():
                judgement.deferred.append((recipient, outcome))
                late = 0 < settings.delay_warning <= age and not recipient.delay_notified
                if late and wants_report(recipient, "delay", sender):
                    judgement.delay.append((recipient, outcome))
    return judgement


def due_for_report(
    envelope: Envelope, recipients: Sequence[Recipient], now: float, settings: Settings
) -> bool:
    """Whether another deferral at ``now`` would make somebody be told."""
    judgement = judge(envelope, recipients, {}, now, settings)
    return bool(judgement.failed or judgement.delay)


def down_reason(outcomes: Mapping[int, Outcome]) -> str:
    """Why the destination as a whole could not be reached; "" when it could, or nothing is known about it.

    A status code is no sign of it: 450 4.4.1 or 451 4.3.2 to one RCPT speaks of that recipient (RFC 3463).
    """
    reply = ""
    for outcome in outcomes.values():
        if not isinstance(outcome, Deferred) or not outcome.unreachable:
            return ""
        reply = outcome.reply
    return reply


def destination_of(recipient: Recipient) -> str:
    """What the scheduler groups by. All mailboxes together are one destination, named like no domain."""
    return LOCAL if isinstance(recipient.route, Local) else recipient.route.destination


LOCAL = "local:"


def why_untold(envelope: Envelope, recipient: Recipient) -> str:
    """Why nobody was told of a failure, for the log."""
    if envelope.sender is None:
        return "null sender: no report about a report"
    if not wants_report(recipient, "failure", envelope.sender):
        return "the sender wants no report: NOTIFY=" + ",".join(recipient.notify)
    return f"no report: the sender's address {envelope.sender} leads nowhere"


def _note(recipient: Recipient, state: State, reply: str, status: str) -> None:
    recipient.state, recipient.last_reply, recipient.status = state, reply, status
