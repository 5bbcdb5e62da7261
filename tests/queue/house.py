"""A queue on a real disk with a scripted world: the deliverer is a function, the clock a number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mailserver.config.schema import Queue as Settings
from mailserver.deliver.attempt import Attempt
from mailserver.deliver.deliver import deliverer
from mailserver.deliver.local import LocalDelivery
from mailserver.events import Event
from mailserver.message import trace
from mailserver.message.body import Body
from mailserver.message.envelope import Delivered, Envelope, Local, Outcome, Recipient, Remote
from mailserver.queue.loading import PATIENCE
from mailserver.queue.queue import Queue
from mailserver.queue.spool import Spool
from mailserver.store.durable import Durable, Job
from mailserver.store.index import Mailboxes
from mailserver.store.workers import Workers

RECEIVED = b"Received: from client\n"
CONTENT = b"From: alice@example.test\nSubject: hello\n\nThe text.\n"
Script = Callable[[Attempt], dict[int, Outcome]]


def everybody(outcome: Outcome) -> Script:
    return lambda attempt: {recipient.id: outcome for recipient in attempt.recipients}


class House:
    """Start with ``async with``; ``clock`` is Unix seconds, ``world`` what remote hosts answer."""

    def __init__(self, root: Path, *, patience: float = PATIENCE, **settings: object) -> None:
        self.root, self.clock, self.patience = root, 1_700_000_000.0, patience
        self.settings = Settings(**{"jitter": 0.0, "retry": (300.0, 900.0), **settings})
        self.passed = 0.0
        self.events: list[Event] = []
        self.attempts: list[Attempt] = []
        self.world: Script = everybody(Delivered("250 ok", "mx.remote.test"))
        self.gate: asyncio.Event | None = None
        self.routes: dict[str, str] = {}  # [routes]

    async def __aenter__(self) -> House:
        loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()

        def emit(event: Event) -> None:
            self.events.append(event)
            loop.call_soon_threadsafe(self.changed.set)

        self.executor = ThreadPoolExecutor(2)
        self.workers = Workers(loop, self.executor)
        self.durable = Durable(loop)
        self.spool = Spool(f"{self.root}/queue", emit=emit)
        self.mailboxes = Mailboxes(
            f"{self.root}/mail",
            hostname="mx.test",
            memory=1 << 20,
            workers=self.workers,
        )
        now = lambda: self.clock  # noqa: E731
        self.queue = Queue(
            settings=self.settings, hostname="mx.test", spool=self.spool, durable=self.durable,
            mailboxes=self.mailboxes, route_of=self.route_of, emit=emit, now=now, random=lambda: 0.5,
            onward=self.onward,
            deliver=deliverer(LocalDelivery(self.mailboxes, self.durable, now), self.remote),
            passed=lambda: self.passed, executor=self.executor,
        )  # fmt: skip
        self.loaded = await self.queue.start(self.patience)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.queue.drain(0)
        self.durable.close()
        self.workers.close()
        self.executor.shutdown()

    async def remote(self, attempt: Attempt) -> dict[int, Outcome]:
        self.attempts.append(attempt)
        self.changed.set()
        if self.gate is not None:
            await self.gate.wait()
        return self.world(attempt)

    def route_of(self, address: str) -> list[tuple[str, Local | Remote, str | None]]:
        user, _, domain = address.partition("@")
        if domain != "example.test":
            return [(address, self.onward(address), None)]
        return [(address, Local(address), None)] if user in {"alice", "bob", "carol"} else []

    def onward(self, address: str) -> Remote:
        domain = address.partition("@")[2]
        return Remote(self.routes.get(domain) or self.routes.get("*") or domain)

    # ---- acting ------------------------------------------------------------------------------------
    def message(
        self, *to: str, sender: str | None = "alice@example.test", content: bytes = CONTENT,
        path: str | None = None, **recipient: object,
    ) -> tuple[Envelope, Body]:  # fmt: skip
        routes = [(address, self.route_of(address)[0][1]) for address in to]
        recipients = [Recipient(n, address, route, **recipient) for n, (address, route) in enumerate(routes)]
        envelope = Envelope(self.queue.new_id(), sender, recipients, self.clock)
        head = trace.head(envelope, RECEIVED)
        whole = head + content
        body = Body(head, len(whole), whole.count(b"\n"), (content,))
        if path is not None:
            Path(path).write_bytes(whole)
            body.path, body.chunks = path, ()
        envelope.size = body.size
        return envelope, body

    async def send(self, *to: str, **options: object) -> str:
        return await self.queue.accept(*self.message(*to, **options))

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)

    async def saw(self, kind: type[Event], count: int = 1) -> list[Event]:
        await self.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    async def synced(self) -> None:
        """All commits submitted so far are on disk."""
        await asyncio.sleep(0)  # what was spawned in this turn submits its own
        await self.durable.commit(Job())

    async def pass_time(self, seconds: float) -> None:
        """The clock moves and the queue looks at it."""
        self.passed += seconds
        self.set_clock(seconds)

    def set_clock(self, by: float) -> None:
        """Somebody sets the clock, and no time passes."""
        self.clock += by
        self.queue.kick()

    # ---- seeing ------------------------------------------------------------------------------------
    def listed(self, account: str | None = None) -> list[Any]:
        return [self.queue.show(name) for name in self.queue.ids(account)]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if type(event) is kind]

    def mail(self, user: str) -> list[bytes]:
        found = Path(f"{self.root}/mail/example.test/{user}/new")
        return [file.read_bytes() for file in sorted(found.iterdir())] if found.exists() else []

    def files(self, where: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(file.name for file in Path(f"{self.root}/{where}").iterdir())
        return []

    def balance(self) -> None:
        s = self.queue.status()
        out = ("delivered", "forwarded", "bounced", "dropped", "quarantined", "pending")
        assert s["accepted"] + s["loaded"] == sum(s[name] for name in out), s
