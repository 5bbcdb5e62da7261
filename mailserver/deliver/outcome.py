"""Every foreign result → Delivered | Deferred | Failed: the one place where the world is classified.

Replies: RFC 5321 4.2.1 with the enhanced codes of RFC 3463, the remote's own where it gave one. Permanent
failure comes only from a 5xx to MAIL, RCPT, DATA or the final dot, from an authoritative answer of DNS, or
from a rule of ours; whatever concerns a host rather than the message (refused, lost, timed out, 421, a 5xx
greeting or EHLO, broken TLS, nonsense) is a deferral after every other host was tried. Postfix decides
alike by default (smtp_skip_5xx_greeting = yes): a host that turns everybody away is ill, its mail is not
undeliverable.
"""

from __future__ import annotations

import errno
import ssl
from typing import Literal, NamedTuple

from mailserver.message.envelope import Deferred, Delivered, Failed, Outcome

REPLY_MAX = 512  # characters of foreign text we keep

Phase = Literal["connect", "greeting", "hello", "tls", "mail", "rcpt", "data", "content", "dot", "rset"]

# RFC 3463 codes for replies that carry none; {} is the class. 550 is not X.1.1: it did not say so much.
_DERIVED = {
    421: "{}.3.2", 450: "{}.2.0", 451: "{}.3.0", 452: "{}.3.1", 454: "{}.7.0", 455: "{}.5.4",
    550: "{}.1.0", 551: "{}.1.6", 552: "{}.2.2", 553: "{}.1.3", 555: "{}.5.4",
    500: "{}.5.2", 501: "{}.5.4", 502: "{}.5.1", 503: "{}.5.1", 504: "{}.5.4", 530: "{}.7.0", 535: "{}.7.8",
}  # fmt: skip


class Reply(NamedTuple):
    """One whole reply: ``text`` is its lines without codes, joined by LF, undecodable octets escaped."""

    code: int
    text: str


class HostTrouble(Exception):  # noqa: N818 - it is no error of ours: the next host may do better
    """This host, or this connection, will not do; ``outcome`` is what counts if no other host does better."""

    def __init__(self, outcome: Deferred) -> None:
        super().__init__(outcome.reply)
        self.outcome = outcome


class ConnectionEnded(Exception):  # noqa: N818 - same
    """The peer hung up, was silent too long (``silent``), or talks nonsense. ``why`` is our description."""

    def __init__(self, why: str, status: str = "4.4.2", *, silent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.silent = silent


def clean(text: str) -> str:
    """One printable line of at most REPLY_MAX characters."""
    if len(text) <= REPLY_MAX and text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text[:REPLY_MAX]).rstrip()


def one_line(reply: Reply) -> str:
    """Code and text as logs and Diagnostic-Code have it (RFC 3464 2.3.6). RFC 2034 wants the enhanced code on
    every line of a reply: it is kept once."""
    code = enhanced(reply)
    text = reply.text.replace(f"\n{code} ", " ") if code else reply.text
    return clean(f"{reply.code} {text}")


def enhanced(reply: Reply) -> str | None:
    """The RFC 3463 code that begins the text; None without one, or when its class contradicts the reply."""
    word = reply.text.split(None, 1)[0] if reply.text.strip() else ""
    parts = word.split(".")
    if len(parts) != 3 or parts[0] != str(reply.code)[0] or len(word) > 9:
        return None
    return word if all(p.isascii() and p.isdigit() for p in parts) else None


def status_of(reply: Reply) -> str:
    """Enhanced code of a 4xx or 5xx reply, derived from the basic code when absent."""
    kind = reply.code // 100
    return enhanced(reply) or _DERIVED.get(reply.code, "{}.0.0").format(kind)


def of_reply(reply: Reply, remote: str, *, dsn: bool = False) -> Outcome:
    """What the last reply about a recipient means: 2xx delivered, 5xx failed, everything else deferred."""
    text = one_line(reply)
    kind = reply.code // 100
    if kind == 2:
        return Delivered(text, remote, dsn)
    if kind == 5:
        return Failed(text, status_of(reply), remote)
    if kind == 4:
        return Deferred(text, status_of(reply), remote)
    return Deferred(clean(f"unexpected reply: {text}"), "4.5.0", remote)


def of_refusal(reply: Reply, remote: str) -> Deferred | Failed:
    """As of_reply, for a command that needed another answer: 2xx is as unexpected as 3xx here."""
    if reply.code < 400:
        return Deferred(clean(f"unexpected reply: {one_line(reply)}"), "4.5.0", remote)
    refusal = of_reply(reply, remote)
    assert not isinstance(refusal, Delivered)
    return refusal


def is_full(reply: Reply, *, accepted_before: bool) -> bool:
    """Whether the reply to a RCPT says "too many recipients": the rest goes into a transaction of its own.

    552 stands for 452 then (RFC 5321 4.5.3.1.10).
    """
    if reply.code not in {452, 552} or not accepted_before:
        return False
    code = enhanced(reply)  # 552 5.2.2 is one full mailbox, 452 4.3.1 a full disk
    return code is None or code.endswith(".5.3")


def of_host_reply(reply: Reply, remote: str) -> Deferred:
    """A greeting, EHLO or 421 that ends the matter with this host; 5xx becomes 4.x.x (see above)."""
    code = enhanced(reply)
    if code is None:
        status = _DERIVED.get(reply.code, "{}.3.2").format(4) if reply.code < 500 else "4.3.2"
    else:
        status = f"4{code[1:]}"
    return Deferred(one_line(reply), status, remote, unreachable=True)


def of_end(end: ConnectionEnded, remote: str, phase: Phase) -> Deferred:
    """A conversation that broke off. After the final dot the peer may have the message: that is said.

    A peer that hangs up amid a transaction may dislike this message; one that is silent for minutes is ill.
    """
    text = f"{end.why} {_WHILE[phase]}"
    if phase == "dot":
        text += "; it may have been accepted and arrive twice"
    unreachable = end.silent or phase in {"greeting", "hello", "tls"}
    return Deferred(clean(text), end.status, remote, unreachable)


def of_error(error: OSError, remote: str, phase: Phase) -> Deferred:
    """The system's word on a connection: refused, unreachable, timed out, TLS failed."""
    if isinstance(error, ssl.SSLError):
        # ``reason`` is missing when Python, not OpenSSL, raised it
        reason = (getattr(error, "reason", None) or error.strerror or "").lower().replace("_", " ")
        return Deferred(clean(f"TLS with {remote} failed: {reason}"), "4.7.5", remote, unreachable=True)
    status = "4.4.1" if phase == "connect" else "4.4.2"
    if isinstance(error, TimeoutError):
        return Deferred(f"timed out {_WHILE[phase]}", status, remote, unreachable=True)
    name = errno.errorcode.get(error.errno or 0, "")
    why = _WORDS.get(name) or error.strerror or type(error).__name__
    return Deferred(clean(f"{why} {_WHILE[phase]}"), status, remote, unreachable=True)


_WORDS = {
    "ECONNREFUSED": "connection refused",
    "ECONNRESET": "connection reset",
    "EHOSTUNREACH": "no route to host",
    "ENETUNREACH": "network unreachable",
    "ETIMEDOUT": "timed out",
}
_WHILE: dict[Phase, str] = {
    "connect": "while connecting",
    "greeting": "while waiting for the greeting",
    "hello": "after EHLO",
    "tls": "while starting TLS",
    "mail": "after MAIL FROM",
    "rcpt": "after RCPT TO",
    "data": "after DATA",
    "content": "while sending the message",
    "dot": "after the end of the message",
    "rset": "after RSET",
}


# ---- DNS and routes
def dns_unavailable(domain: str) -> Deferred:
    """Nothing is known about the domain at the moment."""
    return Deferred(f"name service not available for {domain}", "4.4.3", unreachable=True)


def no_such_domain(domain: str) -> Failed:
    """NXDOMAIN, or neither MX nor address (RFC 5321 5.1)."""
    return Failed(f"domain {domain} does not exist or takes no mail: no MX, no address", "5.1.2")


def null_mx(domain: str) -> Failed:
    """RFC 7505 4.1."""
    return Failed(f"domain {domain} accepts no mail (null MX)", "5.1.10")


def no_usable_mx(domain: str) -> Failed:
    """MX records, and none usable: "this situation MUST be reported as an error" (RFC 5321 5.1)."""
    return Failed(f"no mail exchanger of {domain} has an address", "5.4.4")


def loops_back(destination: str) -> Failed:
    """We are the best host for a domain that is not ours (RFC 5321 5.1)."""
    return Failed(f"mail for {destination} loops back to myself", "5.4.6")


def route_loops_back(host: str) -> Deferred:
    """A host of [routes] that is ourselves: the administrator's slip must not bounce all that waits."""
    return Deferred(f"the route to {host} loops back to myself", "4.4.6", unreachable=True)


def unknown_route_host(host: str) -> Deferred:
    """A host of [routes] that has no address: the administrator's slip must not bounce mail."""
    return Deferred(f"host {host} of the route has no address", "4.4.4", unreachable=True)


def bad_destination(text: str) -> Outcome:
    """Neither domain nor route: a bad literal is the sender's fault, a bad route the administrator's."""
    if text.startswith("["):
        return Failed(clean(f"{text} is no address literal"), "5.1.2")
    return Deferred(clean(f"{text} is no route"), "4.4.4", unreachable=True)


# ---- what the message asks and the peer does not offer
def loops_by_name(remote: str) -> Deferred:
    """A mail exchanger that calls itself by our name: most likely us behind an address we do not know."""
    text = f"{remote} answers with my own name: mail loops back to myself"
    return Deferred(text, "4.4.6", remote, unreachable=True)


def too_large(size: int, limit: int, remote: str) -> Failed:
    """RFC 1870 6.1: it would be refused."""
    return Failed(f"message of {size} octets exceeds the limit of {remote}: {limit}", "5.3.4", remote)


def needs_smtputf8(remote: str) -> Failed:
    """RFC 6531 3.5."""
    return Failed(f"{remote} does not offer SMTPUTF8, which this address or header needs", "5.6.7", remote)


def needs_8bitmime(remote: str, why: str) -> Failed:
    """RFC 6152 3: neither sendable as it is nor convertible."""
    return Failed(
        f"{remote} does not offer 8BITMIME, and the message cannot be converted: {why}", "5.6.3", remote
    )
