"""kill -9 at every crash point and at random, under load: acknowledged ⇒ present, only legal states are left.

One data directory lives through all the crashes of a test, so damage that one crash leaves and a later start
spreads is found too. Duplicates are allowed only for what was under way when the process died.
"""

from __future__ import annotations

import collections
import itertools
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mailserver.store.durable import CRASH_POINTS

SUBJECT = re.compile(rb"^Subject: (\S+)", re.M)

QUEUE_ID = re.compile(rb"\sid ([^\s;]+)")


class Sink:
    """A next hop that accepts everything and remembers the subjects, and queue ids, it said 250 to."""

    def __init__(self) -> None:
        self.seen: collections.Counter[bytes] = collections.Counter()
        self.ids: collections.Counter[str] = collections.Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with (
            suppress(OSError),
            connection,
            connection.makefile("rwb") as file,
        ):  # the client is killed at times
            file.write(b"220 sink.test ESMTP\r\n")
            file.flush()
            while line := file.readline():
                self._answer(line.upper(), file)

    def _answer(self, line: bytes, file: Any) -> None:
        if line.startswith(b"EHLO"):
            file.write(b"250-sink.test\r\n250 PIPELINING\r\n")
        elif line.startswith(b"DATA"):
            file.write(b"354 go\r\n")
            file.flush()
            content = b""
            while (line := file.readline()) != b".\r\n":
                if not line:
                    raise OSError("the client was killed")
                content += line
            self.seen.update(SUBJECT.findall(content)[:1])
            self.ids.update(id.decode() for id in QUEUE_ID.findall(content)[:1])
            file.write(b"250 ok\r\n")
        elif line.startswith(b"QUIT"):
            file.write(b"221 bye\r\n")
            file.flush()
            raise OSError("closed by QUIT")
        else:
            file.write(b"250 ok\r\n")
        file.flush()

    def close(self) -> None:
        self._listener.close()


class Client(threading.Thread):
    """Sends messages until the server dies; ``acknowledged`` are the subjects that got a 250."""

    def __init__(self, port: int, subjects: Iterator[str], recipients: list[str], limit: int = 40) -> None:
        super().__init__(daemon=True)
        self.port, self.subjects, self.recipients, self.limit = port, subjects, recipients, limit
        self.acknowledged: list[str] = []

    def run(self) -> None:
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=20) as s,
                s.makefile("rwb") as file,
            ):
                file.readline()
                for _ in range(self.limit):
                    self._send(file, next(self.subjects))
        except OSError:
            return

    def _send(self, file: Any, subject: str) -> None:
        rcpts = "".join(f"RCPT TO:<{r}>\r\n" for r in self.recipients)
        file.write(f"HELO client.test\r\nMAIL FROM:<>\r\n{rcpts}DATA\r\n".encode())
        file.flush()
        for _ in range(3 + len(self.recipients)):
            if not file.readline().startswith((b"250", b"354")):
                raise OSError("refused or gone")
        file.write(f"Subject: {subject}\r\n\r\n{'x' * random.randrange(3000)}\r\n.\r\n".encode())
        file.flush()
        if file.readline().startswith(b"250"):
            self.acknowledged.append(subject)


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


class Ordeal:
    """One data directory, many crashes."""

    def __init__(self, factory: Callable[..., Any], sink: Sink) -> None:
        self.factory, self.sink = factory, sink
        self.numbers = (f"m{n}" for n in itertools.count())
        self.owed: dict[str, list[str]] = {"alice": [], "bob": [], "remote": []}
        self.extra = (
            '[[relay]]\nfrom = "127.0.0.1"\naction = "relay"\n'
            f'[routes]\n"remote.test" = "smtp://127.0.0.1:{sink.port}"\n[queue]\nretry = "1s"\n'
        )
        self.server: Any = None
        self.removed: dict[str, int] = {}  # queue id → how often the sink had it when it was settled

    def crash(self, point: str | None, after: float) -> None:
        """Start, load, die at ``point`` (or by SIGKILL ``after`` seconds), note what was acknowledged."""
        environment = {"MAILSERVER_CRASH_AT": point} if point else None
        self.server = self.factory(self.extra, environment=environment, may_crash=True)
        if not self.server.ports:  # it died while it took up what an earlier crash left
            return
        kinds = {"alice": ["alice@example.test"], "bob": ["alice@example.test", "bob@example.test"],
                 "remote": ["x@remote.test", "bob@example.test"]}  # fmt: skip
        clients = [
            (k, Client(self.server.ports["smtp"], self.numbers, r))
            for k, r in kinds.items()
            for _ in range(2)
        ]
        for _, client in clients:
            client.start()
        if point is None:
            clients[0][1].join(after)
        else:
            for _, client in clients:
                client.join(30)
        self.server.kill()
        for kind, client in clients:
            client.join(30)
            self.owed[kind] += client.acknowledged
        settled = [event["id"] for event in self.server.events() if event["event"] == "removed"]
        self.removed |= {id: self.sink.ids[id] for id in settled}

    def settle(self) -> None:
        """A last start without faults: everything owed must be there."""
        server = self.factory(self.extra)
        waiting = threading.Event()
        for _ in range(300):
            if server.run("queue", "list", "--json").stdout.strip() == "[]":
                break
            waiting.wait(0.1)
        alice, bob = self.found(server.maildir("alice")), self.found(server.maildir("bob"))
        for kind in ("alice", "bob"):
            assert set(self.owed[kind]) <= set(alice)
        for kind in ("bob", "remote"):
            assert set(self.owed[kind]) <= set(bob)
        assert set(self.owed["remote"]) <= {s.decode() for s in self.sink.seen}
        assert sum(map(len, self.owed.values())) > 0
        again = {id: n for id, n in self.removed.items() if self.sink.ids[id] != n}
        assert not again, "only what was under way when the server died may be sent twice"
        assert any(self.removed.values())
        doubled = [s for box in (alice, bob) for s, n in box.items() if n > 1]
        assert not doubled, "a local delivery is one commit: it happens once"
        assert not [e for e in server.events() if e["event"] == "quarantined"]
        assert not list((server.folder / "data" / "tmp").iterdir())
        assert server.stop() == 0

    @staticmethod
    def found(maildir: Path) -> collections.Counter[str]:
        counted: collections.Counter[str] = collections.Counter()
        for file in (maildir / "new").iterdir():
            content = file.read_bytes()
            assert len(content) == int(re.search(r",S=(\d+)", file.name)[1])  # type: ignore[index]  # fails loudly
            counted[SUBJECT.findall(content)[0].decode()] += 1
        return counted


@pytest.mark.timeout(240)
def test_crash_at_every_named_point(server_factory: Callable[..., Any], sink: Sink) -> None:
    ordeal = Ordeal(server_factory, sink)
    for point in CRASH_POINTS:
        ordeal.crash(f"{point}:{random.choice((1, 2, 5, 9))}", after=0)
    ordeal.settle()


@pytest.mark.timeout(240)
def test_kill_at_random_moments_under_load(server_factory: Callable[..., Any], sink: Sink) -> None:
    ordeal = Ordeal(server_factory, sink)
    for _ in range(40):
        ordeal.crash(None, after=random.uniform(0.005, 0.15))
    ordeal.settle()
