"""From a host's address to a session that takes messages: greeting, EHLO or LHLO, opportunistic STARTTLS.

RFC 5321 3.1, 3.2, 4.1.4; RFC 3207; RFC 2033. TLS without verification: an exchanger's certificate proves
nothing about where mail ought to go, and encryption beats none. A failed handshake is tried once more in
the clear.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - ssl looks for it at the first handshake, when files may be out of reach
import ssl

from mailserver.deliver import outcome
from mailserver.deliver.connection import Connection, connect
from mailserver.deliver.mx import Host
from mailserver.deliver.outcome import ConnectionEnded, HostTrouble, Phase, Reply
from mailserver.deliver.route import Destination
from mailserver.deliver.timeouts import Timeouts
from mailserver.events import Emit, Notice

MESSAGES_MAX = 100  # through one connection; LIMITS MAILMAX may be less


def opportunistic_context() -> ssl.SSLContext:
    """Encrypts with whoever answers. Loads no authorities: there is nothing to verify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Session:
    """An open conversation between transactions. ``remote`` names the host in replies and reports."""

    __slots__ = (
        "connection",
        "idle_until",
        "lmtp",
        "messages_left",
        "needs_reset",
        "offered",
        "rcpt_max",
        "remote",
    )

    def __init__(self, connection: Connection, host: Host, offered: dict[str, str], *, lmtp: bool) -> None:
        self.connection = connection
        self.remote = host.label
        self.offered = offered
        self.lmtp = lmtp
        self.needs_reset = False
        self.idle_until = 0.0
        limits = _limits(offered.get("LIMITS", ""))
        self.rcpt_max = limits.get("RCPTMAX", 1_000_000)
        self.messages_left = min(MESSAGES_MAX, limits.get("MAILMAX", MESSAGES_MAX))


class Opener:
    """Opens sessions as ``hostname``. ``connect_timeout``, for each address and in seconds, may change."""

    def __init__(self, hostname: str, connect_timeout: float, timeouts: Timeouts, emit: Emit) -> None:
        self._hostname = hostname
        self.connect_timeout = connect_timeout
        self._timeouts = timeouts
        self._emit = emit
        self._context = opportunistic_context()

    async def open(self, host: Host, destination: Destination) -> Session:
        """Raises HostTrouble, and nothing else, when ``host`` will not talk to us."""
        try:
            return await self._open(host, destination, starttls=destination.protocol != "smtps")
        except _TlsFailed as failed:
            self._emit(Notice("deliver", f"{host.label}: {failed}; going on without TLS"))
        return await self._open(host, destination, starttls=False)

    async def _open(self, host: Host, destination: Destination, *, starttls: bool) -> Session:
        implicit = self._context if destination.protocol == "smtps" else None
        try:
            connection = await connect(
                host.address, host.port, self.connect_timeout, tls=implicit, name=host.name
            )
        except OSError as error:
            raise HostTrouble(outcome.of_error(error, host.label, "connect")) from error
        opening = _Opening(connection, host, self._hostname, destination.protocol == "lmtp", self._timeouts)
        try:
            offered = await opening.greet()
            if starttls and "STARTTLS" in offered:
                offered = await opening.encrypt(self._context) or offered
        except ConnectionEnded as end:
            raise HostTrouble(outcome.of_end(end, host.label, opening.phase)) from end
        except HostTrouble:
            raise  # it is told goodbye already
        except BaseException:
            connection.abort()
            raise
        return Session(connection, host, offered, lmtp=destination.protocol == "lmtp")


class _TlsFailed(Exception):  # noqa: N818 - an expected turn
    """STARTTLS was offered and did not work out: this connection is of no more use."""


class _Opening:
    """The first commands of one connection; ``phase`` is how far it came."""

    def __init__(
        self, connection: Connection, host: Host, hostname: str, lmtp: bool, timeouts: Timeouts
    ) -> None:
        self.phase: Phase = "greeting"
        self._connection = connection
        self._host = host
        self._hostname = hostname
        self._lmtp = lmtp
        self._timeouts = timeouts

    async def greet(self) -> dict[str, str]:
        """Greeting and EHLO; the extensions offered. Raises HostTrouble, ConnectionEnded."""
        greeting = await self._connection.reply(self._timeouts.greeting)
        if greeting.code // 100 != 2:
            raise self._turned_away(greeting)
        return await self._hello()

    async def encrypt(self, context: ssl.SSLContext) -> dict[str, str] | None:
        """STARTTLS and EHLO again (RFC 3207 4.2); None when the peer will not. Raises _TlsFailed."""
        self.phase = "tls"
        self._connection.send(b"STARTTLS\r\n")
        try:
            reply = await self._connection.reply(self._timeouts.hello)
            if reply.code == 421:
                raise self._turned_away(reply)
            if reply.code != 220:
                return None
            await self._connection.encrypt(context, self._host.name, self._timeouts.tls)
            return await self._hello()
        except OSError as error:
            raise _TlsFailed(outcome.of_error(error, self._host.label, "tls").reply) from error
        except (
            ConnectionEnded
        ) as end:  # also right after the handshake, when the peer did not like it after all
            raise _TlsFailed(f"{end.why} while starting TLS") from end

    async def _hello(self) -> dict[str, str]:
        self.phase = "hello"
        verb = "LHLO" if self._lmtp else "EHLO"
        reply = await self._say(verb)
        if reply.code // 100 == 5 and not self._lmtp:
            reply = await self._say("HELO")  # RFC 5321 3.2
            verb = "HELO"
        if reply.code // 100 != 2:
            raise self._turned_away(reply)
        name, *lines = reply.text.split("\n")
        if self._host.best and name.split(" ", 1)[0].rstrip(".").lower() == self._hostname.lower():
            self._connection.quit(self._timeouts.quit)
            raise HostTrouble(outcome.loops_by_name(self._host.label))
        if verb == "HELO":
            return {}
        return {key.upper(): value for key, _, value in (line.partition(" ") for line in lines)}

    async def _say(self, verb: str) -> Reply:
        self._connection.send(f"{verb} {self._hostname}\r\n".encode())
        return await self._connection.reply(self._timeouts.hello)

    def _turned_away(self, reply: Reply) -> HostTrouble:
        self._connection.quit(self._timeouts.quit)
        return HostTrouble(outcome.of_host_reply(reply, self._host.label))


def _limits(text: str) -> dict[str, int]:
    """``RCPTMAX=100 MAILMAX=10`` (RFC 9422 3); what is not understood is not a limit."""
    pairs = (item.partition("=") for item in text.upper().split())
    return {key: int(value) for key, _, value in pairs if value.isdecimal() and len(value) < 7 and int(value)}
