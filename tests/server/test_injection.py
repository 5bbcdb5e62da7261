"""What is said in clear behind STARTTLS or STLS is never obeyed inside TLS (RFC 3207 6, RFC 2595 4)."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

import pytest

INJECTED = {
    "smtp": b"MAIL FROM:<injected@b.test>\r\n",
    "pop3": b"USER injected@example.test\r\n",
}
BEGIN = {"smtp": b"STARTTLS\r\n", "pop3": b"STLS\r\n"}
READY = {"smtp": b"220 2.0.0 Ready to start TLS\r\n", "pop3": b"+OK begin TLS\r\n"}
SAFE = {"smtp": b"503 5.5.1", "pop3": b"-ERR"}


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def client(server: Any, service: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.ports[service]), 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.recv(500).endswith(b"\r\n")
    return sock


def everything(sock: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(4096):
            said += more
    return said


def test_in_one_piece(server: Any) -> None:
    for service, injected in INJECTED.items():
        for tail in (
            injected,
            b"QU",
            b"\n",
            b"\x16\x03\x01",
        ):  # whole, in part, nothing, a handshake too early
            with client(server, service) as sock:
                sock.sendall(BEGIN[service] + tail)
                said = everything(sock)  # the session is over
            assert said.startswith(SAFE[service]), (service, tail)
            assert said.count(b"\r\n") == 1, (service, tail)


@pytest.mark.parametrize("service", ["smtp", "pop3"])
def test_octet_by_octet_and_after_the_reply(server: Any, service: str) -> None:
    with client(server, service) as sock, contextlib.suppress(ConnectionError):
        for octet in BEGIN[service] + INJECTED[service]:
            sock.sendall(bytes([octet]))
        said = everything(sock)
        assert said in (b"", READY[service]) or said.startswith(SAFE[service]) or said[:1] == b"\x15"
        assert b"injected" not in said
    with client(server, service) as sock:
        sock.sendall(BEGIN[service])
        assert sock.recv(500) == READY[service]
        sock.sendall(INJECTED[service])
        with pytest.raises((ssl.SSLError, ConnectionError)):
            careless().wrap_socket(sock)
    with client(server, service) as sock:  # and the honest way works
        sock.sendall(BEGIN[service])
        assert sock.recv(500) == READY[service]
        with careless().wrap_socket(sock) as secret:
            secret.sendall(b"QUIT\r\n")
            assert secret.recv(500)[:3] in (b"221", b"+OK")
    assert server.stop() == 0
    assert "injected@" not in server.log_file.read_text()


@pytest.mark.parametrize("service", ["smtp", "pop3"])
def test_what_was_learnt_in_clear_is_forgotten(server: Any, service: str) -> None:
    before, after = {
        "smtp": (
            [b"EHLO c.test", b"MAIL FROM:<a@b.test>", b"RCPT TO:<alice@example.test>"],
            [b"RCPT TO:<alice@example.test>", b"MAIL FROM:<a@b.test>"],
        ),
        "pop3": ([b"USER alice@example.test"], [b"PASS wonderland"]),
    }[service]
    with client(server, service) as sock:
        for command in before:
            sock.sendall(command + b"\r\n")
            assert sock.recv(4000)[:3] in (b"250", b"+OK")
        sock.sendall(BEGIN[service])
        assert sock.recv(500) == READY[service]
        with careless().wrap_socket(sock) as secret:
            for command in after:
                secret.sendall(command + b"\r\n")
                assert secret.recv(4000).startswith(SAFE[service])
