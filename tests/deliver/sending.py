"""What the tests of delivery send, and with what."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from zones import DictResolver

from mailserver.config.schema import Queue
from mailserver.deliver.attempt import Attempt
from mailserver.deliver.remote import RemoteDelivery
from mailserver.deliver.timeouts import Timeouts
from mailserver.events import Event
from mailserver.message.envelope import Envelope, Recipient, Remote
from mailserver.store.content import Content

HELLO = b"From: a@here.test\nSubject: hello\n\nHello\n.dotted\n..twice\n"
QUICK = Timeouts(
    greeting=0.15,
    hello=0.15,
    tls=1,
    mail=0.15,
    rcpt=0.15,
    data=0.15,
    block=0.3,
    final=0.15,
    rset=0.15,
    quit=0.3,
)


class Sender:
    """Attempts with contents in ``folder``; ``events`` is what delivery told."""

    def __init__(
        self, folder: Path, zone: dict[str, Any], port: int, timeouts: Timeouts, **settings: Any
    ) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.resolver = DictResolver(zone)
        self.remote = RemoteDelivery(
            Queue(connect_timeout=0.5, **settings),
            self.resolver,  # type: ignore[arg-type]  # answers like one, see tests/dns
            "mail.here.test",
            lambda address, port: False,
            self.events.append,
            timeouts=timeouts,
            rng=random.Random(1),
            port=port,
        )

    def attempt(
        self,
        destination: str,
        to: Sequence[str | Recipient] = ("u@a.test",),
        data: bytes = HELLO,
        **envelope: Any,
    ) -> Attempt:
        path = self.folder / f"{len(data)}-{hash(data)}"
        path.write_bytes(data)
        recipients = [
            r if isinstance(r, Recipient) else Recipient(n, r, Remote(destination))
            for n, r in enumerate(to, 1)
        ]
        fields = {"sender": "s@here.test", "size": len(data)} | envelope
        return Attempt(
            Envelope("ID", recipients=recipients, accepted=0.0, **fields),
            tuple(recipients),
            destination,
            Content(str(path), 0, len(data)),
            0,
        )

    async def send(self, destination: str, *args: Any, **kwargs: Any) -> list[Any]:
        """The outcomes in the order of the recipients."""
        attempt = self.attempt(destination, *args, **kwargs)
        outcomes = await self.remote(attempt)
        assert set(outcomes) == {r.id for r in attempt.recipients}
        return [outcomes[r.id] for r in attempt.recipients]


@asynccontextmanager
async def sender(
    folder: Path,
    zone: dict[str, Any] | None = None,
    *,
    port: int = 25,
    timeouts: Timeouts = QUICK,
    **settings: Any,
) -> AsyncIterator[Sender]:
    it = Sender(folder, zone or {}, port, timeouts, **settings)
    try:
        yield it
    finally:
        await it.remote.close()
