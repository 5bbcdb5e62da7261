"""A POP3 service on a loopback port, on both event loops, over the real store in a temporary folder."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from register import Register, passwords_only

from mailserver.accounts.door import Door
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.config.schema import Config
from mailserver.events import Event
from mailserver.policy.guard import Guard
from mailserver.policy.networks import Networks
from mailserver.policy.rates import Rates
from mailserver.pop3.server import Pop3Service
from mailserver.store.index import Mailboxes
from mailserver.store.workers import Workers

ALICE = "alice@example.test"
ONE = b"Subject: one\n\nfirst\n.dot\n..two dots\n"
TWO = b"Subject: two\n\nsecond\n"
THREE = b"Subject: three\n\n1\n2\n3\n"
UTF8 = """\
Received: from a.test by b.test with UTF8SMTP; Sun, 22 Nov 2026 12:00:00 +0000
From: Jörg <info@bücher.test>
To: 用户@例子.test, Alice <alice@example.test>
Subject: Grüße
Message-ID: <ü@bücher.test>
Content-Type: text/plain; name="ü.txt"; charset=utf-8

.grüßt
""".encode()


async def login(name: str, password: bytes) -> str | None:
    """alice and bob, password "wonderland"; "down" is an account whose database does not answer."""
    await asyncio.sleep(0)
    if name == "down":
        raise AccountsUnavailable("the database does not answer")
    known = name.partition("@")[0] in {"alice", "bob"}
    return f"{name.partition('@')[0]}@example.test" if known and password == b"wonderland" else None


class Client:
    """One connection; lines without CRLF."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *lines: bytes) -> None:
        self.writer.write(b"".join(line + b"\r\n" for line in lines))

    async def line(self) -> bytes:
        """The next line; b"" when the server has hung up."""
        return (await asyncio.wait_for(self.reader.readline(), 20)).removesuffix(b"\r\n")

    async def ask(self, line: bytes) -> bytes:
        self.send(line)
        return await self.line()

    async def multi(self, line: bytes) -> list[bytes]:
        """The lines of a multi-line reply, unstuffed, without the first and the last."""
        assert (await self.ask(line)).startswith(b"+OK")
        lines = []
        while (got := await self.line()) != b".":
            lines.append(got[1:] if got.startswith(b".") else got)
        return lines

    async def rest(self) -> bytes:
        """Everything until the server hangs up."""
        return await asyncio.wait_for(self.reader.read(), 20)

    async def log_in(self, name: bytes = b"alice") -> Client:
        assert (await self.ask(b"USER " + name)).startswith(b"+OK")
        assert (await self.ask(b"PASS wonderland")).startswith(b"+OK")
        return self

    def close(self) -> None:
        self.writer.close()


class Post:
    """The service under test and what surrounds it. ``clock`` is the service's only source of time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(2)
        self.workers = Workers(self.loop, self.executor)
        self.mailboxes = Mailboxes(
            str(root),
            hostname="mail.example.test",
            memory=64 << 20,
            workers=self.workers,
        )
        self.events: list[Event] = []
        self.clock = 1000.0
        self.clients: list[Client] = []
        self.delivered = 0

    async def start(self, tls: ssl.SSLContext | None = None, **settings: Any) -> Post:
        arguments = {k: settings.pop(k) for k in ("relay",) if k in settings}
        answers = Register(settings.pop("login", login))
        config = Config(hostname="mail.example.test", **settings)
        self.guard = Guard(config.guard)
        self.service = Pop3Service(
            config=config, door=Door(answers, passwords_only, self.guard, now=lambda: self.clock),
            mailboxes=self.mailboxes, tls=tls, rates=Rates(config.rates, Networks(config.guard.trusted)),
            emit=self.events.append, now=lambda: self.clock, loop=self.loop, executor=self.executor,
            **arguments,
        )  # fmt: skip
        plain, secure = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        self.port, self.tls_port = plain.getsockname()[1], secure.getsockname()[1]
        await self.service.start([plain], [secure] if tls else [])
        if not tls:
            secure.close()
        return self

    async def connect(self, **options: Any) -> Client:
        """A greeted client."""
        client = await self.dial(**options)
        assert (await client.line()).startswith(b"+OK mail.example.test")
        return client

    async def dial(self, **options: Any) -> Client:
        port = self.tls_port if "ssl" in options else self.port
        client = Client(*await asyncio.open_connection("127.0.0.1", port, **options))
        self.clients.append(client)
        return client

    async def put(self, *messages: bytes, mailbox: str = ALICE) -> list[Path]:
        """Deliver as another program would: into new/, all names in order."""
        folder = Path(await self.mailboxes.ensure(mailbox)) / "new"
        paths = []
        for message in messages:
            self.delivered += 1
            size, wire = len(message), len(message) + message.count(b"\n")
            path = folder / f"17000{self.delivered:05}.M1P1Q{self.delivered}.host,S={size},W={wire}"
            path.write_bytes(message)
            paths.append(path)
        return paths

    def files(self, mailbox: str = ALICE) -> list[Path]:
        folder = Path(self.mailboxes.directory(mailbox))
        return sorted([*(folder / "new").iterdir(), *(folder / "cur").iterdir()], key=lambda path: path.name)

    def put_foreign(self, name: str, message: bytes, mailbox: str = ALICE) -> None:
        """A file in cur/ whose name says nothing."""
        (Path(self.mailboxes.directory(mailbox)) / "cur" / name).write_bytes(message)

    def empty(self, mailbox: str = ALICE) -> None:
        """Another program removes everything."""
        if Path(self.mailboxes.directory(mailbox)).exists():
            for path in self.files(mailbox):
                path.unlink()

    def spoil(self, mailbox: str = ALICE) -> None:
        """A file stands where the mailbox should be."""
        folder = Path(self.mailboxes.directory(mailbox))
        folder.parent.mkdir(parents=True)
        folder.write_text("not a folder")

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop run until something has happened in it; the test's time limit ends a vain wait."""
        while not condition():  # noqa: ASYNC110 - many kinds of conditions, none of them an event
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for client in self.clients:
            client.close()
        await self.service.drain(self.clock)
        await self.until(lambda: self.service.status()["sessions"] == 0)
        for client in self.clients:
            with suppress(OSError):
                await client.writer.wait_closed()
        self.workers.close()
        self.executor.shutdown()
