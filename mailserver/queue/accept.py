"""The first commit of a message: mailboxes of ours get it, everybody else waits in the spool (R08).

The hot path: a message in memory for known mailboxes, or for others, costs one Job and no task. A mailbox
that cannot be written, for a reason of its own, becomes a pending recipient in the spool; only a sick machine
(landing.MACHINE_SICK) makes ``accept`` fail. The body's file is adopted or removed, whatever happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from mailserver import events
from mailserver.deliver import bounce
from mailserver.events import Emit
from mailserver.message.body import Body
from mailserver.message.envelope import Delivered, Envelope, Local, Outcome, Recipient
from mailserver.queue.landing import MACHINE_SICK, Landing
from mailserver.queue.spool import Spool, checksum
from mailserver.queue.tasks import Tasks
from mailserver.store.content import Content
from mailserver.store.durable import Durable, Job
from mailserver.store.index import Mailboxes

ReportSuccess = Callable[[Envelope, Sequence[tuple[Recipient, Outcome]], bytes], None]


class Intake:
    """``spooled`` is told of every message that went to the spool, ``report_success`` of mailbox deliveries
    that the sender wants to hear of (with the beginning of the message); ``count`` counts recipients."""

    def __init__(
        self, *, spool: Spool, durable: Durable, mailboxes: Mailboxes, tasks: Tasks, emit: Emit,
        now: Callable[[], float], count: Counter[str], spooled: Callable[[Envelope, Body], None],
        report_success: ReportSuccess,
    ) -> None:  # fmt: skip
        self._spool, self._durable, self._mailboxes, self._tasks = spool, durable, mailboxes, tasks
        self._emit, self._now, self._count = emit, now, count
        self._spooled, self._report_success = spooled, report_success

    def accept(self, envelope: Envelope, body: Body, session: int, rule: str) -> asyncio.Future[str]:
        """See Queue.accept."""
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        landing = Landing(envelope, body, session, rule, result)
        unknown = landing.sort(self._mailboxes)
        if unknown or body.path is not None:
            self._tasks.spawn(self._land(landing, unknown))
        else:
            self._commit(landing)
        return result

    async def _land(self, landing: Landing, unknown: Iterable[str]) -> None:
        """The rare preparations: mailboxes to be made, a streamed content to be read for its checksum."""
        try:
            sick: dict[str, str] = {}
            for mailbox in unknown:
                try:
                    landing.places[mailbox] = await self._mailboxes.ensure(mailbox)
                except OSError as error:
                    if error.errno in MACHINE_SICK:
                        raise
                    sick[mailbox] = f"mailbox {mailbox}: {error.strerror}"
            landing.spool_mailboxes(sick)
            if (path := landing.body.path) is not None:
                if landing.spooled:
                    landing.crc = await self._tasks.in_thread(checksum, path, landing.body.size)
                if any(recipient.notify for recipient in landing.envelope.recipients):
                    content = Content(path, 0, min(landing.body.size, bounce.HEADERS_MAX))
                    landing.head = await self._tasks.in_thread(content.read)
            self._commit(landing)
        except Exception as error:
            if not isinstance(error, OSError):
                self._tasks.bug("accept", error, landing.envelope.id)
            self._refuse(landing, error)

    def _commit(self, landing: Landing) -> None:
        commit = self._durable.commit(landing.job(self._mailboxes, self._spool, self._now()))
        commit.add_done_callback(partial(self._landed, landing))

    def _landed(self, landing: Landing, commit: asyncio.Future[None]) -> None:
        """The commit is over: tell the scheduler, the index, the log, and then the client."""
        error = commit.exception()
        if error is not None:
            self._not_landed(landing, error)
            return
        try:
            envelope, emit, now = landing.envelope, self._emit, self._now()
            for mailbox in landing.places:
                self._mailboxes.delivered(mailbox, landing.name, landing.wire)
            recipients = envelope.recipients
            self._count["accepted"] += len(recipients)
            if landing.spooled:
                self._spooled(envelope, landing.body)
            emit(events.Accepted(
                envelope.id, landing.session, envelope.client, envelope.sender,
                tuple([recipient.address for recipient in recipients]), landing.body.size, landing.rule,
            ))  # fmt: skip
            if envelope.hold:
                emit(events.HeldBack(envelope.id, envelope.account or "", envelope.hold))
            if landing.places:
                self._landed_locally(landing, now)
        except (
            Exception
        ) as bug:  # the message is ours all the same, and a callback's exception reaches nobody
            self._tasks.bug("accept", bug, landing.envelope.id)
        if not landing.result.done():
            landing.result.set_result(landing.envelope.id)

    def _landed_locally(self, landing: Landing, now: float) -> None:
        envelope, asked = landing.envelope, False
        for recipient in envelope.recipients:
            route = recipient.route
            if type(route) is Local and route.mailbox in landing.places:
                self._count["delivered"] += 1
                self._emit(
                    events.DeliveredTo(envelope.id, recipient.address, seconds=now - envelope.accepted)
                )
                asked = asked or bool(recipient.notify)
        if asked:
            self._report_landed(landing)

    def _report_landed(self, landing: Landing) -> None:
        done = [r for r in landing.envelope.recipients if type(r.route) is Local and r not in landing.spooled]
        outcome = Delivered("in the mailbox")
        targets = [(r, outcome) for r in done if bounce.wants_report(r, "success", landing.envelope.sender)]
        if targets:
            head = landing.head or b"".join((landing.body.head, *landing.body.chunks))[: bounce.HEADERS_MAX]
            self._report_success(landing.envelope, targets, head)

    def _not_landed(self, landing: Landing, error: BaseException) -> None:
        if landing.places and isinstance(error, OSError) and error.errno not in MACHINE_SICK:
            problem = f"a mailbox could not be written, its mail waits in the queue: {error}"
            self._emit(events.Problem("accept", problem, id=landing.envelope.id))
            landing.spool_all(f"mailbox: {error.strerror or error}")
            self._tasks.spawn(self._land(landing, ()))
        else:
            self._refuse(landing, error)

    def _refuse(self, landing: Landing, error: BaseException) -> None:
        if (path := landing.body.path) is not None:
            self._durable.commit(Job(remove=(path,))).add_done_callback(
                partial(self._tasks.see, landing.envelope.id)
            )
        if not landing.result.done():
            landing.result.set_exception(error)
