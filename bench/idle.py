"""W8: what idle connections cost in memory, all processes of the server together (PSS)."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable

from bench.contenders import Server
from bench.tool import Measure, Row

LOGINS = 1000  # mailboxes there are: a mailbox is open in one session at a time (RFC 1939 4)
PATIENCE = 3.0  # seconds for one connection to be served
REFUSALS = 3  # in a row, then there will be no more

Opener = Callable[[str, int], socket.socket]


def smtp(number: int) -> Measure:
    """Connections that have said EHLO."""
    return lambda server, load: _measure(server, "smtp", load.limit(number), server.smtp, _open_smtp)


def pop3(number: int) -> Measure:
    """Logged in, as long as there are mailboxes; beyond that connections that have asked for CAPA."""
    return lambda server, load: _measure(server, "pop3", load.limit(number), server.pop3, _open_pop3)


def tls(number: int) -> Measure:
    """Connections with TLS from the first octet that have asked for CAPA."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def opener(target: str, _number: int) -> socket.socket:
        return _converse(context.wrap_socket(_connect(target)), rb"\n\.\r\n", b"CAPA")

    return lambda server, load: _measure(server, "tls", load.limit(number), server.pop3s, opener)


def _measure(server: Server, kind: str, number: int, target: str, opener: Opener) -> list[Row]:
    meter = server.meter
    meter.settle()
    pss, cpu = meter.pss(), meter.cpu()
    clients, refused = _open(target, number, opener)
    try:
        meter.settle()
        peak = meter.pss()
        used = (meter.cpu() - cpu) * 1000 / max(1, len(clients))
        alive = sum(_alive(client) for client in clients)
        each = (peak - pss) * 1e6 / 1024 / max(1, len(clients))
    finally:
        for client in clients:
            client.close()
    meter.settle()
    served = f", {alive} served" if alive < number else ""
    return [{
        "work": f"W8 {kind} {number}", "value": round(each, 1), "unit": f"KiB each{served}", "more": False,
        "pss_mb": round(peak, 1), "idle_mb": round(pss, 1), "served": alive, "cpu": used, "refused": refused,
        **({} if alive else {"bad": refused}),
    }]  # fmt: skip


def _open(target: str, number: int, opener: Opener) -> tuple[list[socket.socket], str]:
    """As many as are served, and why not more."""
    clients: list[socket.socket] = []
    why, refusals = "", 0
    for turn in range(number):
        try:
            clients.append(opener(target, turn))
            refusals = 0
        except OSError as error:
            why, refusals = why or f"connection {turn}: {error}", refusals + 1
            if refusals == REFUSALS:
                break
    return clients, why


def _open_smtp(target: str, _number: int) -> socket.socket:
    return _converse(_connect(target), rb"(?m)^250 .*\n", b"EHLO client.bench.test")


def _open_pop3(target: str, number: int) -> socket.socket:
    if number >= LOGINS:
        return _converse(_connect(target), rb"\n\.\r\n", b"CAPA")
    return _converse(_connect(target), rb"^\+OK.*\n", b"USER %du" % number, b"PASS secret")


def _connect(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def _converse(client: socket.socket, answer: bytes, *commands: bytes) -> socket.socket:
    """The greeting, then each command until its answer is there. Raises OSError when it is another."""
    try:
        _until(client, rb"^(\+OK|220).*\n")
        for command in commands:
            client.sendall(command + b"\r\n")
            _until(client, answer)
    except BaseException:
        client.close()
        raise
    return client


def _until(client: socket.socket, answer: bytes) -> None:
    said = b""
    while not re.search(answer, said):
        data = client.recv(4096)
        said += data
        if not data or re.match(rb"-ERR|[45]\d\d ", said):
            raise OSError(f"refused: {said[:80]!r}")


def _alive(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(10) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
