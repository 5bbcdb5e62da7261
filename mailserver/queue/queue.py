"""The whole life of a message: accepted, tried, settled (RFC 5321 4.5.4.1, RFC 3461 6, R08, R09).

accept   one commit (queue/accept.py): mailboxes of ours get it, everybody else is in the spool
_pump    the schedule gives what is due; attempts and next time are moved forward before anything is tried
_try     ``deliver`` gets one batch and gives an Outcome for each recipient
_settle  reports are accepted first, like any other message; then the states are saved, or it is removed

So a crash between a remote's 250 and the save sends at most one duplicate, and DeliveredTo.attempts above 1
says so. A message that was deferred before, or found in the spool at start-up, has its next time on disk
before it is tried, so one that kills the server does not kill it again at once; a fresh one is spared that.

Recipients: accepted + loaded = pending + delivered + forwarded + bounced + dropped + quarantined.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from mailserver import events
from mailserver.config.schema import Queue as Settings
from mailserver.deliver.attempt import Attempt, Deliver
from mailserver.events import Emit
from mailserver.message.body import Body
from mailserver.message.envelope import Deferred, Envelope, Outcome, Recipient, State
from mailserver.message.ids import IdSource
from mailserver.queue.accept import Intake
from mailserver.queue.alarm import Alarm
from mailserver.queue.batch import Batch, Stage
from mailserver.queue.clock import Clock, steady
from mailserver.queue.judgement import Judgement, destination_of, down_reason, due_for_report, judge
from mailserver.queue.listing import QueuedMessage, describe
from mailserver.queue.loading import PATIENCE, Loading
from mailserver.queue.records import Records
from mailserver.queue.report import Reports, RouteOf
from mailserver.queue.rerouting import Onward, Rerouting
from mailserver.queue.schedule import PORTION, Schedule
from mailserver.queue.spool import Loaded, Spool, SpoolDamaged
from mailserver.queue.tasks import Tasks
from mailserver.store.content import Content
from mailserver.store.durable import Durable
from mailserver.store.index import Mailboxes

_THREAD_FROM = 1 << 18  # octets of content: read in a thread, and never kept for the first attempt
_TIMER_MAX = 60.0  # seconds: the clock may be set meanwhile
_AFTER_BUG = 1.0  # seconds; also how long a crowd of tasks is waited for
_LEDGER = ("pending", "loaded", "accepted", "delivered", "forwarded", "bounced", "dropped", "quarantined")


class Queue:
    """Everything from ``250 queued`` to the last outcome. One event loop owns it. ``now``: Unix seconds, ``passed``: of
    a clock that nobody sets. Await ``start`` before the listeners accept: it tidies the spool's tmp/."""

    def __init__(
        self, *, settings: Settings, hostname: str, spool: Spool, durable: Durable, mailboxes: Mailboxes,
        deliver: Deliver, route_of: RouteOf, onward: Onward, emit: Emit, now: Callable[[], float],
        passed: Callable[[], float] = steady, random: Callable[[], float] = random_module.random,
        executor: Executor | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._emit = settings, emit
        self._spool, self._durable, self._deliver = spool, durable, deliver
        self._schedule = Schedule(settings, random=random)
        self._messages: dict[str, Envelope] = {}
        self._now = now = Clock(now, passed, self._schedule, self._messages, emit)
        self._ids = IdSource(int(random() * (1 << 20)))
        self._tasks = Tasks(emit, executor)
        self._count: Counter[str] = Counter()
        self._reports = Reports(
            settings=settings, hostname=hostname, spool=spool, accept=self.accept, route_of=route_of,
            tasks=self._tasks, emit=emit, now=now, new_id=self.new_id,
        )  # fmt: skip
        self._intake = Intake(
            spool=spool, durable=durable, mailboxes=mailboxes, tasks=self._tasks, emit=emit, now=now,
            count=self._count, spooled=self._spooled, report_success=self._reports.success,
        )  # fmt: skip
        self._records = Records(spool, durable, emit, now)
        self._rerouting = Rerouting(self._schedule, self._messages, onward, emit, self.kick)
        self._reloaded: set[str] = set()  # found at start-up and not tried since
        self._new: dict[str, bytes] = {}  # contents accepted since the last pump: their first attempt is next
        self._alarm, self._running = Alarm(self._pump), False
        self._loading = Loading(spool, self._tasks, self._loaded, self.kick, emit)

    def reconfigure(self, settings: Settings) -> asyncio.Task[None]:
        """Other settings, from the next decision on, and maybe routes: when the task is done, for all that waits."""
        self._settings = self._reports.settings = settings
        self._schedule.reconfigure(settings)
        return self._tasks.spawn(self._rerouting.all())

    def new_id(self) -> str:
        """A queue id for the next message."""
        return self._ids.next(self._now())

    def accept(
        self, envelope: Envelope, body: Body, *, session: int = 0, rule: str = ""
    ) -> asyncio.Future[str]:
        """Make the message durable. The future has its id when it is, names included, and POP3 can see it; or
        the OSError that prevented it: nothing is stored then. Cancelling the future changes nothing."""
        return self._intake.accept(envelope, body, session, rule)

    def _spooled(self, envelope: Envelope, body: Body) -> None:
        self._enqueue(Loaded(envelope, 0, min(envelope.accepted, self._now()), bool(envelope.hold)))
        if self._running and body.path is None and envelope.size < _THREAD_FROM:
            self._new[envelope.id] = b"".join((body.head, *body.chunks))
        self.kick()

    def _enqueue(self, message: Loaded) -> int:
        envelope, attempts, due, held = message
        pending = [(r.id, destination_of(r)) for r in envelope.recipients if r.state is State.PENDING]
        self._count["pending"] += len(pending)
        self._messages[envelope.id] = envelope
        self._schedule.add(envelope.id, pending, due=due, attempts=attempts, held=held)
        return len(pending)

    # ---- start, run, stop --------------------------------------------------------------------------
    async def start(self, patience: float = PATIENCE) -> int:
        """Load the spool. How many messages are queued, or known after ``patience`` seconds. Raises OSError."""
        self._running = True
        await self._loading.begin(patience)
        return len(self._messages)

    def _loaded(self, message: Loaded) -> None:
        self._rerouting.look_up(message.envelope.recipients)
        pending = self._enqueue(self._now.credible(message, self._settings))
        self._count["loaded"] += pending
        self._reloaded.add(message.envelope.id)
        if not pending:  # settled, but the crash came before its removal
            self._tasks.spawn(self._save(message.envelope))

    async def drain(self, deadline: float) -> None:
        """Start nothing new; what runs has ``deadline`` seconds, then it is cut off and stays queued."""
        self._running = False
        self._alarm.cancel()
        await self._tasks.drain(deadline)

    def kick(self) -> bool:
        """Look at the schedule in the loop's next turn (also after the clock was moved). False: it runs no more."""
        if self._running:
            self._alarm.now()
        return self._running

    def _pump(self) -> None:
        """Start what is due, arm the timer for what is next. A bug in here is reported and stops nothing."""
        delay = _AFTER_BUG
        try:
            now = self._now()
            crowded = len(self._tasks) - self._schedule.in_flight > PORTION  # many reports are under way
            if not crowded:
                for batch in self._schedule.take(now):
                    self._begin(batch, self._messages[batch.id], now)
            wake = self._schedule.wake()
            if wake is None:
                delay = _TIMER_MAX
            elif crowded:
                delay = _AFTER_BUG  # most tasks kick when they end, but not all
            else:
                delay = min(max(0.0, wake - now), _TIMER_MAX)
        except Exception as error:
            self._tasks.bug("queue", error)
        self._new.clear()
        self._alarm.within(delay)

    def _begin(self, batch: Batch, envelope: Envelope, now: float) -> None:
        wanted = set(batch.recipients)
        recipients = [recipient for recipient in envelope.recipients if recipient.id in wanted]
        if not batch.suspended:
            content = self._new.get(batch.id)
            self._tasks.spawn(self._try(batch, envelope, recipients, content))
            return
        later = Deferred(f"not tried again yet: {batch.suspended}", "4.4.1")
        outcomes: dict[int, Outcome] = dict.fromkeys(wanted, later)
        try:
            if due_for_report(envelope, recipients, now, self._settings):
                self._tasks.spawn(self._settle(batch, envelope, recipients, outcomes))
            else:  # by far the most: no task, nothing to save
                judgement = judge(envelope, recipients, outcomes, now, self._settings)
                self._apply(batch, envelope, judgement, "")
        except Exception as error:
            self._put_back(batch, envelope, error)

    # ---- try ---------------------------------------------------------------------------------------
    async def _try(
        self, batch: Batch, envelope: Envelope, recipients: Sequence[Recipient], known: bytes | None
    ) -> None:
        outcomes: dict[int, Outcome] = {}
        try:
            content = await self._content(batch, envelope, known)
            attempt = Attempt(envelope, tuple(recipients), batch.destination, content, batch.attempts)
            outcomes = await self._deliver(attempt)
            if missing := [r.address for r in recipients if r.id not in outcomes]:
                self._emit(events.Problem("deliver", f"no outcome for {missing}", id=envelope.id))
        except (SpoolDamaged, FileNotFoundError) as damage:
            queued = batch.stage is not Stage.GONE  # else an administrator, or another batch, was faster
            if queued:
                self._leave(envelope, "quarantined")
            self._schedule.settle(batch, (), now=self._now(), expires=0)
            self.kick()
            if queued:
                await self._set_aside(envelope.id, damage)
            return
        except Exception as error:
            self._tasks.bug("deliver", error, envelope.id)
        await self._settle(batch, envelope, recipients, outcomes)

    async def _content(self, batch: Batch, envelope: Envelope, known: bytes | None) -> Content:
        if known is not None:  # just accepted: nothing can be told from the disk that is not known
            return Content(self._spool.path(envelope.id), 0, envelope.size, known)
        fresh = batch.attempts == 1 and envelope.id not in self._reloaded
        if not fresh:
            self._reloaded.discard(envelope.id)
            await self._save(envelope)
        if fresh and envelope.size < _THREAD_FROM:  # still in the page cache
            return self._spool.content(envelope)
        return await self._tasks.in_thread(self._spool.content, envelope)

    async def _set_aside(self, id: str, damage: Exception) -> None:
        """The spool file is unreadable: moved aside by the spool, and said loudly."""
        if isinstance(damage, FileNotFoundError):
            self._emit(events.Problem("queue", f"its spool file is missing: {damage}", id=id))
        else:
            await self._tasks.in_thread(self._spool.quarantine, id, str(damage))

    async def scrub(self) -> None:
        """Read, in a thread, what was too large to be checked at the start; the damaged leave the queue."""
        await self._loading.end()
        damaged = self._spool.scrub()
        while found := await self._tasks.in_thread(next, damaged, None):
            id, reason = found
            if (envelope := self._messages.get(id)) is not None:
                self._leave(envelope, "quarantined")
                await self._set_aside(id, SpoolDamaged(reason))

    # ---- settle ------------------------------------------------------------------------------------
    async def _settle(
        self, batch: Batch, envelope: Envelope, recipients: Sequence[Recipient], outcomes: dict[int, Outcome]
    ) -> None:
        try:
            judgement = judge(envelope, recipients, outcomes, self._now(), self._settings)
            try:
                if batch.stage is not Stage.GONE:
                    await self._reports.owed(envelope, judgement)
            except Exception as error:
                self._tasks.bug("queue", error, envelope.id)
                judgement.keep_failed("internal error")
            self._apply(batch, envelope, judgement, down_reason(outcomes))
        except Exception as error:
            self._put_back(batch, envelope, error)
        self.kick()
        await self._save(envelope)

    def _put_back(self, batch: Batch, envelope: Envelope, error: Exception) -> None:
        """A bug of ours: who is pending is tried again later, as after any deferral."""
        self._tasks.bug("queue", error, envelope.id)
        if batch.stage is Stage.IN_FLIGHT:  # else it had settled before
            pending = [
                r.id for r in envelope.recipients if r.state is State.PENDING and r.id in batch.recipients
            ]
            expires = envelope.accepted + self._settings.max_age
            self._schedule.settle(batch, pending, now=self._now(), expires=expires)

    def _apply(self, batch: Batch, envelope: Envelope, judgement: Judgement, down: str) -> None:
        """Put the judgement into the envelope, the counters and the schedule, and then into the log."""
        now = self._now()
        if batch.stage is Stage.GONE:  # removed by an administrator meanwhile
            self._schedule.settle(batch, (), now=now, expires=0, down=down)
            return
        for how in judgement.note():
            self._settled(how)
        left = [recipient.id for recipient, _ in judgement.deferred]
        expires = envelope.accepted + self._settings.max_age
        self._schedule.settle(batch, left, now=now, expires=expires, down=down)
        self._rerouting.put_off(batch, [recipient for recipient, _ in judgement.deferred])
        self._records.tell(batch, envelope, judgement)

    def _settled(self, how: str) -> None:
        self._count["pending"] -= 1
        self._count[how] += 1

    async def _save(self, envelope: Envelope) -> None:
        """What the message has become, on disk: its progress, or nothing when all are settled."""
        if envelope.id not in self._messages:
            return
        if batches := self._schedule.batches(envelope.id):
            await self._records.progress(envelope, batches, held=self._schedule.is_held(envelope.id))
        else:
            del self._messages[envelope.id]
            self._reloaded.discard(envelope.id)
            await self._records.remove(envelope)

    def _leave(self, envelope: Envelope, how: str) -> None:
        """Out of the queue as it is; what is under way comes to nothing."""
        for _ in (r for r in envelope.recipients if r.state is State.PENDING):
            self._settled(how)
        self._schedule.remove(envelope.id)
        self._reloaded.discard(envelope.id)
        del self._messages[envelope.id]

    # ---- an administrator's hand -------------------------------------------------------------------
    def retry(self, ids: Iterable[str]) -> int:
        """Try these now, whatever their back-off; held ones stay held. Returns how many are tried."""
        now = self._now()
        found = sum([self._schedule.retry(name, now) for name in ids])
        self.kick()
        return found

    def hold(self, ids: Iterable[str]) -> int:
        """Do not try these until released; survives a restart. Returns how many there are."""
        return self._marked([name for name in ids if self._schedule.hold(name)])

    def release(self, ids: Iterable[str]) -> int:
        """Undo hold. Returns how many there are."""
        released = [name for name in ids if self._schedule.release(name, self._now())]
        for name in released:
            self._messages[name].hold = ""
        return self._marked(released)

    def _marked(self, ids: Sequence[str]) -> int:
        for name in ids:
            self._tasks.spawn(self._save(self._messages[name]))
        self.kick()
        return len(ids)

    async def remove(self, ids: Iterable[str]) -> int:
        """Delete these without a report. Returns how many there were. Raises RemovalFailed: a file stays for now."""
        found = [self._messages[name] for name in dict.fromkeys(ids) if name in self._messages]
        for envelope in found:
            self._leave(envelope, "dropped")
        for failure in await asyncio.gather(*map(self._records.withdraw, found)):
            if failure is not None:
                raise failure
        return len(found)

    def status(self) -> dict[str, int]:
        """``queued`` in messages (``loading``: not all yet), the ledger in recipients, ``oldest_due`` in Unix time."""
        return {
            "queued": len(self._messages), "loading": self._loading.under_way, "in_flight": self._schedule.in_flight,
            "oldest_due": int(self._schedule.oldest_due() or 0), **{name: self._count[name] for name in _LEDGER},
        }  # fmt: skip

    def show(self, message: str) -> QueuedMessage | None:
        """One message by its id; None = unknown."""
        envelope = self._messages.get(message)
        return describe(envelope, self._schedule) if envelope is not None else None

    def ids(self, account: str | None = None) -> Sequence[str]:
        """All of them, or what ``account`` sent; oldest acceptance first."""
        return [e.id for e in self._messages.values() if account in (None, e.account)]
