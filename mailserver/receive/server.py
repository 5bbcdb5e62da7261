"""One listening service (smtp, submission or lmtp): its sockets, its sessions, their limits and deadlines.

Sessions have no timers: one sweep a second compares their deadlines (RFC 5321 4.5.3.2) with the loop's
clock.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Literal, Protocol

from mailserver import reply
from mailserver.accounts.door import Door
from mailserver.config.schema import Config
from mailserver.events import CommandRefused, Emit, Problem, SessionClosed, SessionOpened, SessionRefused
from mailserver.host.listening import Server, Tls, listen
from mailserver.message.address import Address
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope
from mailserver.policy.crowd import Crowd
from mailserver.policy.networks import Networks
from mailserver.policy.open_relay import OpenRelayGuard
from mailserver.policy.proxy_protocol import Header
from mailserver.policy.rates import Rates
from mailserver.policy.relay import RelayTable, Verdict
from mailserver.receive.handler import Found, Handler, SenderCheck
from mailserver.receive.listener import LmtpListener, SmtpListener
from mailserver.receive.login import SHUTDOWN_TIMEOUT, tls_version
from mailserver.receive.naming import names_of_ours, unmapped
from mailserver.receive.session import ClientSession
from mailserver.receive.spill import Budget
from mailserver.receive.transfer import storage_reply
from mailserver.receive.wire import Wire
from mailserver.reply import Reply
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Resolution

SWEEP_INTERVAL = 1.0  # seconds
REVIEW_INTERVAL = 30.0  # seconds between two looks at who gets nothing done
_VERDICTS_MAX = 10_000
_NO_NAMES: frozenset[str] = frozenset()
_COMMAND_SHOWN = 500  # characters of a refused command kept in its event


class Accept(Protocol):
    """``Queue.accept``: the future's result is the queue id once the message is durable; OSError when it is
    not."""

    def __call__(
        self, envelope: Envelope, body: Body, *, session: int = 0, rule: str = ""
    ) -> asyncio.Future[str]: ...


Lookup = Callable[[Address], Resolution | Awaitable[Found] | None]


class SmtpService:
    """Sessions of one service on any number of sockets. All calls are made on ``loop``'s thread.

    ``executor`` runs file writes of large messages (None: the loop's default); ``now`` is Unix time.
    ``door`` lets accounts in. ``lookup`` says where mail goes if somebody else must be asked who exists, None if
    the directory knows. ``sender_check``: the answer to MAIL for a domain.
    ``tls`` None: STARTTLS is not offered.
    ``room``: whether this connection can be borne. ``rates`` are shared by all services; None: our own.
    """

    def __init__(
        self, name: Literal["smtp", "submission", "lmtp"], *,
        config: Config, relay: Callable[[], RelayTable], directory: Callable[[], Directory],
        accept: Accept, new_id: Callable[[], str], door: Door, lookup: Lookup = lambda _: None,
        storage_ok: Callable[[], bool], sender_check: SenderCheck | None, tls: ssl.SSLContext | None,
        emit: Emit, now: Callable[[], float], loop: asyncio.AbstractEventLoop, executor: Executor | None = None,
        room: Callable[[asyncio.BaseTransport], bool] = lambda _: True, rates: Rates | None = None,
        gateway: OpenRelayGuard | None = None,
    ) -> None:  # fmt: skip
        self.name, self.config, self.limits = name, config, config.limits
        self.accept, self.door, self.lookup, self.tls = accept, door, lookup, tls
        self.emit, self.now, self.loop, self.executor = emit, now, loop, executor
        self.is_lmtp, self.requires_login = name == "lmtp", name == "submission"
        self.rates = rates or Rates(config.rates, Networks(config.guard.trusted))
        self.gateway = gateway or OpenRelayGuard((), enabled=False)
        self.budget = Budget(config.limits.body_memory)
        self.converter = ThreadPoolExecutor(1, "binary-mail")  # one at a time: a conversion takes much memory
        self.handler = Handler(self, directory, new_id, storage_ok, sender_check)
        self.clock, self.draining, self._relay = loop.time(), False, relay
        self._reviewed = self.clock
        self.new_listener: Callable[[], Wire] = functools.partial(
            LmtpListener if self.is_lmtp else SmtpListener, self
        )
        self._room = room
        self.servers: list[Server] = []
        self._sessions: set[Wire] = set()
        self._crowd = Crowd()
        self._judged_by: RelayTable | None = None
        self._verdicts: dict[str, Verdict] = {}
        self._number = self._refused = self._messages = 0
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self.reconfigure(config)

    # ---- life ------------------------------------------------------------------------------------
    async def start(self, sockets: list[socket.socket], tls_sockets: list[socket.socket]) -> None:
        """Accept connections on bound sockets; ``tls_sockets`` speak TLS from the first octet."""
        await self._listen(sockets, None)
        if self.tls is not None:
            await self._listen(tls_sockets, Tls(self.tls, SHUTDOWN_TIMEOUT))
        if self._timer is None:
            self._tick()

    async def _listen(self, sockets: list[socket.socket], tls: Tls | None) -> None:
        for sock in sockets:
            server = await listen(
                self.loop, sock, self._make, tls=tls, config=lambda: self.config,
                refused=self._hung_up_on, barred=self._barred,
            )  # fmt: skip
            self.servers.append(server)

    def _make(self, header: Header | None) -> Wire:
        listener = self.new_listener()
        if header is not None:
            listener.proxied = header
        return listener

    def _hung_up_on(self, peer: str, reason: str) -> None:
        self._refused += 1
        self.emit(SessionRefused(self.name, peer, reason))

    def _barred(self, peer: str) -> str:
        """Why a client is not worth a TLS handshake; "": it is, and has been counted for [rates]."""
        client = unmapped(peer)
        if refusal := self._crowded(client):
            return refusal.text
        return excess.rule if (excess := self.rates.connection(client, self.now())) else ""

    def reconfigure(self, config: Config) -> None:
        """New settings for the next command of every session; nobody is disconnected."""
        self.config, self.limits = config, config.limits
        self.idle_timeout, self.data_timeout = config.limits.idle_timeout, config.limits.data_timeout
        self.data_quota = int(config.limits.data_timeout * config.limits.minimum_rate)
        self.own = Networks((*config.guard.trusted, *config.proxy.trusted))
        self.budget.limit = config.limits.body_memory
        self.greeting = f"220 {config.hostname} {'LMTP' if self.is_lmtp else 'ESMTP'}\r\n".encode()
        self.handler.configure(config)

    async def drain(self, deadline: float) -> None:
        """Stop accepting, dismiss idle clients with 421, let transactions finish until ``deadline``
        (``now`` time)."""
        self.draining = True
        for server in self.servers:
            server.close()
        for session in [s for s in self._sessions if s.idle]:
            session.say_and_close(reply.SHUTTING_DOWN, "shutdown")
        if self._sessions:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=max(0.0, deadline - self.now()))
        for session in list(self._sessions):
            session.say_and_close(reply.SHUTTING_DOWN, "shutdown")
        if self._timer is not None:
            self._timer.cancel()
        self.converter.shutdown(wait=False)

    def status(self) -> dict[str, int]:
        """Numbers for people and monitors."""
        return {
            "connections": len(self._sessions),
            "addresses": self._crowd.addresses,
            "sessions": self._number,
            "refused": self._refused,
            "messages": self._messages,
            "body_memory": self.budget.used,
            "listeners": len(self.servers),
        }

    # ---- time ------------------------------------------------------------------------------------
    def _tick(self) -> None:
        self.sweep(self.loop.time())
        self._timer = self.loop.call_later(SWEEP_INTERVAL, self._tick)

    def sweep(self, now: float) -> None:
        """End the sessions whose deadline, counted from the sweep before, is over. ``now`` is loop time."""
        self.clock = now
        self.budget.give(0)  # a waiter goes on even if everybody else stalls
        for session in [s for s in self._sessions if s.deadline < now - SWEEP_INTERVAL]:
            session.expire()
        if now - self._reviewed >= REVIEW_INTERVAL:
            self._reviewed = now
            patience, rate = self.limits.session_timeout, self.limits.minimum_rate
            for session in [s for s in self._sessions if s.drags(now, patience, rate)]:
                session.say_and_close(reply.NO_PROGRESS, "no progress")

    # ---- connections -----------------------------------------------------------------------------
    def connected(self, listener: Wire, transport: asyncio.Transport) -> None:
        """Count, judge and greet a new client; or refuse it and hang up, or turn it away and wait for its QUIT."""
        peer = transport.get_extra_info("peername")
        if not peer:
            transport.abort()  # it was gone before we came
            return
        client, header = unmapped(peer[0]), listener.proxied
        if header is not None and header.source is not None:
            client, peer = header.source.host, header.source
        verdict = self._verdict(client, header)
        refusal = self._unwelcome(client, verdict, transport)
        if refusal is not None:
            self._refused += 1
            self.emit(SessionRefused(self.name, client, refusal.text, verdict.rule))
            if refusal.close:
                transport.write(refusal.wire)
                transport.close()
                return
        self._number += 1
        session = ClientSession(self.loop, self._number, (client, peer[1]), verdict, self.now())
        listener.session = session
        if header is not None:
            session.proxied = header
        session.tls = tls_version(transport)
        self._sessions.add(listener)
        self._crowd.enter(client)
        listener.deadline = self.clock + self.idle_timeout
        self.emit(
            SessionOpened(self.name, self._number, client, peer[1], verdict.action, verdict.rule, session.tls)
        )
        if refusal is not None:
            listener.turn_away(refusal)
        else:
            self._greet(listener, session)

    def _greet(self, listener: Wire, session: ClientSession) -> None:
        settings = self.config.smtp
        if self.name != "smtp" or not settings.refuse_early_talkers or self._may_hurry(listener, session):
            listener.greet()
        elif settings.greeting_delay:
            listener.hold_greeting(settings.greeting_delay)
        else:
            listener.greet(strictly=True)

    def _may_hurry(self, listener: Wire, session: ClientSession) -> bool:
        """Only strangers must wait for their turn; our own networks, this machine, and a proxy that speaks for
        itself may be careless."""
        if session.verdict.action == "relay" or session.client in self.own:
            return True
        if session.proxied is not None and session.proxied.local:
            return True
        return session.client == listener.local_address

    def names_of_ours(self, listener: Wire) -> frozenset[str]:
        """What this client may not call itself; nothing where the name is no sign of anything."""
        checked = self.name == "smtp" and self.config.smtp.refuse_our_name
        if not checked or self._may_hurry(listener, listener.session):
            return _NO_NAMES
        return names_of_ours(self.config.hostname, listener.local_address)

    def named(self, session: ClientSession, helo: str) -> None:
        """Somebody whom a rule lets relay has said its name, for the first time on its connection."""
        if session.proxied is None and (text := self.gateway.see(session.client, helo, self.now())):
            self.emit(Problem(f"receive/{self.name}", text))

    def _verdict(self, client: str, header: Header | None) -> Verdict:
        """A proxy that names no client may not relay for whoever that is."""
        verdict = self._judged(client, counted=header is None)
        if header is None or not header.local or verdict.action != "relay":
            return verdict
        return Verdict("accept", f"{verdict.rule}, void: a proxy without a client")

    def _judged(self, client: str, *, counted: bool) -> Verdict:
        """Remembered while the table stays the same object: a reload makes a new one."""
        table = self._relay()
        if table is not self._judged_by or len(self._verdicts) > _VERDICTS_MAX:
            self._judged_by, self._verdicts = table, {}
        verdict = self._verdicts.get(client)
        if verdict is None:
            verdict = self._verdicts[client] = table.decide(client)
            if counted:
                self.gateway.see(client, "", self.now())
        return verdict

    def _unwelcome(self, client: str, verdict: Verdict, transport: asyncio.Transport) -> Reply | None:
        if self.draining:
            return reply.SHUTTING_DOWN
        if not self._room(transport):
            return reply.TOO_MANY_CONNECTIONS
        if refusal := self._crowded(client):
            return refusal
        counted = transport.get_extra_info("ssl_object")  # before its handshake
        excess = counted is None and self.rates.connection(client, self.now())
        if excess:
            return reply.TOO_MANY_FROM_YOU
        return None if verdict.may_connect else reply.NOT_WELCOME

    def _crowded(self, client: str) -> Reply | None:
        if self._crowd.is_full(self.limits):
            return reply.TOO_MANY_CONNECTIONS
        return reply.TOO_MANY_FROM_YOU if self._crowd.has_all_of(client, self.limits) else None

    def disconnected(self, listener: Wire) -> None:
        """The connection is gone."""
        if listener not in self._sessions:
            return
        self._sessions.discard(listener)
        session = listener.session
        self._crowd.leave(session.client)
        self._messages += session.messages
        self.emit(
            SessionClosed(
                self.name,
                session.number,
                session.client,
                listener.reason,
                round(self.now() - session.opened, 3),
                session.messages,
                listener.octets_in,
                listener.octets_out,
            )
        )
        if self._empty is not None and not self._sessions and not self._empty.done():
            self._empty.set_result(None)

    # ---- what went wrong -------------------------------------------------------------------------
    def refused(self, listener: Wire, answer: Reply) -> None:
        """A client was told 4xx or 5xx."""
        session, transaction = listener.session, listener.envelope
        self.emit(
            CommandRefused(
                self.name,
                session.number,
                session.client,
                listener.command[:_COMMAND_SHOWN],
                answer.text,
                listener.rule or session.verdict.rule,
                transaction.mail_from if transaction is not None else None,
            )
        )
        listener.rule = ""

    def bug(self, error: BaseException, listener: Wire, id: str = "") -> Reply:
        """Our fault, never the client's: it is told to try again, the log gets the traceback."""
        trace = "".join(traceback.format_exception(error))
        self.emit(Problem(f"receive/{self.name}", f"session {listener.session.number}: {error!r}", trace, id))
        return reply.OUR_FAULT

    def storage_failed(self, error: BaseException, listener: Wire, id: str = "") -> Reply:
        """A disk said no: 452 when it is full (the log says of what), 451 and a Problem when it is sick."""
        if full := storage_reply(error):
            listener.rule = str(error)
        return full or self.bug(error, listener, id)
