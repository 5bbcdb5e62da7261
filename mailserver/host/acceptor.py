"""A listener whose clients have something to do before they belong to a service: a PROXY header, a TLS handshake.

Until then they are counted here, all together and from each address, by the limits of the sessions they want to become;
else whoever never finishes a handshake could have any number of connections.

The header is read from the bare socket and not an octet more (it is peeked at first), so what follows, a TLS handshake
in the same segment among it, is still in the kernel for the service's own protocol. Only peers that are expected to
send a header are waited for, ``timeout`` seconds each.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from mailserver.policy.proxy_protocol import V2_MAX, Expected, Header, ProxyError, parse

ACCEPTS_PER_TURN = 64  # then others get their turn
PAUSE = 1.0  # seconds without accepting when descriptors are used up


class Acceptor:
    """Accepts on ``listener`` (bound, listening, non-blocking) as asyncio.Server does; ``sockets`` and ``close`` too.

    ``judge``: peer address → what it begins with. ``connect`` takes over the socket, with its header or None, and
    returns when the connection is the service's. ``refused``: peer address and reason of who was hung up on, for an
    event. ``most``: how many may be on their way, all together and from one address; proxies have only the former.
    ``barred``: asked once for each client, as soon as its address is known: why it may not go on, "" if it may.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        loop: asyncio.AbstractEventLoop,
        judge: Callable[[str], Expected],
        connect: Callable[[socket.socket, Header | None], Awaitable[object]],
        refused: Callable[[str, str], None],
        barred: Callable[[str], str],
        most: Callable[[], tuple[int, int]],
        timeout: Callable[[], float],
    ) -> None:
        self.sockets = (listener,)
        self._listener, self._loop = listener, loop
        self._judge, self._connect, self._refused, self._barred = judge, connect, refused, barred
        self._most, self._timeout = most, timeout
        self._from: Counter[str] = Counter()  # no proxies
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        loop.add_reader(listener, self._accept)

    @property
    def waiting(self) -> int:
        """Connections that do not belong to the service yet."""
        return len(self._tasks)

    def close(self) -> None:
        """Stop listening; who is still sending its header is hung up on."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener)
            self._listener.close()
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: trying again at once would be a busy loop
                self._loop.remove_reader(self._listener)
                self._timer = self._loop.call_later(
                    PAUSE, self._loop.add_reader, self._listener, self._accept
                )
                return
            self._begin(connection, str(address[0]))

    def _begin(self, connection: socket.socket, peer: str) -> None:
        connection.setblocking(False)
        expected, (most, most_of_one) = self._judge(peer), self._most()
        why = ""
        if expected is Expected.REFUSED:
            why = "it is no proxy of [proxy] trusted"
        elif len(self._tasks) >= most or self._from[peer] >= most_of_one:
            why = "too many are waiting"
        elif expected is Expected.NOTHING:
            why = self._barred(peer)
        if why:
            connection.close()
            self._refused(peer, why)
            return
        task = self._loop.create_task(self._hand_over(connection, peer, expected))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if expected is Expected.NOTHING:
            self._from[peer] += 1
            task.add_done_callback(lambda _: self._gone(peer))

    def _gone(self, peer: str) -> None:
        self._from[peer] -= 1
        if not self._from[peer]:
            del self._from[peer]

    async def _hand_over(self, connection: socket.socket, peer: str, expected: Expected) -> None:
        header = None
        try:
            if expected is Expected.HEADER:
                async with asyncio.timeout(self._timeout()):
                    header = await self._header(connection)
        except (ProxyError, OSError) as error:  # TimeoutError is an OSError
            connection.close()
            self._refused(peer, "no PROXY header in time" if isinstance(error, TimeoutError) else str(error))
            return
        except BaseException:
            connection.close()
            raise
        if header is not None and (why := self._barred(header.source.host if header.source else peer)):
            connection.close()
            self._refused(header.source.host if header.source else peer, why)
            return
        with contextlib.suppress(OSError):  # gone meanwhile, or no TLS: nobody to tell
            await self._connect(connection, header)

    async def _header(self, connection: socket.socket) -> Header:
        data = b""
        while True:
            await self._readable(connection)
            try:
                ahead = connection.recv(V2_MAX, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            if not ahead:
                raise ProxyError("it hung up within its PROXY header")
            header = parse(data + ahead)
            if header is not None:
                connection.recv(header.length - len(data))
                return header
            data += connection.recv(len(ahead))  # all of it is the header's

    async def _readable(self, connection: socket.socket) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(connection, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(connection)
