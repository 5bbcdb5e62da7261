"""What many tests need: a real server in its own process, on loopback ports the kernel chose."""

from __future__ import annotations

import json
import os
import poplib
import re
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=200)
settings.load_profile("default")

BASE = """\
hostname = "mail.example.test"
data_dir = "data"
[smtp]
listen = ["127.0.0.1:0"]
[pop3]
listen = ["127.0.0.1:0"]
[log]
format = "json"
"""
USERS = """\
[domains."example.test"]
[users."alice@example.test"]
password = "{PLAIN}wonderland"
[users."bob@example.test"]
password = "{PLAIN}builder"
"""


class Server:
    """`mailserver serve` as a child process; ``events`` are the JSON lines it logged."""

    def __init__(self, folder: Path, config: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.config_file = folder / "config.toml"
        self.config_file.write_text(config)
        self.environment = os.environ | (environment or {})
        self.log_file = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self.clients: list[poplib.POP3] = []
        self._cat: subprocess.Popen[bytes] | None = None

    def start(self, *, may_crash: bool = False) -> Server:
        """Start and wait for the ready line; AssertionError with the log when it ends without one.

        ``may_crash``: dying by SIGKILL on the way is allowed, then ``ports`` stays empty.
        """
        read, write = os.pipe()
        command = [sys.executable, "-m", "mailserver", "serve", "-c", str(self.config_file)]
        self.process = subprocess.Popen(command, stderr=write, stdin=subprocess.DEVNULL, env=self.environment)
        os.close(write)
        said = b""
        while b'"ready"' not in said or not said.endswith(b"\n"):
            chunk = os.read(read, 65536)
            if not chunk:
                if self.process.wait(20) == -signal.SIGKILL and may_crash:
                    os.close(read)
                    return self
                raise AssertionError(f"the server did not start:\n{said.decode()}")
            said += chunk
        self._collect(read, said)
        ready = next(e for e in self.events() if e.get("event") == "ready")
        self.ports = {
            name: int(port)
            for name, port in (re.match(r"(\S+) .*:(\d+)", x).groups() for x in ready["listeners"])
        }  # type: ignore[union-attr]  # the format is the contract of the line
        return self

    def _collect(self, pipe: int, said: bytes) -> None:
        """Keep the pipe drained into the log file by a child that lives as long as the pipe."""
        self.log_file.write_bytes(said)
        with self.log_file.open("ab") as log:
            self._cat = subprocess.Popen(["cat"], stdin=pipe, stdout=log)
        os.close(pipe)

    def events(self) -> list[dict[str, Any]]:
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A `mailserver …` command with this server's configuration."""
        command = [sys.executable, "-m", "mailserver", *arguments, "-c", str(self.config_file)]
        return subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=30)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.wait_for_log()
        return code

    def kill(self) -> None:
        """SIGKILL: what a crash is."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)
        self.wait_for_log()
        self.ports = {}

    def smtp(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.ports["smtp"], local_hostname="client.test", timeout=20)

    def pop3(self, user: str = "alice@example.test", password: str = "wonderland") -> poplib.POP3:
        box = poplib.POP3("127.0.0.1", self.ports["pop3"], timeout=20)
        self.clients.append(box)
        box.user(user)
        box.pass_(password)
        return box

    def wait_for_log(self) -> None:
        """All that the process said is in the log file."""
        if self._cat is not None:
            self._cat.wait(20)

    def close_clients(self) -> None:
        for client in self.clients:
            client.close()

    def maildir(self, user: str, domain: str = "example.test") -> Path:
        return self.folder / "data" / "mail" / domain / user


@pytest.fixture
def server_factory(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers in tmp_path; all are stopped at the end, and must have ended well if still alive."""
    started: list[Server] = []

    def start(
        extra: str = "",
        *,
        base: str = BASE,
        users: str = USERS,
        environment: dict[str, str] | None = None,
        may_crash: bool = False,
    ) -> Server:
        server = Server(tmp_path, base + extra + users, environment)
        started.append(server)
        return server.start(may_crash=may_crash)

    yield start
    for server in started:
        server.close_clients()
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0, server.log_file.read_text()[-4000:]
        server.wait_for_log()


@pytest.fixture
def server(server_factory: Callable[..., Server]) -> Server:
    """One running server with the accounts alice and bob."""
    return server_factory()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port nobody listens on right now."""

    def port() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return int(s.getsockname()[1])

    return port
