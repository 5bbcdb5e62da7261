"""One listening socket of a service: accepted by the loop itself, or by us where there is something to do first."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from mailserver.config.schema import Config
from mailserver.host.acceptor import Acceptor
from mailserver.host.sockets import address_of
from mailserver.policy.networks import Networks
from mailserver.policy.proxy_protocol import Expected, Header, expected, looks_at_headers

BACKLOG = 2048

Server = asyncio.Server | Acceptor


class Tls(NamedTuple):
    """TLS from the first octet; ``shutdown``: seconds for its end."""

    context: ssl.SSLContext
    shutdown: float


async def listen(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    make: Callable[[Header | None], asyncio.Protocol],
    *,
    tls: Tls | None,
    config: Callable[[], Config],
    refused: Callable[[str, str], None],
    barred: Callable[[str], str],
) -> Server:
    """Accept on a bound socket. ``make`` gives a connection's protocol; its argument is the PROXY header it began with.

    ``config`` is asked for each connection; whether headers are looked at on a socket without TLS is decided here.
    ``refused``: address and reason of who was hung up on before there was a protocol. ``barred``: why a client may not
    begin a handshake; asked once for each connection to a socket with ``tls``, and on no other.
    """
    address = address_of(sock)
    if tls is None and not looks_at_headers(config().proxy, address):
        return await loop.create_server(lambda: make(None), sock=sock, backlog=BACKLOG)

    def judge(peer: str) -> Expected:
        now = config().proxy
        return expected(now, Networks(now.trusted), address, peer.removeprefix("::ffff:"))

    async def connect(connection: socket.socket, header: Header | None) -> None:
        await loop.connect_accepted_socket(
            lambda: make(header),
            connection,
            ssl=tls and tls.context,
            ssl_handshake_timeout=config().limits.handshake_timeout if tls else None,
            ssl_shutdown_timeout=tls and tls.shutdown,
        )

    def most() -> tuple[int, int]:
        limits = config().limits
        return limits.connections, limits.connections_per_address

    sock.listen(BACKLOG)
    sock.setblocking(False)
    return Acceptor(
        sock, loop=loop, judge=judge, connect=connect, refused=refused, most=most,
        barred=barred if tls else lambda _: "", timeout=lambda: config().proxy.timeout,
    )  # fmt: skip
