"""One listening socket of a service: accepted by the loop itself, or behind proxies that name the client first."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from mailserver.config.trust import Proxy
from mailserver.config.units import SocketAddress
from mailserver.host.proxied import ProxiedListener
from mailserver.policy.networks import Networks
from mailserver.policy.proxy_protocol import Expected, Header, expected, looks_at_headers

BACKLOG = 2048

Server = asyncio.Server | ProxiedListener


class Tls(NamedTuple):
    """TLS from the first octet; seconds for its beginning and its end."""

    context: ssl.SSLContext
    handshake: float
    shutdown: float


async def listen(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    make: Callable[[Header | None], asyncio.Protocol],
    *,
    tls: Tls | None,
    proxy: Callable[[], Proxy],
    refused: Callable[[str, str], None],
) -> Server:
    """Accept on a bound socket. ``make`` gives a connection's protocol; its argument is the PROXY header it began with.

    ``proxy`` is asked for each connection; whether headers are looked at on this socket at all is decided here.
    ``refused``: address and reason of who was hung up on before there was a protocol.
    """
    context, handshake, shutdown = tls or (None, None, None)
    address, settings = SocketAddress(*sock.getsockname()[:2]), proxy()
    if not looks_at_headers(settings, address):
        return await loop.create_server(
            lambda: make(None),
            sock=sock,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=shutdown,
        )

    def judge(peer: str) -> Expected:
        now = proxy()
        return expected(now, Networks(now.trusted), address, peer.removeprefix("::ffff:"))

    async def connect(connection: socket.socket, header: Header | None) -> None:
        await loop.connect_accepted_socket(
            lambda: make(header),
            connection,
            ssl=context,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=shutdown,
        )

    sock.listen(BACKLOG)
    sock.setblocking(False)
    return ProxiedListener(
        sock, loop=loop, judge=judge, connect=connect, refused=refused, timeout=settings.timeout
    )
