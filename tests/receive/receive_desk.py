"""A real service on loopback with an in-memory queue, and a transport for feeding it octet by octet."""

# ruff: noqa: ASYNC110 - waits for what other code does, with nothing to subscribe to

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from register import Register, passwords_only

from mailserver import reply
from mailserver.accounts.door import Door
from mailserver.config.schema import Config
from mailserver.events import Event
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope
from mailserver.message.ids import IdSource
from mailserver.policy.guard import Guard
from mailserver.policy.relay import RelayTable
from mailserver.receive.server import SmtpService
from mailserver.reply import Reply
from mailserver.routing.directory import Directory, DomainEntry

DIRECTORY = Directory(
    {
        "example.test": DomainEntry(
            frozenset({"alice", "bob", "jösé"}),
            {
                "team": ("alice@example.test", "bob@example.test", "x@remote.test"),
                "everybody": tuple(f"u{number}@remote.test" for number in range(1000)),
            },
        )
    },
    postmaster="alice@example.test",
    default_domain="example.test",
)


class MemoryQueue:
    """``accept`` like the queue's: keeps messages in a list. ``error`` is what commits fail with; ``held``
    leaves them open until ``release``."""

    def __init__(self) -> None:
        self.messages: list[tuple[Envelope, bytes]] = []
        self.bodies: list[Body] = []
        self.error: Exception | None = None
        self.held: list[tuple[asyncio.Future[str], Envelope, bytes]] | None = None

    def accept(
        self, envelope: Envelope, body: Body, *, session: int = 0, rule: str = ""
    ) -> asyncio.Future[str]:
        if body.path is None:
            data = body.head + b"".join(body.chunks)
        else:
            data = Path(body.path).read_bytes()
            os.unlink(body.path)
        assert len(data) == body.size and data.count(b"\n") == body.lines
        self.bodies.append(body)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
        elif self.held is not None:
            self.held.append((future, envelope, data))
        else:
            self._commit(future, envelope, data)
        return future

    def _commit(self, future: asyncio.Future[str], envelope: Envelope, data: bytes) -> None:
        self.messages.append((envelope, data))
        future.set_result(envelope.id)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for item in held:
            self._commit(*item)

    def content(self, number: int = -1) -> bytes:
        """A message without our trace headers, which end with the Received header's date line."""
        data = self.messages[number][1]
        date = data.index(b";\n\t", data.index(b"Received: from ")) + 3
        return data[data.index(b"\n", date) + 1 :]


class Desk:
    """The service and everything around it that a test looks at."""

    def __init__(
        self,
        data_dir: Path,
        *,
        name: Any = "smtp",
        tls: ssl.SSLContext | None = None,
        relay: str = "accept",
        limits: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.queue = MemoryQueue()
        self.events: list[Event] = []
        self.storage = True
        self.sender_domain = reply.SENDER_OK
        self.data_dir = data_dir
        self.config = Config.model_validate(
            {"hostname": "mx.example.test", "data_dir": data_dir, "limits": limits or {}, **settings}
        )
        table = RelayTable.compile([("127.0.0.1", relay, "test rule")])
        ids = IdSource()
        self.service = SmtpService(
            name,
            config=self.config,
            relay=lambda: table,
            directory=lambda: DIRECTORY,
            accept=self.queue.accept,
            new_id=lambda: ids.next(time.time()),
            door=Door(Register(self.login), passwords_only, Guard(self.config.guard), now=time.time),
            storage_ok=lambda: self.storage,
            sender_check=self.sender_check,
            tls=tls,
            emit=self.events.append,
            now=time.time,
            loop=asyncio.get_running_loop(),
        )
        self.port = 0

    async def login(self, name: str, password: bytes) -> str | None:
        return "alice@example.test" if (name, password) == ("alice@example.test", b"wonder") else None

    async def sender_check(self, domain: str) -> Reply:
        return self.sender_domain

    async def open(self, *, tls: bool = False) -> Desk:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.service.start([] if tls else [sock], [sock] if tls else [])
        return self

    async def close(self) -> None:
        await self.service.drain(0.0)

    async def connect(self, client: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """``client``: the address to come from."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(client, 0))

    async def talk(self, text: bytes) -> bytes:
        """Say everything at once and hang up one's own side; everything that was answered."""
        reader, writer = await self.connect()
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async def converse(self, header: bytes, *commands: bytes, client: str = "127.0.0.1") -> bytes:
        """Say ``header`` and each command when it is the client's turn, as RFC 5321 wants; what was answered."""
        reader, writer = await self.connect(client)
        writer.write(header)
        answer = await reader.readline()
        for command in commands:
            writer.write(command)
            answer += (line := await reader.readline())
            while line[3:4] == b"-":
                answer += (line := await reader.readline())
        writer.close()
        return answer

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class Tape(asyncio.Transport):
    """A transport without a network: what was written, whether it was closed."""

    def __init__(self, client: str = "127.0.0.1") -> None:
        super().__init__({"peername": (client, 4242)})
        self.written = bytearray()
        self.closed = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def feed(service: SmtpService, pieces: list[bytes]) -> tuple[bytes, Tape]:
    """The answers to ``pieces``, delivered one by one as a network would: never while reading is paused."""
    tape = Tape()
    listener = service.new_listener()
    listener.connection_made(tape)
    for piece in pieces:
        while tape.paused and not tape.closed:
            await asyncio.sleep(0)
        if tape.closed:
            break
        listener.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(6):
        await asyncio.sleep(0)
    while tape.paused and not tape.closed:
        await asyncio.sleep(0)
    listener.connection_lost(None)
    return bytes(tape.written), tape
