"""The POP3 service: listeners, who is admitted, one clock for all sessions, draining (RFC 1939, 2595, 8314).

Sessions do not know each other; what they share is here: configuration, index, accounts, thread pool,
counters.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any, Final

from mailserver import events
from mailserver.accounts.door import Door
from mailserver.config.schema import Config
from mailserver.host.listening import Server, Tls, listen
from mailserver.policy.crowd import Crowd
from mailserver.policy.rates import Rates
from mailserver.policy.relay import DEFAULT, RelayTable, Verdict
from mailserver.pop3.protocol import State, error
from mailserver.pop3.session import Session
from mailserver.pop3.terms import AllTerms, LastLogins
from mailserver.store.index import Mailboxes

QUIET: Final = 5.0  # seconds without a command after which a draining server no longer waits for a session

TOO_MANY: Final = error("[SYS/TEMP] too many connections")
TOO_FAST: Final = error("[SYS/TEMP] too many connections from your address, try again in a minute")
SHUTTING_DOWN: Final = error("[SYS/TEMP] the server is shutting down")
NOT_WELCOME: Final = error("[SYS/PERM] connections from your address are not accepted")


class Pop3Service:
    """``door`` lets accounts in. ``tls``: None switches STLS off.

    ``now`` gives seconds on a clock that may only go forward (``loop.time`` where it is not given).
    ``rates``: shared with the other services. ``relay``: rules whose verdict ``reject`` bars POP3 as well.
    ``room``: whether this connection can be borne.
    """

    def __init__(
        self,
        *,
        config: Config,
        mailboxes: Mailboxes,
        door: Door,
        rates: Rates,
        tls: ssl.SSLContext | None,
        emit: events.Emit,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        now: Callable[[], float] | None = None,
        relay: Callable[[], RelayTable] | None = None,
        room: Callable[[asyncio.BaseTransport], bool] = lambda _: True,
    ) -> None:
        self.config = config
        self.mailboxes = mailboxes
        self.door = door
        self.tls = tls
        self.emit = emit
        self.loop = loop
        self.executor = executor
        self.now = now or loop.time
        self.logins = self.login_failures = self.retrieved = self.deleted = 0
        self.last_logins = LastLogins()
        self._relay, self._rates = relay, rates
        self._stamps = os.urandom(32)
        self._greeting = b""
        self._numbers = itertools.count(1)
        self._opened = self._refused = 0
        self._sessions: set[Session] = set()
        self._crowd = Crowd()
        self._tasks: dict[asyncio.Task[bytes], Session] = {}
        self._room = room
        self.servers: list[Server] = []
        self._clock: asyncio.TimerHandle | None = None
        self._draining = False
        self._changed: asyncio.Event = asyncio.Event()  # set when a session has gone
        self.reconfigure(config)

    # ---- life ----------------------------------------------------------------------------------------------
    async def start(
        self, sockets: Iterable[socket.socket], tls_sockets: Iterable[socket.socket] = ()
    ) -> None:
        """Serve on bound sockets; ``tls_sockets`` speak TLS from the first octet. Raises ValueError without a
        context."""
        await self._listen(sockets, None)
        for sock in tls_sockets:
            if self.tls is None:
                raise ValueError("a TLS listener needs a certificate")
            await self._listen([sock], Tls(self.tls, 2.0))
        if self._clock is None:
            self._tick()

    async def _listen(self, sockets: Iterable[socket.socket], tls: Tls | None) -> None:
        for sock in sockets:
            server = await listen(
                self.loop, sock, lambda header: Session(self, tls=tls is not None, proxied=header), tls=tls,
                config=lambda: self.config, refused=self._hung_up_on, barred=self._barred,
            )  # fmt: skip
            self.servers.append(server)

    def _hung_up_on(self, peer: str, reason: str) -> None:
        self._refused += 1
        self.emit(events.SessionRefused("pop3", peer, reason))

    def _barred(self, peer: str) -> str:
        """Why a client is not worth a TLS handshake; "": it is, and has been counted for [rates]."""
        client = _address((peer,))
        if self._crowded(client):
            return "too many connections"
        excess = self._rates.connection(client, self.door.now())
        return excess.rule if excess is not None else ""

    def reconfigure(self, config: Config) -> None:
        """New settings hold at once, for open sessions too; listeners stay as they are."""
        self.config = config
        self.terms = AllTerms(config.pop3)
        self._greeting = f"+OK {config.hostname} POP3 ready\r\n".encode()

    async def drain(self, deadline: float) -> None:
        """Stop listening; sessions that are working may go on until ``deadline`` (on the clock ``now``).

        Who is not logged in or has been quiet for QUIET seconds is hung up on; at the deadline everybody is.
        Deletions that a QUIT has begun are waited for in any case.
        """
        self._draining = True
        for server in self.servers:
            server.close()
        self.servers.clear()
        while self._sessions and self.now() < deadline:
            self.dismiss(self.now())
            self._changed.clear()
            if self._sessions:
                await self._wait_for_change(min(1.0, max(0.0, deadline - self.now())))
        for session in list(self._sessions):
            session.hang_up("shutdown")
        for task, session in self._tasks.items():
            if session.state is State.AUTHORIZATION:
                task.cancel()  # a login may be waiting for its turn
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._sessions:
            await self._wait_for_change(1.0)  # closing takes the loop a turn or two
        if self._clock is not None:
            self._clock.cancel()

    async def _wait_for_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def dismiss(self, now: float) -> None:
        """While draining: hang up on those who would not be missed."""
        for session in list(self._sessions):
            quiet = session.state is State.AUTHORIZATION or now - session.active >= QUIET
            if quiet and not session.at_work:
                session.hang_up("shutdown")

    def _tick(self) -> None:
        self.sweep(self.now())
        self._clock = self.loop.call_later(1.0, self._tick)

    def sweep(self, now: float) -> None:
        """End the sessions that have been silent for too long: one look at all of them, instead of a timer
        for each."""
        for session in list(self._sessions):
            session.check_time(now)

    def status(self) -> dict[str, int]:
        """Counters since the start, and what is open now."""
        return {
            "sessions": len(self._sessions),
            "logged_in": sum(s.state is not State.AUTHORIZATION for s in self._sessions),
            "opened": self._opened,
            "refused": self._refused,
            "logins": self.logins,
            "login_failures": self.login_failures,
            "retrieved": self.retrieved,
            "deleted": self.deleted,
        }

    # ---- for the sessions ----------------------------------------------------------------------------------
    def stamp(self, number: int) -> bytes:
        """What the greeting of session ``number`` shows for APOP: never the same, and kept nowhere."""
        token = hmac.digest(self._stamps, str(number).encode(), "sha256").hex()[:32]
        return f"<{number}.{token}@{self.config.hostname}>".encode()

    def admit(self, session: Session) -> bytes | None:
        """The greeting; None: not admitted, and told so."""
        transport = session.transport
        peer = transport.get_extra_info("peername")
        if session.proxied is not None and session.proxied.source is not None:
            peer = session.proxied.source
        session.client = client = _address(peer)
        verdict = self._relay().decide(client) if self._relay is not None else DEFAULT
        if not client:  # reset before it was accepted
            return None
        if refusal := self._unwelcome(client, verdict, transport):
            reply, rule = refusal
            self._refused += 1
            transport.write(reply)
            self.emit(events.SessionRefused("pop3", client, reply.decode().rstrip(), rule))
            return None
        self._crowd.enter(client)
        self._sessions.add(session)
        self._opened += 1
        session.number = next(self._numbers)
        secret = transport.get_extra_info("ssl_object")
        version = secret.version() or "" if secret is not None else ""
        self.emit(
            events.SessionOpened(
                "pop3", session.number, client, peer[1], verdict.action, verdict.rule, version
            )
        )
        if self.config.pop3.apop:
            return self._greeting.replace(b"\r\n", b" " + self.stamp(session.number) + b"\r\n")
        return self._greeting

    def _unwelcome(
        self, client: str, verdict: Verdict, transport: asyncio.BaseTransport
    ) -> tuple[bytes, str] | None:
        """What a client that may not stay is told, and the rule that decided; None: it may."""
        if not verdict.may_connect:
            return NOT_WELCOME, verdict.rule
        if self._draining:
            return SHUTTING_DOWN, verdict.rule
        if self._crowded(client) or not self._room(transport):
            return TOO_MANY, verdict.rule
        if transport.get_extra_info("ssl_object") is not None:
            return None  # counted before its handshake
        excess = self._rates.connection(client, self.door.now())  # one clock for all services
        return None if excess is None else (TOO_FAST, excess.rule)

    def _crowded(self, client: str) -> bool:
        limits = self.config.limits
        return self._crowd.is_full(limits) or self._crowd.has_all_of(client, limits)

    def forget(self, session: Session) -> None:
        """The connection of an admitted session is gone."""
        self._sessions.discard(session)
        self._crowd.leave(session.client)
        self._changed.set()

    def run(
        self,
        session: Session,
        work: Coroutine[Any, Any, bytes],
        done: Callable[[asyncio.Task[bytes]], object],
    ) -> None:
        """Run one command's waiting part. It is held here, not by its session, as it may outlive the
        connection."""
        task = self.loop.create_task(work)
        self._tasks[task] = session
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(done)


def _address(peer: Any) -> str:
    """The client's IP address, IPv4 as such where the socket shows it mapped; "" when it is gone already."""
    return str(peer[0]).removeprefix("::ffff:").partition("%")[0] if peer else ""
