"""What happened since the start, as numbers: for ``mailserver status`` and later metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from mailserver import events
from mailserver.events import Event


class Counters:
    """Counts events. Only called on the event loop; unknown kinds of events are nobody's business here."""

    def __init__(self) -> None:
        self._messages: Counter[str] = Counter()
        self._opened: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._commands_refused: Counter[str] = Counter()
        self._logins: Counter[str] = Counter()
        self._login_failures: Counter[str] = Counter()
        self._bytes_in: Counter[str] = Counter()
        self._bytes_out: Counter[str] = Counter()
        self._count: dict[type[Event], Callable[[Any], None]] = {
            events.SessionOpened: self._session_opened,
            events.SessionClosed: self._session_closed,
            events.SessionRefused: self._session_refused,
            events.CommandRefused: self._command_refused,
            events.LoggedIn: self._logged_in,
            events.LoginFailed: self._login_failed,
            events.Accepted: self._accepted,
            events.MailboxClosed: self._mailbox_closed,
            **{kind: self._one(name) for kind, name in _ONE_EACH.items()},
        }

    def see(self, event: Event) -> None:
        """Count one event."""
        count = self._count.get(type(event))
        if count:
            count(event)

    def snapshot(self) -> dict[str, Any]:
        """Numbers since the start: ``sessions`` by service, then one number per key; sizes in octets."""
        services = sorted({*self._opened, *self._refused})
        return {
            "sessions": {
                service: {
                    "open": self._opened[service] - self._closed[service],
                    "total": self._opened[service],
                    "refused": self._refused[service],
                    "commands_refused": self._commands_refused[service],
                    "logins": self._logins[service],
                    "login_failures": self._login_failures[service],
                    "bytes_in": self._bytes_in[service],
                    "bytes_out": self._bytes_out[service],
                }
                for service in services
            },
            **{name: self._messages[name] for name in _MESSAGE_KEYS},
        }

    def _one(self, name: str) -> Callable[[Any], None]:
        counter = self._messages

        def count(_event: Event) -> None:
            counter[name] += 1

        return count

    def _session_opened(self, event: events.SessionOpened) -> None:
        self._opened[event.service] += 1

    def _session_closed(self, event: events.SessionClosed) -> None:
        self._closed[event.service] += 1
        self._bytes_in[event.service] += event.bytes_in
        self._bytes_out[event.service] += event.bytes_out

    def _session_refused(self, event: events.SessionRefused) -> None:
        self._refused[event.service] += 1

    def _command_refused(self, event: events.CommandRefused) -> None:
        self._commands_refused[event.service] += 1

    def _logged_in(self, event: events.LoggedIn) -> None:
        self._logins[event.service] += 1

    def _login_failed(self, event: events.LoginFailed) -> None:
        self._login_failures[event.service] += 1

    def _accepted(self, event: events.Accepted) -> None:
        self._messages["accepted"] += 1
        self._messages["accepted_recipients"] += len(event.recipients)
        self._messages["accepted_bytes"] += event.size

    def _mailbox_closed(self, event: events.MailboxClosed) -> None:
        self._messages["retrieved"] += event.retrieved
        self._messages["deleted"] += event.deleted


_ONE_EACH: dict[type[Event], str] = {
    events.DeliveredTo: "delivered",
    events.DeferredFor: "deferred",
    events.FailedFor: "failed",
    events.Bounced: "bounced",
    events.HeldBack: "held",
    events.Dropped: "dropped",
    events.Removed: "removed",
    events.Quarantined: "quarantined",
    events.Problem: "problems",
}
_MESSAGE_KEYS = (
    "accepted", "accepted_recipients", "accepted_bytes", "delivered", "deferred", "failed", "bounced",
    "dropped", "held", "removed", "quarantined", "retrieved", "deleted", "problems",
)  # fmt: skip
