"""TLS handshakes that are begun and never ended: what they cost, and what they do not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TLS_PORT = '[submission]\nlisten_tls = ["127.0.0.1:0"]\n'
MiB = 1 << 20
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    secret = trusting().wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        secret.do_handshake()
    return outgoing.read()


def resident(server: Any) -> int:
    """Octets of memory the server's process has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("linger", [b"", RESET], ids=["close", "reset"])
def test_unfinished_handshakes_leave_memory_for_the_next_ones(
    server_factory: Callable[..., Any], linger: bytes
) -> None:
    """Before holes of the heap were given back, 600 at once cost another 20 MiB each time."""
    server, hello, peaks = server_factory(TLS_PORT), client_hello(), []
    for _ in range(4):
        with contextlib.ExitStack() as clients:
            for _ in range(600):
                address = "127.0.0.1", server.ports["submission-tls"]
                client = clients.enter_context(socket.create_connection(address, timeout=20))
                client.sendall(hello)
                if linger:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                assert client.recv(1) == b"\x16"
            peaks.append(resident(server))
        with (
            socket.create_connection(address, timeout=20) as sock,
            trusting().wrap_socket(sock) as good,
        ):
            assert good.recv(3) == b"220"  # those before it are gone
    assert peaks[-1] - peaks[0] < 25 * MiB


def test_connections_are_counted_before_their_handshake(server_factory: Callable[..., Any]) -> None:
    """[rates] connections_per_minute, once for each connection; beyond it, not an octet is spent on TLS."""
    server = server_factory(TLS_PORT + "[rates]\nconnections_per_minute = 3\n[guard]\ntrusted = []\n")
    address = "127.0.0.1", server.ports["submission-tls"]
    for _ in range(3):
        with socket.create_connection(address, timeout=20) as sock, trusting().wrap_socket(sock) as client:
            assert client.recv(3) == b"220"
    with socket.create_connection(address, timeout=20) as client, contextlib.suppress(ConnectionError):
        client.sendall(client_hello())
        assert client.recv(1) == b""
    assert server.stop() == 0
    (refused,) = (e for e in server.events() if e["event"] == "session-refused")
    assert (refused["service"], refused["reply"]) == ("submission", "[rates] connections_per_minute = 3")
