"""The envelope: sender, recipients with their routes, and what became of each (RFC 5321 2.3.1, RFC 3461)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Local(msgspec.Struct, frozen=True, tag="local"):
    """Deliver into one of our mailboxes; ``mailbox`` is the account's address key ``user@domain``."""

    mailbox: str


class Remote(msgspec.Struct, frozen=True, tag="remote"):
    """Deliver by network. ``destination`` is a domain whose MX is asked, or a static route
    ``smtp://host:port``, ``smtps://…``, ``lmtp://…`` taken from [routes]."""

    destination: str


Route = Local | Remote


class State(StrEnum):
    """Where one recipient stands. Only PENDING is ever tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Recipient(msgspec.Struct):
    """One recipient of one message. ``id`` is its identity within the envelope, never its position."""

    id: int
    address: str  # final address, wire form
    route: Route
    orcpt: str | None = (
        None  # ORCPT as received ("rfc822;…", xtext), or made so from the address given at RCPT
    )
    notify: tuple[
        str, ...
    ] = ()  # NOTIFY as received: NEVER | SUCCESS, FAILURE, DELAY; () = not given (RFC 3461 4.1)
    alias: str | None = None  # the address given at RCPT when an alias led here
    state: State = State.PENDING
    last_reply: str = ""  # the last thing a host (or we) said about it
    status: str = ""  # enhanced status code of last_reply, "4.4.1"
    delay_notified: bool = False


class Envelope(msgspec.Struct):
    """One message's journey data. ``sender`` None = null sender. ``accepted`` is Unix seconds."""

    id: str
    sender: str | None
    recipients: list[Recipient]
    accepted: float
    size: int = 0  # octets of content as stored (LF line ends), trace headers included
    body: str = "7BIT"  # BODY= of MAIL: 7BIT | 8BITMIME
    smtputf8: bool = False
    ret: str | None = None  # RET= FULL | HDRS (RFC 3461 4.3)
    envid: str | None = None  # ENVID=, xtext as received (RFC 3461 4.4)
    account: str | None = None  # who was logged in, if anybody
    client: str = ""  # "192.0.2.1" of the client it came from; "" = made here
    hold: str = ""  # the rule by which it was held when it was accepted; "" = it was not


class Delivered(msgspec.Struct, frozen=True, tag="delivered"):
    """Somebody took responsibility. ``dsn`` says whether that host will send NOTIFY=SUCCESS reports itself."""

    reply: str
    remote: str = ""  # host name and address that said so; "" = our own store
    dsn: bool = False


class Deferred(msgspec.Struct, frozen=True, tag="deferred"):
    """Try again later. ``status`` is an enhanced code 4.x.x. ``unreachable``: nobody at the destination came to
    judge the message or a recipient, so others for the same destination would fare alike."""

    reply: str
    status: str = "4.0.0"
    remote: str = ""
    unreachable: bool = False


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Permanent: the remote said 5xx, or our own rule did. ``status`` is 5.x.x."""

    reply: str
    status: str = "5.0.0"
    remote: str = ""


Outcome = Delivered | Deferred | Failed
