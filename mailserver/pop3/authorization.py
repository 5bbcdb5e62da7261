"""Commands of the AUTHORIZATION state: USER, PASS, APOP (RFC 1939), AUTH (RFC 5034), STLS (RFC 2595), CAPA (RFC
2449), LANG and UTF8 (RFC 6856).

A password in clear is taken only under TLS, from loopback, or where the administrator allowed it. A wrong
password says ``[AUTH]``, accounts that cannot be asked say ``[SYS/TEMP]`` (RFC 3206): clients forget
passwords on the former. Whoever comes back before LOGIN-DELAY is over is told so only after a good login, as
anything else would tell who exists (RFC 2449 8.1.1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mailserver import events
from mailserver.accounts.authenticate import LoggedIn
from mailserver.accounts.door import Attempt, PutOff
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.sasl import Challenge, Channel, SaslError, offered
from mailserver.accounts.sasl import Refused as Denied
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.protocol import LANGUAGES, OK, Refused, State, capabilities, language

if TYPE_CHECKING:
    from mailserver.pop3.session import Session

LOGIN_ATTEMPTS: Final = 3  # failed logins of one connection


def may_log_in(session: Session) -> bool:
    """Whether a password may travel on this connection."""
    if session.tls or session.service.config.pop3.allow_plaintext_login:
        return True
    nameless = (
        session.proxied is not None and session.proxied.local
    )  # a proxy that says nothing of its client
    return is_loopback(session.client) and not nameless


def is_loopback(client: str) -> bool:
    """The client runs on this machine."""
    return client.startswith("127.") or client == "::1"


def _require_safety(session: Session) -> None:
    if not may_log_in(session):
        raise Refused("passwords are taken under TLS only")


def _user(session: Session, args: list[bytes]) -> bytes:
    _require_safety(session)
    session.user = args[0]
    return OK  # whoever it is: existing accounts are not told from others


def _pass(session: Session, args: list[bytes]) -> bytes:
    _require_safety(session)
    if session.user is None:
        raise Refused("USER comes first")
    name, session.user = session.user, None
    return session.wait(_log_in(session, name.decode("utf-8", "replace"), args[0]))


def _apop(session: Session, args: list[bytes]) -> bytes:
    """No password travels, so no TLS is asked for; but every password must be kept in clear."""
    if not session.service.config.pop3.apop:
        raise Refused("APOP is not offered")
    return session.wait(_digested(session, args[0].decode("utf-8", "replace"), args[1]))


async def _digested(session: Session, name: str, digest: bytes) -> bytes:
    service, stamp = session.service, session.service.stamp(session.number)
    try:
        said = await service.door.digest(name, stamp, digest, client=session.client)
    except AccountsUnavailable as fault:
        raise _not_now(session, name, "APOP", fault) from None
    return await _judged(session, said, "APOP")


def _channel(session: Session) -> Channel:
    """What this connection allows."""
    connection = session.transport.get_extra_info("ssl_object")
    return session.service.door.channel(connection, safe=may_log_in(session))


def _auth(session: Session, args: list[bytes]) -> bytes:
    channel = _channel(session)
    if not args:  # what clients older than CAPA ask with
        return "\r\n".join(("+OK mechanisms follow", *offered(channel), ".", "")).encode()
    try:
        session.exchange = session.service.door.attempt(
            args[0].decode("ascii", "replace"), channel, service="pop3", client=session.client
        )
    except SaslError as fault:
        _require_safety(session)
        raise Refused(str(fault)) from None
    return respond(session, args[1] if len(args) > 1 else None)


def respond(session: Session, line: bytes | None) -> bytes:
    """The next step of the exchange under way."""
    exchange, session.exchange = session.exchange, None
    assert exchange is not None
    return session.wait(_step(session, exchange, line))


async def _step(session: Session, exchange: Attempt, line: bytes | None) -> bytes:
    try:
        said = await exchange.step(line)
    except SaslError as fault:
        raise Refused(str(fault)) from None
    except AccountsUnavailable as fault:
        raise _not_now(session, exchange.user, exchange.mechanism, fault) from None
    if isinstance(said, Challenge):
        session.exchange = exchange
        if session.lost:
            leave(session)
        return b"+ " + said.line + b"\r\n"
    return await _judged(session, said, exchange.mechanism)


def leave(session: Session) -> None:
    """Hanging up does not spare a client the count of a login that has failed."""
    exchange, session.exchange = session.exchange, None
    if exchange is not None and (refused := exchange.left()) is not None:
        _failed(session, refused.user, exchange.mechanism, refused.reason)


async def _log_in(session: Session, name: str, password: bytes) -> bytes:
    try:
        said = await session.service.door.password(name, password, service="pop3", client=session.client)
    except AccountsUnavailable as fault:
        raise _not_now(session, name, "USER", fault) from None
    return await _judged(session, said, "USER")


async def _judged(session: Session, said: LoggedIn | Denied, mechanism: str) -> bytes:
    if isinstance(said, Denied):
        _failed(session, said.user, mechanism, said.reason)
        session.failures += 1
        if session.failures >= LOGIN_ATTEMPTS:
            session.end("logins failed")
        raise Refused("[AUTH] wrong name or password")
    _require_patience(session, said.account)
    session.service.emit(events.LoggedIn("pop3", session.number, session.client, said.account, mechanism))
    return await _open(session, said.account)


def _require_patience(session: Session, account: str) -> None:
    service = session.service
    delay = service.terms.of(account).login_delay
    if delay and (wait := service.last_logins.wait(account, delay, service.now())):
        raise Refused(f"[LOGIN-DELAY] logged in a moment ago, come back in {math.ceil(wait)} seconds")


def _not_now(session: Session, name: str, mechanism: str, fault: AccountsUnavailable) -> Refused:
    if isinstance(fault, PutOff):
        _failed(session, name, mechanism, str(fault))
        return Refused("[SYS/TEMP] too many logins have failed, try again later")
    _failed(session, name, mechanism, f"accounts unavailable: {fault}")
    return Refused("[SYS/TEMP] accounts cannot be asked now, try again later")


def _failed(session: Session, name: str, mechanism: str, reason: str) -> None:
    session.service.login_failures += 1
    session.service.emit(events.LoginFailed("pop3", session.number, session.client, name, mechanism, reason))


async def _open(session: Session, mailbox: str) -> bytes:
    service = session.service
    try:
        snapshot = await service.mailboxes.open(mailbox)
    except OSError as fault:
        service.emit(events.Problem("pop3", f"mailbox {mailbox} cannot be opened: {fault}"))
        raise Refused("[SYS/TEMP] the mailbox cannot be opened now") from None
    terms = service.terms.of(mailbox)
    maildrop = Maildrop(mailbox, snapshot, terms)
    if session.lost:
        maildrop.close()
        return b""
    session.maildrop, session.state = maildrop, State.TRANSACTION
    service.logins += 1
    if terms.login_delay:
        service.last_logins.note(mailbox, service.now())
    service.emit(events.MailboxOpened(session.number, mailbox, maildrop.count, maildrop.octets))
    return b"+OK %d messages\r\n" % maildrop.count


def _stls(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    context = session.service.tls
    if context is None or session.tls:
        raise Refused("TLS is active already" if session.tls else "TLS is not available")
    if session.utf8:  # RFC 6856 section 2.1; TLS would begin without it, and the client not know
        raise Refused("STLS comes before UTF8")
    session.refuse_injection()
    session.wait(session.start_tls(context))
    return b"+OK begin TLS\r\n"


def _capa(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    stls = session.service.tls is not None and not session.tls and session.state is State.AUTHORIZATION
    maildrop = session.maildrop
    terms = session.service.terms.before_login if maildrop is None else maildrop.terms.announced()
    return capabilities(offered(_channel(session)), terms, login=may_log_in(session), stls=stls)


def _utf8(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    session.utf8 = True
    return OK


def _lang(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    return language(args[0]) if args else LANGUAGES


ACTIONS = {
    "APOP": _apop, "AUTH": _auth, "CAPA": _capa, "LANG": _lang, "PASS": _pass, "STLS": _stls, "USER": _user,
    "UTF8": _utf8,
}  # fmt: skip
