"""One POP3 session, and how long each answer took."""

from __future__ import annotations

import socket
import time

PATIENCE = 10.0  # seconds
DIALOGUE = ((b"STAT", False), (b"UIDL", True), (b"RETR 1", True), (b"NOOP", False), (b"QUIT", False))


def session(target: str, user: str) -> list[float]:
    """Seconds of each answer after the greeting; the second is the login. Raises OSError."""
    host, _, port = target.rpartition(":")
    took = []
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as client,
        client.makefile("rb") as lines,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines.readline()
        login = ((b"USER %s" % user.encode(), False), (b"PASS secret", False))
        for command, many in (*login, *DIALOGUE):
            began = time.perf_counter()
            client.sendall(command + b"\r\n")
            line = lines.readline()
            if not line.startswith(b"+OK"):
                raise OSError(f"{command!r} was answered {line!r}")
            while many and line != b".\r\n":
                line = lines.readline()
            took.append(time.perf_counter() - began)
    return took
