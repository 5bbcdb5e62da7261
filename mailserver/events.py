"""The closed vocabulary of what can happen to a message or a session: one frozen Struct each.

Events are values: whoever observes (log, counters, later trace store and ledger) reads them; nobody acts on them.
``id`` is always the queue id of the message, ``session`` the number of the connection. Text from outside is kept
as received; every reader escapes it for its own medium.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event", omit_defaults=True):
    """Base. The tag is the class name in lower case with hyphens; ``level`` is what a log filters by."""

    @property
    def level(self) -> str:
        return "info"


class _WarningLevel(Event, frozen=True):
    @property
    def level(self) -> str:
        return "warning"


class _ErrorLevel(Event, frozen=True):
    @property
    def level(self) -> str:
        return "error"


# ---- sessions -------------------------------------------------------------------------------------------------
class SessionOpened(Event, frozen=True, tag="session-opened"):
    """A client connected. ``rule`` decided what it may do: "config.toml:12 [[relay]] 10.0.0.0/8"."""

    service: str  # smtp | submission | lmtp | pop3
    session: int
    client: str
    port: int = 0
    action: str = ""  # relay | accept | reject
    rule: str = ""
    tls: str = ""


class SessionClosed(Event, frozen=True, tag="session-closed"):
    """``reason``: quit, lost, timeout, errors, limit, shutdown, …"""

    service: str
    session: int
    client: str
    reason: str
    seconds: float
    messages: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class SessionRefused(_WarningLevel, frozen=True, tag="session-refused"):
    service: str
    client: str
    reply: str
    rule: str = ""


class CommandRefused(Event, frozen=True, tag="command-refused"):
    """A command got 4xx or 5xx (or -ERR)."""

    service: str
    session: int
    client: str
    command: str
    reply: str
    rule: str = ""
    sender: str | None = None


class LoggedIn(Event, frozen=True, tag="logged-in"):
    service: str
    session: int
    client: str
    account: str
    mechanism: str


class LoginFailed(_WarningLevel, frozen=True, tag="login-failed"):
    service: str
    session: int
    client: str
    account: str
    mechanism: str
    reason: str


class MailboxOpened(Event, frozen=True, tag="mailbox-opened"):
    """POP3 entered TRANSACTION."""

    session: int
    account: str
    messages: int
    octets: int


class MailboxClosed(Event, frozen=True, tag="mailbox-closed"):
    session: int
    account: str
    retrieved: int
    deleted: int


# ---- messages -------------------------------------------------------------------------------------------------
class Accepted(Event, frozen=True, tag="accepted"):
    """On disk, names included; the client was told so. ``session`` 0: made here (bounces)."""

    id: str
    session: int
    client: str
    sender: str | None
    recipients: tuple[str, ...]
    size: int
    rule: str = ""


class HeldBack(_WarningLevel, frozen=True, tag="held"):
    """Accepted, and nobody gets it before an administrator releases it: ``account`` sent too much."""

    id: str
    account: str
    rule: str


class DeliveredTo(Event, frozen=True, tag="delivered"):
    id: str
    recipient: str
    remote: str = ""
    reply: str = ""
    seconds: float = 0.0  # since accepted
    attempts: int = 0  # 0: in the commit that accepted it; above 1 it may, after a crash, be a duplicate


class DeferredFor(_WarningLevel, frozen=True, tag="deferred"):
    id: str
    recipient: str
    reply: str
    status: str
    attempts: int
    next_attempt: float
    remote: str = ""


class FailedFor(_WarningLevel, frozen=True, tag="failed"):
    id: str
    recipient: str
    reply: str
    status: str
    remote: str = ""


class Bounced(Event, frozen=True, tag="bounced"):
    """A delivery status report was queued under ``report``; kind failure | delay | success."""

    id: str
    report: str
    kind: str
    recipients: tuple[str, ...]


class Dropped(_WarningLevel, frozen=True, tag="dropped"):
    """Given up without a report: null sender, or NOTIFY=NEVER."""

    id: str
    recipient: str
    reason: str


class Removed(Event, frozen=True, tag="removed"):
    """All recipients are settled (or an administrator removed it): the spool file is gone."""

    id: str
    reason: str = "settled"


class Quarantined(_ErrorLevel, frozen=True, tag="quarantined"):
    """A damaged spool file was moved aside, untouched."""

    path: str
    moved_to: str
    reason: str
    id: str = ""


# ---- the process ----------------------------------------------------------------------------------------------
class Ready(Event, frozen=True, tag="ready"):
    listeners: tuple[str, ...]
    queued: int
    seconds: float
    version: str


class Notice(Event, frozen=True, tag="notice"):
    """Start, reload, drain, stop and the like; ``text`` is ours."""

    component: str
    text: str


class Warned(_WarningLevel, frozen=True, tag="warned"):
    """Something an administrator should look at; nothing is broken."""

    component: str
    text: str


class Problem(_ErrorLevel, frozen=True, tag="problem"):
    """A bug or a sick machine; ``trace`` is the traceback, ``id`` the message concerned."""

    component: str
    text: str
    trace: str = ""
    id: str = ""


class DiskLow(_WarningLevel, frozen=True, tag="disk-low"):
    path: str
    free: int
    reserve: int


class DiskRecovered(Event, frozen=True, tag="disk-recovered"):
    path: str
    free: int


Emit = Callable[[Event], None]


def problem(component: str, error: BaseException, *, id: str = "") -> Problem:
    """The event for an exception nobody expected, with its traceback."""
    text = f"{type(error).__name__}: {error}"
    return Problem(component, text, "".join(traceback.format_exception(error)), id)
