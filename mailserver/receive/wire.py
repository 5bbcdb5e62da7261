"""Octets to commands and replies to octets: aiosmtpd's connection object with another read loop (decision 001).

A synchronous push parser: ``data_received`` hands lines to the verb methods and content to ``_content`` until the
octets are used up or something must be waited for. Then the session is *busy*: octets gather in a bounded buffer,
and the awaited future's callback goes on where parsing stopped. All replies to what arrived together leave in one
write (RFC 2920). Only CRLF ends a line. No task, no timer, no stream reader per connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aiosmtpd.smtp import SMTP

from mailserver import reply
from mailserver.receive.session import ClientSession, Transaction
from mailserver.reply import Reply

if TYPE_CHECKING:
    from mailserver.receive.server import SmtpService

logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's logger: our events say all of it, once

COMMAND_MAX = 510  # octets without CRLF, RFC 5321 4.5.3.1.4
LINE_MAX = 12_288  # longest line of all, an authentication response (RFC 4954 4)
EXTENDED_MAX = {
    "MAIL": 510 + 26 + 17 + 10 + 500 + 9 + 107,  # RFC 1870, 6152, 6531, 4954, 3461 each add to it
    "RCPT": 510 + 28 + 507,  # RFC 3461 5.1
    "AUTH": LINE_MAX,
}
BUFFER_MAX = 65_536  # octets kept unread while busy; then the client is not read from
COMMANDS_PER_TURN = 500  # then other sessions get their turn
LINGER = 30.0  # seconds a closing connection has to take our last reply

COMMAND, LOGIN, SKIP, HANDSHAKE, CLOSED, DATA, CHUNK = range(7)  # what the next octets are
FOREVER = float("inf")
_FOREIGN = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "PRI"})

Verb = Callable[[Any, str], Reply | None]


class Wire(SMTP):
    """One connection below the verbs. ``deadline`` is loop time; the service's sweep calls ``expire`` after it.

    A verb method or content step returns its Reply, or None when the reply comes later: it has called ``_wait``.
    """

    verbs: ClassVar[dict[str, Verb]] = {}
    _closed = None  # what StreamReaderProtocol.__del__ looks at; there is no future to look at here
    session: ClientSession
    envelope: Transaction | None = None
    transport: asyncio.Transport | None = None
    reason = "lost"
    command = rule = ""  # the last command, and what decided about it; for the event of a refusal
    octets_in = octets_out = 0
    _mode = COMMAND
    _buffer = b""
    _busy = _paused = _choked = _ended = False

    def __init__(self, service: SmtpService) -> None:
        # aiosmtpd's own __init__ introspects class and handler for each connection (100 µs); nothing of it is used.
        self._service = service
        self.deadline = FOREVER

    # ---- the transport's callbacks ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse and hang up."""
        self.transport = cast(asyncio.Transport, transport)
        self._service.connected(self, self.transport)

    def data_received(self, data: bytes) -> None:
        """The only way in."""
        self.octets_in += len(data)
        if self._buffer:
            data = self._buffer + data
        if not self._busy and not self._choked:
            self._run(data)
        elif self._mode != CLOSED:
            self._buffer = data
            if len(data) > BUFFER_MAX:
                self._pause()

    def eof_received(self) -> bool:
        """A client that has sent everything and waits for the last reply keeps the connection until it got it."""
        self._ended = True
        return self._busy and not self.session.tls  # a TLS stream has no half-closed state

    def connection_lost(self, error: Exception | None) -> None:
        """A commit under way goes on; everything else of the session is dropped."""
        if self.transport is None:
            return
        self.transport = None
        self._mode, self._buffer = CLOSED, b""
        if not self._busy:
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

    # ---- the push parser ----------------------------------------------------------------------------------------
    def _run(self, data: bytes, answer: Reply | None = None) -> None:
        """Work on ``data`` until it is used up or waiting is needed; ``answer`` is a reply that came late."""
        out: list[bytes] = []
        position, size, turns = 0, len(data), COMMANDS_PER_TURN
        self._buffer = b""
        while True:
            if answer is not None:
                out.append(answer.wire)
                if answer.code >= 400 or answer.close:
                    self._judge(answer, out)
                answer = None
            if position >= size or self._busy or self._choked:
                break
            mode = self._mode
            if mode <= LOGIN:
                end = data.find(b"\n", position)
                if end < 0:
                    break
                turns -= 1
                if turns < 0:
                    self._yield()
                    break
                line = data[position:end]
                position = end + 1
                answer = self._line(line)
            elif mode >= DATA:
                position, answer = self._received(data, position)
            elif mode == SKIP:
                position = data.find(b"\n", position) + 1 or size
                if data[position - 1 : position] == b"\n":
                    self._mode = COMMAND
                    answer = self._too_long()
            elif mode == CLOSED:
                position = size
            else:
                break  # the handshake begins when the reply has left
        self._flush(out, data[position:] if position < size else b"")

    def _flush(self, out: list[bytes], rest: bytes) -> None:
        """One write for everything; then what the mode wants."""
        service, mode = self._service, self._mode
        transport = self.transport
        if transport is None:
            return
        if mode == HANDSHAKE and rest and out:
            out[-1] = reply.NO_PIPELINED_TLS.wire
            mode = self._mode = CLOSED
            self.reason = "injection"
        if out:
            wire = out[0] if len(out) == 1 else b"".join(out)
            self.octets_out += len(wire)
            transport.write(wire)
            self.deadline = service.clock + service.idle_timeout
        if mode >= DATA:
            self.deadline = service.clock + service.data_timeout
        if self._busy:
            self.deadline = FOREVER
        elif len(rest) > LINE_MAX and mode <= LOGIN and b"\n" not in rest:
            self._mode, rest = SKIP, b""
        elif mode == CLOSED or (self._ended and not rest):
            self._close()
            return
        elif service.draining and self.idle:
            self.say_and_close(reply.SHUTTING_DOWN, "shutdown")
            return
        elif mode == HANDSHAKE:
            self._handshake()
        self._buffer = rest

    def _line(self, line: bytes) -> Reply | None:
        """One line without its LF."""
        if line[-1:] != b"\r":
            return self._too_long() if len(line) > LINE_MAX else reply.BARE_LINE_END
        if self._mode == LOGIN:
            return self._login_line(line[:-1])
        try:
            text = line[:-1].decode("ascii")
        except UnicodeDecodeError:
            return self._international(line[:-1])
        verb, _, argument = text.partition(" ")
        method = self.verbs.get(verb)
        if method is None or len(line) > COMMAND_MAX or not text.isprintable():
            return self._unusual(verb.upper(), argument, text)
        return self._call(method, argument, text)

    def _unusual(self, verb: str, argument: str, text: str) -> Reply | None:
        """Lower case, too long, not printable or unknown."""
        if len(text.encode()) > EXTENDED_MAX.get(verb, COMMAND_MAX):
            return self._too_long()
        if any(c < " " or c == "\x7f" for c in text):
            return reply.BARE_LINE_END if "\r" in text else reply.BAD_OCTETS
        method = self.verbs.get(verb)
        if method is None:
            self.command = text
            return reply.NOT_HTTP if verb in _FOREIGN else reply.UNKNOWN_COMMAND
        return self._call(method, argument, text)

    def _international(self, line: bytes) -> Reply | None:
        """Only addresses may be outside ASCII (RFC 6531 3.3); whether they may here is decided there."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return reply.BAD_OCTETS
        verb, _, argument = text.partition(" ")
        verb = verb.upper()
        return self._unusual(verb, argument, text) if verb in ("MAIL", "RCPT", "VRFY") else reply.BAD_OCTETS

    def _call(self, method: Verb, argument: str, text: str) -> Reply | None:
        self.command = text
        try:
            return method(self, argument)
        except Exception as error:  # noqa: BLE001 - our bug: the client is told to try later, the session goes on
            return self._service.bug(error, self)

    def _received(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        try:
            return self._content(data, position)
        except Exception as error:  # noqa: BLE001 - as in _call; where the message ends is unknown now
            self._mode, self.reason = CLOSED, "bug"
            return len(data), self._service.bug(error, self)

    def _too_long(self) -> Reply:
        if self._exchange is None:
            return reply.LINE_TOO_LONG
        self._mode, self._exchange = COMMAND, None
        return reply.AUTH_LINE_TOO_LONG

    def _judge(self, answer: Reply, out: list[bytes]) -> None:
        """A refusal, or the last reply of this session."""
        session = self.session
        if answer.code >= 400:
            self._service.refused(self, answer)
            session.errors += answer.code >= 500
            if session.errors >= self._service.limits.errors and not answer.close:
                answer = reply.TOO_MANY_ERRORS
                out.append(answer.wire)
                self.reason = "errors"
            elif answer.close:
                self.reason = "refused"
        if answer.close:
            self._mode = CLOSED

    # ---- waiting ------------------------------------------------------------------------------------------------
    _awaited: asyncio.Future[Any] | None = None  # the loop itself holds its tasks weakly

    def _wait(self, future: asyncio.Future[Any], then: Callable[[Any], Reply | None]) -> None:
        """Be busy until ``future`` is done; ``then(future)`` gives the reply. It is called even if the client has
        left meanwhile, when its reply goes nowhere."""
        self._busy, self._awaited = True, future

        def done(future: asyncio.Future[Any]) -> None:
            self._busy = False
            try:
                answer = then(future)
            except Exception as error:  # noqa: BLE001 - as in _call
                answer = self._service.bug(error, self)
            if self.transport is None:
                if not self._busy:
                    self._abandon()
            else:
                self._resume(answer)

        future.add_done_callback(done)

    def _yield(self) -> None:
        """Go on in the loop's next turn."""
        self._busy = True
        self._service.loop.call_soon(self._unyield)

    def _unyield(self) -> None:
        self._busy = False
        if self.transport is None:
            self._abandon()
        self._resume()

    def _resume(self, answer: Reply | None = None) -> None:
        """Read and parse again after being busy."""
        if self.transport is None:
            return
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

    # ---- the end ------------------------------------------------------------------------------------------------
    def _close(self) -> None:
        if self.transport is not None:
            self._mode, self._buffer = CLOSED, b""
            self.deadline = self._service.clock + LINGER
            self.transport.close()

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
        self.say_and_close(reply.TIMED_OUT, "timeout")

    @property
    def idle(self) -> bool:
        """Nothing would be lost by hanging up now."""
        return not self._busy and self.envelope is None and self._mode <= SKIP

    # ---- what the verbs' layer adds -----------------------------------------------------------------------------
    _exchange: Any = None

    def _content(self, data: bytes, position: int) -> tuple[int, Reply | None]:
        raise NotImplementedError

    def _login_line(self, line: bytes) -> Reply | None:
        raise NotImplementedError

    def _handshake(self) -> None:
        raise NotImplementedError

    def _abandon(self) -> None:
        raise NotImplementedError
