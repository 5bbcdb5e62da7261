"""What happened since the start, as numbers: for ``mailserver status`` and later metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mailserver import events
from mailserver.events import Event


class _Service:
    """What the sessions of one service came to."""

    __slots__ = (
        "bytes_in", "bytes_out", "closed", "commands_refused", "login_failures", "logins", "opened", "refused",
    )  # fmt: skip

    def __init__(self) -> None:
        self.opened = self.closed = self.refused = self.commands_refused = 0
        self.logins = self.login_failures = self.bytes_in = self.bytes_out = 0


class Counters:
    """Counts events. Only called on the event loop; unknown kinds of events are nobody's business here."""

    def __init__(self) -> None:
        self._kinds: defaultdict[type[Event], int] = defaultdict(int)
        self._services: defaultdict[str, _Service] = defaultdict(_Service)
        self._recipients = self._bytes = self._retrieved = self._deleted = 0
        self._more: dict[type[Event], Callable[[Any], None]] = {  # what is more than the number of the kind
            events.SessionOpened: self._session_opened,
            events.SessionClosed: self._session_closed,
            events.SessionRefused: self._session_refused,
            events.CommandRefused: self._command_refused,
            events.LoggedIn: self._logged_in,
            events.LoginFailed: self._login_failed,
            events.Accepted: self._accepted,
            events.MailboxClosed: self._mailbox_closed,
        }

    def see(self, event: Event) -> None:
        """Count one event."""
        kind = type(event)
        self._kinds[kind] += 1
        more = self._more.get(kind)
        if more:
            more(event)

    def snapshot(self) -> dict[str, Any]:
        """Numbers since the start: ``sessions`` by service, then one number per key; sizes in octets."""
        return {
            "sessions": {
                name: {
                    "open": service.opened - service.closed,
                    "total": service.opened,
                    "refused": service.refused,
                    "commands_refused": service.commands_refused,
                    "logins": service.logins,
                    "login_failures": service.login_failures,
                    "bytes_in": service.bytes_in,
                    "bytes_out": service.bytes_out,
                }
                for name, service in sorted(self._services.items())
                if service.opened or service.refused
            },
            "accepted": self._kinds[events.Accepted],
            "accepted_recipients": self._recipients,
            "accepted_bytes": self._bytes,
            **{name: self._kinds[kind] for name, kind in _ONE_EACH.items()},
            "retrieved": self._retrieved,
            "deleted": self._deleted,
            "problems": self._kinds[events.Problem],
        }

    def _session_opened(self, event: events.SessionOpened) -> None:
        self._services[event.service].opened += 1

    def _session_closed(self, event: events.SessionClosed) -> None:
        service = self._services[event.service]
        service.closed += 1
        service.bytes_in += event.bytes_in
        service.bytes_out += event.bytes_out

    def _session_refused(self, event: events.SessionRefused) -> None:
        self._services[event.service].refused += 1

    def _command_refused(self, event: events.CommandRefused) -> None:
        self._services[event.service].commands_refused += 1

    def _logged_in(self, event: events.LoggedIn) -> None:
        self._services[event.service].logins += 1

    def _login_failed(self, event: events.LoginFailed) -> None:
        self._services[event.service].login_failures += 1

    def _accepted(self, event: events.Accepted) -> None:
        self._recipients += len(event.recipients)
        self._bytes += event.size

    def _mailbox_closed(self, event: events.MailboxClosed) -> None:
        self._retrieved += event.retrieved
        self._deleted += event.deleted


_ONE_EACH: dict[str, type[Event]] = {
    "delivered": events.DeliveredTo,
    "deferred": events.DeferredFor,
    "failed": events.FailedFor,
    "bounced": events.Bounced,
    "dropped": events.Dropped,
    "held": events.HeldBack,
    "removed": events.Removed,
    "quarantined": events.Quarantined,
}
