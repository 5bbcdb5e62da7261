"""Commands of the AUTHORIZATION state: USER, PASS (RFC 1939), AUTH (RFC 5034), STLS (RFC 2595), CAPA (RFC
2449), QUIT.

A password in clear is taken only under TLS, from loopback, or where the administrator allowed it. A wrong
password says ``[AUTH]``, accounts that cannot be asked say ``[SYS/TEMP]`` (RFC 3206): clients forget
passwords on the former.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailserver import events
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.sasl import MECHANISMS, Challenge, Credentials, Exchange, SaslError
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.protocol import OK, Refused, State, capabilities

if TYPE_CHECKING:
    from mailserver.pop3.session import Session

LOGIN_ATTEMPTS: Final = 3  # failed logins of one connection
MECHANISM_NAMES: Final = tuple(MECHANISMS)
MECHANISM_LIST: Final = "\r\n".join(("+OK mechanisms follow", *MECHANISM_NAMES, ".", "")).encode()


def may_log_in(session: Session) -> bool:
    """Whether a password may travel on this connection."""
    return session.tls or session.service.config.pop3.allow_plaintext_login or is_loopback(session.client)


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
    return session.wait(_log_in(session, name.decode("utf-8", "replace"), args[0], "USER"))


def _auth(session: Session, args: list[bytes]) -> bytes:
    _require_safety(session)
    if not args:
        return MECHANISM_LIST  # what clients older than CAPA ask with
    try:
        session.exchange = Exchange(args[0].decode("ascii", "replace"))
    except SaslError as fault:
        raise Refused(str(fault)) from None
    return respond(session, args[1] if len(args) > 1 else None)


def respond(session: Session, line: bytes | None) -> bytes:
    """The next step of the exchange under way. Raises Refused when it came to nothing."""
    exchange = session.exchange
    assert exchange is not None
    try:
        step = exchange.step(line)
    except SaslError as fault:
        session.exchange = None
        raise Refused(str(fault)) from None
    if isinstance(step, Challenge):
        return b"+ " + step.line + b"\r\n"
    assert isinstance(step, Credentials)  # all that PLAIN and LOGIN, the mechanisms offered, come to
    session.exchange = None
    name = "" if step.for_another else step.user  # nobody may act for somebody else
    return session.wait(_log_in(session, name, step.password, exchange.mechanism))


async def _log_in(session: Session, name: str, password: bytes, mechanism: str) -> bytes:
    service = session.service
    try:
        mailbox = await service.login(name, password) if name else None
    except AccountsUnavailable as fault:
        _failed(session, name, mechanism, f"accounts unavailable: {fault}")
        raise Refused("[SYS/TEMP] accounts cannot be asked now, try again later") from None
    if mailbox is None:
        _failed(session, name, mechanism, "wrong name or password")
        session.failures += 1
        session.penalty = service.login_delay * 2.0 ** (session.failures - 1)
        if session.failures >= LOGIN_ATTEMPTS:
            session.end("logins failed")
        raise Refused("[AUTH] wrong name or password")
    service.emit(events.LoggedIn("pop3", session.number, session.client, mailbox, mechanism))
    return await _open(session, mailbox)


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
    maildrop = Maildrop(mailbox, service.mailboxes.directory(mailbox), snapshot)
    if session.lost:
        maildrop.close()
        return b""
    session.maildrop, session.state = maildrop, State.TRANSACTION
    service.logins += 1
    service.emit(events.MailboxOpened(session.number, mailbox, maildrop.count, maildrop.octets))
    return b"+OK %d messages\r\n" % maildrop.count


def _stls(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    context = session.service.tls
    if context is None or session.tls:
        raise Refused("TLS is active already" if session.tls else "TLS is not available")
    session.refuse_injection()
    session.wait(session.start_tls(context))
    return b"+OK begin TLS\r\n"


def _capa(session: Session, args: list[bytes]) -> bytes:  # noqa: ARG001 - one signature for all commands
    stls = session.service.tls is not None and not session.tls and session.state is State.AUTHORIZATION
    return capabilities(MECHANISM_NAMES, login=may_log_in(session), stls=stls)


ACTIONS = {"AUTH": _auth, "CAPA": _capa, "PASS": _pass, "STLS": _stls, "USER": _user}
