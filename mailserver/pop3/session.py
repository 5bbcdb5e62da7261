"""One POP3 connection: octets in, replies out in the order of the commands, one write for a batch (RFC 1939,
2449 6.6).

No task exists while a session is idle. Commands run synchronously; one that must wait (login, a message that
is not in memory, deletion, TLS) hands over a coroutine with ``wait`` and the reader is not asked again before
it is finished. What is large leaves piece by piece, the next piece only when the transport has room: memory
does not grow with the message or with a slow client.

How a session ends decides what happens to marked messages: QUIT deletes, everything else (a lost connection,
a timeout, a bug) deletes nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from mailserver import events
from mailserver.pop3 import authorization, transaction
from mailserver.pop3.maildrop import Maildrop
from mailserver.pop3.outflow import Outflow
from mailserver.pop3.protocol import BadLine, Command, Reader, Refused, State, error
from mailserver.pop3.transfer import Listing, Transfer
from mailserver.store.wire import Octets

if TYPE_CHECKING:
    from mailserver.accounts.door import Attempt
    from mailserver.policy.proxy_protocol import Header
    from mailserver.pop3.server import Pop3Service

AUTOLOGOUT: Final = 600.0  # seconds of silence granted in TRANSACTION at least, RFC 1939 section 3
LINGER: Final = 30.0  # seconds a closing connection may take to accept what is still to be sent
TURN: Final = 256  # commands of one session answered before others get their turn
TURN_OCTETS: Final = 128 << 10  # octets of replies, likewise: a short command may have a long answer
PENDING_MAX: Final = 64 << 10  # octets of pipelined input held while a command waits

INTERNAL_ERROR: Final = error("[SYS/TEMP] internal error")
TOO_MANY_ERRORS: Final = error("too many errors, closing")

Action = Callable[["Session", list[bytes]], bytes]
ACTIONS: Final[Mapping[str, Action]] = {**authorization.ACTIONS, **transaction.ACTIONS}


class Session(asyncio.Protocol):
    """State of one connection. Other files of this room use its public attributes and ``wait``, ``send``,
    ``end``."""

    __slots__ = (
        "_closing", "_deaf", "_eof", "_lost", "_outflow", "_paused", "_reader", "_waiting",
        "active", "bytes_in", "bytes_out", "client", "errors", "exchange", "failures", "maildrop", "number",
        "opened", "proxied", "service", "state", "tls", "transport", "user",
        "utf8",
    )  # fmt: skip

    def __init__(self, service: Pop3Service, *, tls: bool, proxied: Header | None = None) -> None:
        self.service, self.proxied = service, proxied
        self.transport: asyncio.Transport
        self.number, self.client = 0, ""
        self.tls = tls
        self.state = State.AUTHORIZATION
        self.opened = self.active = service.now()
        self.user: bytes | None = None  # what USER said
        self.exchange: Attempt | None = None  # a SASL exchange under way: lines are responses, not commands
        self.maildrop: Maildrop | None = None
        self.failures = self.errors = self.bytes_in = self.bytes_out = 0
        self.utf8 = False  # the client takes headers in UTF-8
        self._reader = Reader()
        self._outflow: Outflow | None = None  # a large reply on its way
        self._waiting = False  # a command has not been answered to its end
        self._paused = False  # the client does not read as fast as we write
        self._deaf = False  # we do not read: enough input is waiting
        self._eof = False  # the client will send nothing more
        self._closing = ""  # the reason, once the end is decided
        self._lost = False

    # ---- called by the loop --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        greeting = self.service.admit(self)
        if greeting is None:
            self._lost = True  # refused: never counted, so never forgotten
            self.transport.close()
        else:
            self.transport.write(greeting)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._reader.feed(data)
        self.bytes_in += len(data)
        if not self._waiting:
            self._advance([])
        elif self._reader.pending > PENDING_MAX:
            self._stop_reading()

    def eof_received(self) -> bool:
        """What was asked for before is still answered: a client may half-close behind its last command."""
        self._eof = True
        return not self.tls and self.at_work

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.active = self.service.now()
        if self._outflow is not None:
            self._outflow.go()
        elif not self._waiting and not self._closing:
            self._advance([])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it was lost changes nothing
        if self._lost:
            return
        self._lost = True
        self._closing = self._closing or "lost"
        if self._outflow is not None:
            self._outflow.abandon()
            self._outflow = None
        if self.exchange is not None:
            authorization.leave(self)
        if self.state is not State.UPDATE:
            self.leave()
        seconds = self.service.now() - self.opened
        self.service.forget(self)
        self.service.emit(
            events.SessionClosed(
                "pop3",
                self.number,
                self.client,
                self._closing,
                seconds,
                bytes_in=self.bytes_in,
                bytes_out=self.bytes_out,
            )
        )

    # ---- answering -----------------------------------------------------------------------------------------
    def _advance(self, out: list[Octets]) -> None:
        """Answer what can be answered now; ``out`` holds what must be written first."""
        try:
            self._answer(out)
        except Exception:  # a bug ends its session, never the server
            out.append(self._broken())
        self.send(b"".join(out))
        if self._eof and not self.at_work:
            self.end("lost")
        if self._closing:
            self.transport.close()

    def _answer(self, out: list[Octets]) -> None:
        commands = octets = 0
        while not (self._waiting or self._paused or self._closing):
            if commands == TURN or octets > TURN_OCTETS:
                self._waiting = True
                self.service.loop.call_soon(self.finish, b"")
                return
            reply = self._next()
            if reply is None:
                return
            out.append(reply)
            commands += 1
            octets += len(reply)

    def _next(self) -> bytes | None:
        """The answer to the next line; None: there is no line yet."""
        found: Command | BadLine | bytes | None
        verb = ""
        try:
            if self.exchange is None:
                found = self._reader.next(self.state)
                if type(found) is Command:
                    verb = found.verb
                    return ACTIONS[verb](self, found.args)
            else:
                found = self._reader.next_line()
                if type(found) is bytes:
                    verb = "AUTH"
                    return authorization.respond(self, found)
        except Refused as refusal:
            return self._refuse(refusal.reply, verb, counts=refusal.counts)
        if not isinstance(found, BadLine):
            return None
        self.exchange = None
        if found.fatal:
            self.end("errors")
        return self._refuse(found.reply, verb)

    def _refuse(self, reply: bytes, verb: str, *, counts: bool = True) -> bytes:
        self.errors += counts
        if self.errors > self.service.config.limits.errors and not self._closing:
            self.end("errors")
            reply = TOO_MANY_ERRORS
        text = reply.decode().rstrip()
        self.service.emit(events.CommandRefused("pop3", self.number, self.client, verb, text))
        return reply

    def _broken(self) -> bytes:
        self.service.emit(events.Problem("pop3", f"session {self.number} failed", traceback.format_exc()))
        self.end("bug")
        return INTERNAL_ERROR

    def send(self, data: Octets) -> None:
        """Write to the client, unless it is gone."""
        if data and not self._lost:
            self.bytes_out += len(data)
            self.active = self.service.now()
            self.transport.write(data)

    def end(self, reason: str) -> None:
        """No further command is read; the connection is closed after the reply under way."""
        self._closing = self._closing or reason

    def leave(self) -> None:
        """The maildrop is given back, without deleting anything here."""
        if (maildrop := self.maildrop) is not None:
            self.maildrop = None
            maildrop.close()
            self.service.emit(
                events.MailboxClosed(self.number, maildrop.mailbox, maildrop.retrieved, maildrop.removed)
            )

    @property
    def lost(self) -> bool:
        """The connection is gone; a coroutine may find so after having waited."""
        return self._lost

    @property
    def paused(self) -> bool:
        """The client does not read as fast as we write."""
        return self._paused

    # ---- commands that wait --------------------------------------------------------------------------------
    def wait(self, work: Coroutine[Any, Any, bytes]) -> bytes:
        """Let ``work`` find the answer; it is finished even if the client leaves. Returns b"", nothing to say
        yet."""
        self._waiting = True
        self.service.run(self, work, self._worked)
        return b""

    def _worked(self, task: asyncio.Task[bytes]) -> None:
        if task.cancelled():
            return
        try:
            reply = task.result()
        except Refused as refusal:
            reply = self._refuse(refusal.reply, "", counts=refusal.counts)
        except Exception:  # a bug, as in _advance
            reply = self._broken()
        if self._outflow is not None:
            self._start_outflow(reply)
        else:
            self.finish(reply)

    def finish(self, reply: Octets) -> None:
        """The command that waited is answered; ``reply`` is the last of it."""
        if self._lost:
            return
        self._outflow = None
        self._waiting = False
        if self._deaf:
            self._deaf = False
            self.transport.resume_reading()
        self._advance([reply])

    def stream(self, source: Transfer | Listing) -> None:
        """Send what ``source`` gives behind the reply under way; then the next command is answered."""
        self._outflow = Outflow(self, source)
        if not self._waiting:  # within a command; within a coroutine finish() starts it
            self._waiting = True
            self.service.loop.call_soon(self._start_outflow, b"")

    def _start_outflow(self, reply: bytes) -> None:
        assert self._outflow is not None
        if self._lost:
            self._outflow.abandon()
        else:
            self.send(reply)
            self._outflow.go()

    # ---- TLS, time -----------------------------------------------------------------------------------------
    def refuse_injection(self) -> None:
        """Commands sent in clear behind STLS would be taken for commands inside TLS (RFC 2595 section 4)."""
        if self._reader.pending:
            self.end("pipelined STLS")
            raise Refused("no command may follow STLS before TLS is negotiated")
        self._stop_reading()

    def _stop_reading(self) -> None:
        if not self._deaf:
            self._deaf = True
            self.transport.pause_reading()

    async def start_tls(self, context: ssl.SSLContext) -> bytes:
        """Everything learnt in clear is forgotten; the client begins anew in AUTHORIZATION."""
        try:
            transport = await self.service.loop.start_tls(
                self.transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self.service.config.limits.handshake_timeout,
                ssl_shutdown_timeout=2.0,
            )
        except (OSError, ssl.SSLError):  # no TLS, or a client that left: its business
            transport = None
        if transport is None:
            self.cut("tls")
            self.connection_lost(None)  # without TLS nobody else reports it
            return b""
        self.transport, self.tls, self.user, self._deaf = transport, True, None, False
        return b""

    def check_time(self, now: float) -> None:
        """Called once a second: end what has been silent too long. Nothing is deleted, nothing said (RFC 1939
        3)."""
        silent = now - self.active
        if self._closing:
            if silent >= LINGER and self.state is not State.UPDATE:
                self.transport.abort()
            return
        limits, anonymous = self.service.config.limits, self.state is State.AUTHORIZATION
        limit = limits.idle_timeout if anonymous else max(limits.idle_timeout, AUTOLOGOUT)
        dallies = anonymous and now - self.opened >= limits.session_timeout  # commands, but never a login
        if (silent >= limit or dallies) and (self._paused or not self._waiting):
            self.hang_up("timeout")

    def hang_up(self, reason: str) -> None:
        """End the session now, without a word and without deleting."""
        self.end(reason)
        if self._paused:
            self.transport.abort()
        else:
            self.transport.close()

    def cut(self, reason: str) -> None:
        """End the session in the middle of a reply."""
        self.end(reason)
        self.transport.abort()

    @property
    def at_work(self) -> bool:
        """A command is under way or a reply not yet taken."""
        return self._waiting or self._paused
