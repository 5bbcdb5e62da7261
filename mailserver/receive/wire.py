"""Octets to commands and replies to octets: aiosmtpd's connection object with another read loop (decision
001).

A synchronous push parser: ``data_received`` hands lines to the verb methods and content to ``_content``
until the octets are used up or something must be waited for. Then the session is *busy*: octets gather in a
bounded buffer, and the awaited future's callback goes on where parsing stopped. All replies to what arrived
together leave in one write (RFC 2920). Only CRLF ends a line. No task, no timer, no stream reader per
connection.
"""

# ruff: noqa: ARG002 - verbs and hooks keep the names and arguments of aiosmtpd and asyncio

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from aiosmtpd.smtp import SMTP

from mailserver import reply
from mailserver.host.sockets import unread
from mailserver.receive.lines import LINE_MAX, Line, recall, understand
from mailserver.receive.naming import unmapped
from mailserver.receive.session import ClientSession, Transaction
from mailserver.reply import Reply

if TYPE_CHECKING:
    from mailserver.accounts.sasl import Channel
    from mailserver.policy.proxy_protocol import Header
    from mailserver.receive.server import SmtpService

logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's logger: our events say all of it, once

BUFFER_MAX = 65_536  # octets kept unread while busy; then the client is not read from
COMMANDS_PER_TURN = 500  # then other sessions get their turn
LINGER = 30.0  # seconds a closing connection has to take our last reply

COMMAND, LOGIN, SKIP, HANDSHAKE, CLOSED, DATA, CHUNK = range(7)  # what the next octets are
NOTHING, ANSWER, GREETING = range(3)  # what a client has to wait for before it says more
FOREVER = float("inf")
_FOREIGN = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "PRI"})

Verb = Callable[[Any, str], Reply | None]


def _only_quit(_wire: Wire, _argument: str) -> Reply:
    return reply.ONLY_QUIT


class Wire(SMTP):
    """One connection below the verbs. ``deadline`` is loop time; the service's sweep calls ``expire`` after
    it.

    A verb method or content step returns its Reply, or None when the reply comes later: it has called
    ``_wait``.
    """

    verbs: Mapping[str, Verb] = MappingProxyType({})
    _closed = None  # what StreamReaderProtocol.__del__ looks at; there is no future to look at here
    session: ClientSession
    envelope: Transaction | None = None
    transport: asyncio.Transport | None = None
    proxied: Header | None = None
    reason = "lost"
    command = rule = ""  # the last command, and what decided about it; for the event of a refusal
    octets_in = octets_out = 0
    _mode = COMMAND
    _awaits = NOTHING
    _due = 0  # octets_in that prolong the time for content
    _buffer = b""
    _busy = _paused = _choked = _ended = False

    def __init__(self, service: SmtpService) -> None:
        # aiosmtpd's own __init__ introspects class and handler, 100 µs for each connection; it is not called.
        self._service = service
        self.deadline = FOREVER

    # ---- the transport's callbacks ---------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse and hang up."""
        self.transport = cast(asyncio.Transport, transport)
        self._service.connected(self, self.transport)

    def data_received(self, data: bytes) -> None:
        """The only way in."""
        self.octets_in += len(data)
        if self._buffer:
            data = self._buffer + data
        if self._awaits and self._is_out_of_turn(data):
            return
        if not self._busy and not self._choked:
            self._run(data)
        elif self._mode != CLOSED:
            self._buffer = data
            if len(data) > BUFFER_MAX:
                self._pause()

    def eof_received(self) -> bool:
        """A client that has sent everything and waits for the last reply keeps the connection until it got
        it."""
        self._ended = True
        return self._busy and not self.session.tls  # a TLS stream has no half-closed state

    def connection_lost(self, error: Exception | None) -> None:
        """A commit under way goes on; everything else of the session is dropped."""
        if self.transport is None:
            return
        self.transport = None
        self._mode, self._buffer = CLOSED, b""
        if not self._busy:
            if self._exchange is not None:
                self._login_left()
            self._abandon()
        self._service.disconnected(self)

    def pause_writing(self) -> None:
        """The client does not take our replies: nothing more is done for it until it does."""
        self._choked = True

    def resume_writing(self) -> None:
        """It took them."""
        self._choked = False
        if not self._busy:
            self._resume()

    # ---- whose turn it is (RFC 5321 4.3.1, RFC 2920 3.1) -----------------------------------------
    def greet(self, *, strictly: bool = False) -> None:
        """The client's turn. ``strictly``: it must not have spoken yet, nor may it go on behind its first command
        before that is answered; so do programs that send mail without looking who is there."""
        if self.transport is None or self._mode == CLOSED:
            return  # it was gone before its turn came
        if strictly:
            self._awaits = GREETING
            if unread(self.transport):
                self._is_out_of_turn(b"")
                return
            self._awaits = ANSWER
        self.transport.write(self._service.greeting)

    def turn_away(self, answer: Reply) -> None:
        """Greet with 554: the client stays until it says QUIT, which is all that it may say (RFC 5321 3.1). BDAT is
        refused as ever, with its chunk."""
        assert self.transport is not None
        kept = {verb: self.verbs[verb] for verb in ("QUIT", "BDAT")}
        self.verbs = dict.fromkeys(self.verbs, _only_quit) | kept
        self.transport.write(answer.wire)

    def hold_greeting(self, delay: float) -> None:
        """Greet, strictly, in ``delay`` seconds."""
        self._awaits = GREETING
        self._service.loop.call_later(delay, functools.partial(self.greet, strictly=True))

    def _is_out_of_turn(self, data: bytes) -> bool:
        """Whether the client ought to have waited; it is told so and hung up on."""
        if self._awaits == ANSWER:
            if self.session.host_name is not None or self._mode != COMMAND:
                self._awaits = NOTHING
                return False
            end = data.find(b"\n") + 1
            if not end or (end == len(data) and not (self.transport and unread(self.transport))):
                return False
        self.command, self.rule = recall(data.partition(b"\n")[0]).text, "smtp.refuse_early_talkers"
        self._service.refused(self, reply.OUT_OF_TURN)
        self.say_and_close(reply.OUT_OF_TURN, "early")
        self._awaits = NOTHING
        return True

    # ---- the push parser -------------------------------------------------------------------------
    def _run(self, data: bytes, answer: Reply | None = None) -> None:
        """Work on ``data`` until it is used up or waiting is needed; ``answer`` is a reply that came late."""
        wire, position, size, turns = b"", 0, len(data), COMMANDS_PER_TURN
        self._buffer = b""
        while True:
            if answer is not None:
                wire += answer.wire
                if answer.code >= 400 or answer.close:
                    wire += self._judge(answer)
                answer = None
            if position >= size or self._busy or self._choked:
                break
            mode = self._mode
            if mode <= LOGIN:
                end = data.find(b"\n", position) + 1
                if not end:
                    break
                turns -= 1
                if turns < 0:
                    self.give_way()
                    break
                answer = self._command(data[position : end - 1])
                position = end
            elif mode >= DATA:
                position, answer = self._received(data, position)
            elif mode == SKIP:
                position, answer = self._skip(data, position)
            elif mode == CLOSED:
                position = size
            else:
                break  # the handshake begins when the reply has left
        self._settle(wire, data[position:] if position < size else b"")

    def _settle(self, wire: bytes, rest: bytes) -> None:
        """One write for all replies; then the deadline, and what the mode wants."""
        service, mode = self._service, self._mode
        if self.transport is None:
            return
        if mode == HANDSHAKE and rest:
            wire = wire[: -len(reply.START_TLS.wire)] + reply.NO_PIPELINED_TLS.wire
            mode = self._mode = CLOSED
            self.reason = "injection"
        if wire:
            self.octets_out += len(wire)
            self.transport.write(wire)
        if self._busy:
            self.deadline = FOREVER
        elif mode >= DATA:
            if self.octets_in >= self._due:  # a trickle prolongs nothing
                self._due = self.octets_in + service.data_quota
                self.deadline = service.clock + service.data_timeout
        elif wire:
            self.deadline = service.clock + service.idle_timeout
        if rest or self._ended or service.draining or mode >= SKIP:
            self._settle_rest(mode, rest)

    def _settle_rest(self, mode: int, rest: bytes) -> None:
        if self._busy:
            self._buffer = rest
            if len(rest) > BUFFER_MAX:
                self._pause()
        elif mode == CLOSED or (self._ended and b"\n" not in rest):
            self._close()
        elif mode == HANDSHAKE:
            self._handshake()
        elif self._service.draining and self.idle:
            self.say_and_close(reply.SHUTTING_DOWN, "shutdown")
        elif len(rest) > LINE_MAX and mode <= LOGIN and b"\n" not in rest:
            self._mode = SKIP
            fault = understand(rest).fault
            if mode == COMMAND and fault is not None and fault.close:  # a chunk may follow: no commands
                self._service.refused(self, fault)
                self.say_and_close(fault, "refused")
        else:
            self._buffer = rest

    def _command(self, octets: bytes) -> Reply | None:
        """One line without its LF."""
        if self._mode == LOGIN:
            if len(octets) > LINE_MAX + 1:
                return self._too_long()
            if octets[-1:] == b"\r":
                return self._login_line(octets[:-1])
            self._mode, self._exchange = COMMAND, None  # 500 is the end of it for the client, too
            return reply.BARE_LINE_END
        line = recall(octets)
        method = self.verbs.get(line.verb)
        if method is None:
            return self._no_command(line)
        self.command = line.text
        try:
            return method(self, line.argument)
        except Exception as error:  # our bug: the client is told to try later, and the session goes on
            return self._service.bug(error, self)

    def _no_command(self, line: Line) -> Reply:
        """Behind a refused AUTH come the name and password of a client that did not wait: not for the log."""
        if not self.command.startswith("AUTH"):
            self.command = line.text
        if line.fault is not None:
            return line.fault
        return reply.NOT_HTTP if line.verb in _FOREIGN else reply.UNKNOWN_COMMAND

    def _received(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        try:
            return self._content(data, position)
        except Exception as error:  # as in _command; but where the message ends is unknown now
            self._mode, self.reason = CLOSED, "bug"
            return len(data), self._service.bug(error, self)

    def _skip(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        """Within a line that is too long."""
        end = data.find(b"\n", position) + 1
        if not end:
            return len(data), None
        self._mode = COMMAND
        return end, self._too_long()

    def _too_long(self) -> Reply:
        if self._exchange is None:
            return reply.LINE_TOO_LONG
        self._mode, self._exchange = COMMAND, None
        return reply.AUTH_LINE_TOO_LONG

    def _judge(self, answer: Reply) -> bytes:
        """A refusal, or the last reply of this session; what has to be said in addition."""
        session = self.session
        if answer.code >= 400:
            self._service.refused(self, answer)
            session.errors += answer.code >= 500
            if answer.close:
                self.reason = "refused"
            elif session.errors >= self._service.limits.errors:
                self.reason = "errors"
                self._mode = CLOSED
                return reply.TOO_MANY_ERRORS.wire
        if answer.close:
            self._mode = CLOSED
        return b""

    # ---- waiting ---------------------------------------------------------------------------------
    _awaited: asyncio.Future[Any] | None = None  # the loop itself holds its tasks weakly

    def _wait(self, future: asyncio.Future[Any], then: Callable[[Any], Reply | None]) -> None:
        """Be busy until ``future`` is done; ``then(future)`` gives the reply. It is called even if the
        client has left meanwhile, when its reply goes nowhere."""
        self._busy, self._awaited = True, future

        def done(future: asyncio.Future[Any]) -> None:
            self._busy = False
            try:
                answer = then(future)
            except Exception as error:
                answer = self._service.bug(error, self)
            if self.transport is None:
                if not self._busy:
                    self._abandon()
            else:
                self._resume(answer)

        future.add_done_callback(done)

    def give_way(self) -> None:
        """Go on in the loop's next turn, behind what is being answered."""
        self._busy = True
        self._service.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._busy = False
        if self.transport is None:
            self._abandon()
        self._resume()

    def _resume(self, answer: Reply | None = None) -> None:
        """Read and parse again after being busy."""
        if self.transport is None:
            return
        if not self._busy:
            self.deadline = self._service.clock + self._service.idle_timeout
        if self._choked and answer is None:
            return
        if self._paused and not self._busy:
            self._paused = False
            self.transport.resume_reading()
        self._run(self._buffer, answer)

    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    # ---- the end ---------------------------------------------------------------------------------
    def _close(self) -> None:
        if self.transport is not None:
            self._mode, self._buffer = CLOSED, b""
            self.deadline = self._service.clock + LINGER
            self.transport.close()

    @property
    def local_address(self) -> str:
        """The IP address the client has connected to; "" when it is gone."""
        here = self.transport.get_extra_info("sockname") if self.transport is not None else None
        return unmapped(here[0]) if here else ""

    def say_and_close(self, answer: Reply, reason: str) -> None:
        """An unasked-for reply (421) and the end."""
        if self.transport is None:
            return
        if self._mode in (CLOSED, HANDSHAKE) or self._choked:
            self.reason = reason if self._mode != CLOSED else self.reason
            self.transport.abort()
            return
        self.reason = reason
        self.transport.write(answer.wire)
        self.octets_out += len(answer.wire)
        self._close()

    def expire(self) -> None:
        """The deadline has passed (RFC 5321 4.5.3.2)."""
        self.say_and_close(reply.TIMED_OUT if self._mode < DATA else reply.TOO_SLOW, "timeout")

    _since = _octets_then = _messages_then = 0.0

    def drags(self, now: float, patience: float, rate: float) -> bool:
        """Whether no message has been accepted for ``patience`` seconds, and one more for every ``rate`` octets
        received. Waiting for us counts as getting on."""
        if self._busy or self.session.messages != self._messages_then or not self._since:
            self._since, self._octets_then, self._messages_then = now, self.octets_in, self.session.messages
        return now - self._since > patience + (self.octets_in - self._octets_then) / rate

    @property
    def idle(self) -> bool:
        """Nothing would be lost by hanging up now."""
        at_work = self._busy and self._exchange is None  # a login may be waiting for its turn
        return not at_work and self.envelope is None and self._mode <= SKIP

    # ---- what the verbs' layer adds --------------------------------------------------------------
    _exchange: Any = None

    def _content(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        raise NotImplementedError

    def channel(self) -> Channel:
        raise NotImplementedError

    def _login_line(self, line: bytes) -> Reply | None:
        raise NotImplementedError

    def _login_left(self) -> None:
        raise NotImplementedError

    def _handshake(self) -> None:
        raise NotImplementedError

    def _abandon(self) -> None:
        raise NotImplementedError

    def _reset(self) -> None:
        raise NotImplementedError

    def squeeze(self) -> None:
        """Memory for messages being received is used up."""
        raise NotImplementedError
