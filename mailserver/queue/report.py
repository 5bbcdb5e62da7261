"""Delivery reports as ordinary messages: made, and accepted like any other (RFC 3464, RFC 3461 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mailserver import events
from mailserver.config.schema import Queue as Settings
from mailserver.deliver import bounce
from mailserver.message import trace
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope, Outcome, Recipient, Route
from mailserver.queue.judgement import Judgement
from mailserver.queue.spool import Spool
from mailserver.queue.tasks import Tasks
from mailserver.store.content import Content

RouteOf = Callable[[str], Sequence[tuple[str, Route, str | None]]]
"""Address → (final address, its route, alias it came through) of everybody it stands for; empty: nobody."""

Targets = Sequence[tuple[Recipient, Outcome]]


class Reports:
    """Tells senders what became of their messages. ``accept`` is Queue.accept; ``now`` gives Unix seconds."""

    def __init__(
        self, *, settings: Settings, hostname: str, spool: Spool, route_of: RouteOf, tasks: Tasks,
        accept: Callable[[Envelope, Body], asyncio.Future[str]], emit: events.Emit, now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:  # fmt: skip
        self.settings, self._hostname, self._spool, self._route_of = settings, hostname, spool, route_of
        self._tasks, self._accept, self._emit, self._now, self._new_id = tasks, accept, emit, now, new_id

    async def owed(self, envelope: Envelope, judgement: Judgement) -> None:
        """All that ``judgement`` calls for. Durable before anything is removed: a failure without its report
        is kept, and fails again later. Afterwards ``judgement.failure`` holds those who were told."""
        try:
            if judgement.failure and not await self._send(envelope, judgement.failure, "failure"):
                judgement.failure = []
        except OSError as error:
            judgement.keep_failed(f"the report about it could not be stored: {error.strerror}")
        try:
            if judgement.delay:
                await self._send(envelope, judgement.delay, "delay")
                for recipient, _ in judgement.delay:
                    recipient.delay_notified = True
            if judgement.success:
                await self._send(envelope, judgement.success, "success")
        except OSError as error:
            self._emit(events.Problem("queue", f"a report could not be stored: {error}", id=envelope.id))

    def success(self, envelope: Envelope, targets: Targets, head: bytes) -> None:
        """Report what went into mailboxes at once; ``head``: the beginning of the message."""

        async def send() -> None:
            try:
                await self._send(envelope, targets, "success", head)
            except OSError as error:
                self._emit(events.Problem("queue", f"a report could not be stored: {error}", id=envelope.id))

        self._tasks.spawn(send())

    async def _send(
        self, envelope: Envelope, targets: Targets, kind: bounce.Kind, original: bytes = b""
    ) -> bool:
        """False: the sender's address leads nowhere. Raises OSError: the report is not stored."""
        assert envelope.sender is not None
        if not (routes := self._route_of(envelope.sender)):
            return False
        if not original:
            length = min(envelope.size, bounce.original_limit(envelope, kind))
            original = await self._tasks.in_thread(Content(self._spool.path(envelope.id), 0, length).read)
        made, body = make(
            envelope, targets, kind, routes, original=original, hostname=self._hostname, id=self._new_id(),
            now=self._now(), will_retry_until=envelope.accepted + self.settings.max_age,
        )  # fmt: skip
        await self._accept(made, body)
        self._emit(events.Bounced(envelope.id, made.id, kind, tuple(r.address for r, _ in targets)))
        return True


def make(
    envelope: Envelope,
    targets: Targets,
    kind: bounce.Kind,
    routes: Sequence[tuple[str, Route, str | None]],
    *,
    original: bytes,
    hostname: str,
    id: str,
    now: float,
    will_retry_until: float,
) -> tuple[Envelope, Body]:
    """The report on ``targets`` of ``envelope`` for its sender, reached by ``routes``: envelope and body.

    Its sender is null, and it asks for no report about itself: no report is ever made about a report.
    """
    assert envelope.sender is not None
    content = bounce.compose(
        envelope, targets, kind=kind, original=original, hostname=hostname, id=id, now=now,
        will_retry_until=will_retry_until,
    )  # fmt: skip
    recipients = [
        Recipient(number, address, route, notify=("NEVER",), alias=alias)
        for number, (address, route, alias) in enumerate(routes)
    ]
    report = Envelope(
        id, None, recipients, now,
        body="7BIT" if content.isascii() else "8BITMIME",
        smtputf8=not (envelope.sender.isascii() and all(r.address.isascii() for r in recipients)),
    )  # fmt: skip
    head = trace.head(report, b"")
    report.size = len(head) + len(content)
    return report, Body(
        head, report.size, head.count(b"\n") + content.count(b"\n"), (content,),
        eight_bit=report.body == "8BITMIME",
    )  # fmt: skip
