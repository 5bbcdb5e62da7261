"""AUTH (RFC 4954) and the TLS handshake after STARTTLS (RFC 3207): the two verbs that wait for more than
disk.

These may have tasks: they are rare, and hashing or a handshake costs a hundred times as much.
"""

# ruff: noqa: N802 - verbs and hooks keep the names and arguments of aiosmtpd and asyncio

from __future__ import annotations

import asyncio
import ssl

from mailserver import reply
from mailserver.accounts.authenticate import LoggedIn as Entered
from mailserver.accounts.door import Attempt, PutOff
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.sasl import Challenge, Channel, Refused, SaslError, UnknownMechanism, known
from mailserver.events import LoggedIn, LoginFailed
from mailserver.receive.wire import CLOSED, COMMAND, FOREVER, HANDSHAKE, LOGIN, Wire
from mailserver.reply import Reply

LOGIN_FAILURES_MAX = 5  # wrong passwords before a session is ended
SHUTDOWN_TIMEOUT = 3.0  # seconds a peer has to say close_notify


class LoginVerbs(Wire):
    """AUTH and STARTTLS."""

    _exchange: Attempt | None = None
    _upgrade: asyncio.Task[None] | None = None

    def smtp_AUTH(self, argument: str) -> Reply | None:
        """RFC 4954 4: ``AUTH mechanism [initial-response]``."""
        if refusal := self._no_login_now():
            return refusal
        name, *initial = argument.rstrip(" ").split(" ")
        if not name or len(initial) > 1:
            return reply.BAD_ARGUMENT
        try:
            self._exchange = self._service.door.attempt(
                name, self.channel(), service=self._service.name, client=self.session.client
            )
        except UnknownMechanism:
            return reply.LOGIN_NEEDS_TLS if not self._is_safe() and known(name) else reply.UNKNOWN_MECHANISM
        return self._step(initial[0].encode() if initial else None)

    def _no_login_now(self) -> Reply | None:
        session = self.session
        if session.host_name is None or not session.extended_smtp:
            return reply.NO_HELO
        if session.account is not None:
            return reply.LOGGED_IN_ALREADY
        if self.envelope is not None:
            return reply.NOT_WITHIN_MAIL
        if not self._service.handler.offers_login:
            return reply.NO_LOGIN_OFFERED
        return None

    def _is_safe(self) -> bool:
        """Whether a password may travel here."""
        return bool(self.session.tls) or self.session.is_loopback

    def channel(self) -> Channel:
        """What this connection allows, for EHLO and AUTH."""
        assert self.transport is not None
        return self._service.door.channel(self.transport.get_extra_info("ssl_object"), safe=self._is_safe())

    def _login_line(self, line: bytes) -> Reply | None:
        self._mode = COMMAND
        return self._step(line)

    def _step(self, line: bytes | None) -> Reply | None:
        assert self._exchange is not None
        self._wait(asyncio.ensure_future(self._exchange.step(line)), self._stepped)
        return None

    def _stepped(self, done: asyncio.Future[Challenge | Entered | Refused]) -> Reply | None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if done.cancelled():
            return reply.LOGIN_UNAVAILABLE
        error = done.exception()
        if isinstance(error, SaslError):
            return reply.LOGIN_CANCELLED if error.cancelled else reply.LOGIN_MALFORMED
        if error is not None:
            return self._not_now(error, exchange)
        result = done.result()
        if isinstance(result, Challenge):
            self._mode, self._exchange = LOGIN, exchange
            if self.transport is None:
                self._login_left()
            return reply.challenge(result.line)
        if isinstance(result, Refused):
            return self._login_failed(result, exchange.mechanism)
        service, session = self._service, self.session
        session.account, session.authenticated = result.account, True
        service.emit(
            LoggedIn(service.name, session.number, session.client, result.account, exchange.mechanism)
        )
        return reply.LOGGED_IN

    def _not_now(self, error: BaseException, exchange: Attempt) -> Reply:
        if isinstance(error, PutOff):
            self._tell_failure(Refused(exchange.user, str(error)), exchange.mechanism)
        elif isinstance(error, AccountsUnavailable):
            self._tell_failure(Refused(exchange.user, f"accounts unavailable: {error}"), exchange.mechanism)
        else:
            self._service.bug(error, self)
        return reply.LOGIN_UNAVAILABLE

    def _login_failed(self, refused: Refused, mechanism: str) -> Reply:
        self._tell_failure(refused, mechanism)
        session = self.session
        session.login_failures += 1
        return (
            reply.LOGIN_WRONG_TOO_OFTEN if session.login_failures >= LOGIN_FAILURES_MAX else reply.LOGIN_WRONG
        )

    def _tell_failure(self, refused: Refused, mechanism: str) -> None:
        service, session = self._service, self.session
        service.emit(
            LoginFailed(service.name, session.number, session.client, refused.user, mechanism, refused.reason)
        )

    def _login_left(self) -> None:
        """Hanging up does not spare a client the count of a login that has failed."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and (refused := exchange.left()) is not None:
            self._tell_failure(refused, exchange.mechanism)

    # ---- TLS -------------------------------------------------------------------------------------
    def smtp_STARTTLS(self, argument: str) -> Reply | None:
        """RFC 3207."""
        if argument.strip():
            return reply.NO_ARGUMENT
        if self.session.tls:
            return reply.TLS_ALREADY
        if self._service.tls is None:
            return reply.NOT_IMPLEMENTED
        self._reset()
        self._mode = HANDSHAKE
        return reply.START_TLS

    def _handshake(self) -> None:
        """220 has left: TLS from the next octet on. What was said before is forgotten (RFC 3207 4.2)."""
        self._busy, self.deadline = True, FOREVER
        self._pause()  # nothing may arrive between the reply and the handshake's own protocol
        self._upgrade = self._service.loop.create_task(self._start_tls())

    async def _start_tls(self) -> None:
        service, transport = self._service, self.transport
        assert transport is not None and service.tls is not None
        try:
            secure = await service.loop.start_tls(
                transport,
                self,
                service.tls,
                server_side=True,
                ssl_handshake_timeout=service.limits.handshake_timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except (OSError, ssl.SSLError, EOFError, TimeoutError):
            secure = None
        self._upgrade = None
        self._busy = self._paused = False
        if secure is None:
            self._mode, self.reason = CLOSED, "tls"
            transport.abort()
            self.connection_lost(None)  # the transport tells only the protocol of the handshake
            return
        self.transport = secure
        session = self.session
        session.tls = tls_version(secure)
        session.host_name, session.extended_smtp, session.account = None, False, None
        session.ssl = {"version": session.tls}
        self._mode = COMMAND
        self.deadline = service.clock + service.idle_timeout


def tls_version(transport: asyncio.BaseTransport) -> str:
    """ "TLSv1.3", or "" without TLS."""
    ssl_object = transport.get_extra_info("ssl_object")
    return "" if ssl_object is None else str(ssl_object.version())
