"""One connection to a peer: bytes out, whole replies in. The only importer of aiosmtplib.

aiosmtplib's protocol answers one command at a time and drops what it did not wait for (its
protocol.py:179), so replies are read here into a queue: pipelined commands (RFC 2920) are one write and
then one ``reply()`` each, which suspends only when the reply has not come yet. Bounded: 64 KiB of unread
replies. Timeouts cost no timer per command: one watchdog per connection looks whether the deadline has
moved.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

from aiosmtplib.protocol import SMTPProtocol

from mailserver.deliver.outcome import ConnectionEnded, Reply

BUFFER_MAX = 65536  # octets of replies that nobody has read yet
TLS_SHUTDOWN = 2.0  # seconds; the default of 30 would keep dead connections around
_CODES = {b"%d" % code: code for code in range(200, 600)}


class Connection(SMTPProtocol):
    """``replies`` are read with ``reply()``. ``closed`` is done when the transport is gone.

    Data that comes while nothing is outstanding (``idle``) breaks the connection: it is a 421 or worse.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.idle = False
        self._tail = b""
        self._lines: list[bytes] = []
        self._held = 0
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._end: ConnectionEnded | None = None
        self._deadline = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._watchdog_at = 0.0

    # ---- what the transport tells ----
    def data_received(self, data: bytes) -> None:
        if self._end is not None:
            return
        if self.idle:
            self._break(ConnectionEnded("unexpected data from the peer", "4.5.0"))
            return
        self._held += len(data)
        if self._held > BUFFER_MAX:
            self._break(ConnectionEnded("too long a reply", "4.5.0"))
            return
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            code, mark = _CODES.get(line[:3]), line[3:4]
            if code is None or mark not in {b" ", b"-", b"", b"\r"}:
                self._break(ConnectionEnded("no SMTP reply but nonsense", "4.5.0"))
                return
            self._lines.append(line[4:].rstrip())
            if mark != b"-":
                text = self._lines[0] if len(self._lines) == 1 else b"\n".join(self._lines)
                self._lines.clear()
                self._replies.append(Reply(code, text.decode("utf-8", "backslashreplace")))
        if self._replies:
            self._wake()

    def eof_received(self) -> bool:
        return False  # the transport closes itself and connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._end is None:
            self._end = ConnectionEnded("lost connection")
        super().connection_lost(exc)
        self._wake()
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)
        if not self._closed_future.done():
            self._closed_future.set_result(None)

    # ---- what the conversation uses ----
    @property
    def closed(self) -> asyncio.Future[None]:
        """Done when the transport is gone."""
        return self._closed_future

    @property
    def alive(self) -> bool:
        """Whether another command could be sent; nothing may be left unread."""
        return self._end is None and self.is_connected and not self._replies and not self._tail

    @property
    def unasked(self) -> bool:
        """The peer has said more than it was asked for."""
        return bool(self._replies or self._tail or self._lines)

    async def reply(self, timeout: float) -> Reply:  # noqa: ASYNC109 - the watchdog keeps it, without a task or timer
        """The next reply. Raises ConnectionEnded: lost, nonsense, or nothing within ``timeout`` seconds."""
        while not self._replies:
            if self._end is not None:
                raise self._end
            self._set_deadline(timeout)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._deadline = 0.0
        reply = self._replies.popleft()
        if not self._replies:
            self._held = len(self._tail) + sum(map(len, self._lines))
        return reply

    def send(self, data: bytes | bytearray) -> None:
        """Write without waiting. Raises ConnectionEnded."""
        if self._end is not None or self.transport is None or self.transport.is_closing():
            raise self._end or ConnectionEnded("lost connection")
        cast(asyncio.WriteTransport, self.transport).write(data)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - same
        """Wait, ``timeout`` seconds at most, until most of what was sent is taken. Raises ConnectionEnded."""
        if self._paused and self._end is None:
            self._set_deadline(timeout)
            try:
                await self._drain_helper()
            except ConnectionResetError:
                pass  # told below, in one voice
            finally:
                self._deadline = 0.0
        if self._end is not None:
            raise self._end

    async def encrypt(self, context: ssl.SSLContext, name: str, timeout: float) -> None:  # noqa: ASYNC109 - same
        """TLS from here on, after the peer's 220. Raises OSError (ssl.SSLError too), ConnectionEnded."""
        if self.unasked:
            raise ConnectionEnded("plaintext after STARTTLS", "4.7.5")  # an injection (RFC 3207 6)
        if self.transport is None or self._end is not None:
            raise self._end or ConnectionEnded("lost connection")
        transport = await self._loop.start_tls(
            cast(asyncio.WriteTransport, self.transport),
            self,
            context,
            server_hostname=name,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=TLS_SHUTDOWN,
        )
        if transport is None:
            raise ConnectionEnded("lost connection")
        self.transport = transport
        self._over_ssl = True

    def quit(self, timeout: float) -> None:
        """Say goodbye and close when the peer answers, or after ``timeout`` seconds. Nobody needs to wait."""
        if self._end is not None or self.transport is None:
            return
        cast(asyncio.WriteTransport, self.transport).write(b"QUIT\r\n")
        self.idle = True  # the 221, or anything else, closes
        self._set_deadline(timeout)

    def abort(self) -> None:
        """Hang up at once."""
        self._break(ConnectionEnded("lost connection"))

    # ---- inside ----
    def _break(self, end: ConnectionEnded) -> None:
        if self._end is None:
            self._end = end
        if self.transport is not None:
            cast(asyncio.WriteTransport, self.transport).abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_deadline(self, timeout: float) -> None:
        self._deadline = self._loop.time() + timeout
        if self._watchdog is None or self._watchdog_at > self._deadline:
            self._start_watchdog()

    def _start_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog_at = self._deadline
        self._watchdog = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._watchdog = None
        if self._deadline == 0.0:
            return  # nobody waits; the next wait starts it again
        if self._loop.time() < self._deadline:
            self._start_watchdog()
        else:
            self._break(ConnectionEnded("timed out", silent=True))


async def connect(
    address: str,
    port: int,
    timeout: float,  # noqa: ASYNC109 - RFC 5321 4.5.3.2 names it so
    *,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
) -> Connection:
    """A TCP connection to an IP address, with TLS from the start when ``tls`` is given.

    Raises OSError (ssl.SSLError, TimeoutError too). ``timeout`` in seconds covers both handshakes.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if tls is None:
            _, connection = await loop.create_connection(lambda: Connection(loop), address, port)
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                address,
                port,
                ssl=tls,
                server_hostname=name or address,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=TLS_SHUTDOWN,
            )
    return connection
