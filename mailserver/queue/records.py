"""What the disk and the log say of a queued message: its progress, and in the end that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from mailserver.events import DeferredFor, DeliveredTo, Dropped, Emit, FailedFor, Problem, Removed
from mailserver.message.envelope import Envelope
from mailserver.queue.batch import Batch
from mailserver.queue.judgement import Judgement, why_untold
from mailserver.queue.spool import Spool
from mailserver.store.durable import Durable, Job, RemovalFailed

AGAIN = 10.0  # seconds until the next attempt to remove what is settled and could not be removed


class Records:
    """``now`` gives Unix seconds."""

    def __init__(self, spool: Spool, durable: Durable, emit: Emit, now: Callable[[], float]) -> None:
        self._spool, self._durable, self._emit, self._now = spool, durable, emit, now

    async def progress(self, envelope: Envelope, batches: Sequence[Batch], *, held: bool) -> None:
        """The most attempts any batch had, the earliest next time, the state of each recipient."""
        await self._save(envelope, max(b.attempts for b in batches), min(b.due for b in batches), held=held)

    async def remove(self, envelope: Envelope) -> None:
        """All its recipients are settled. A file that stays says so at least, or a restart would send it again; a disk
        that cannot even take that may be well again before."""
        await self._remove(envelope, "settled", held=False)

    async def withdraw(self, envelope: Envelope) -> RemovalFailed | None:
        """An administrator wants it gone. A file that stays is held, so that no restart sends it; why it stays."""
        return await self._remove(envelope, "removed by an administrator", held=True)

    async def _remove(self, envelope: Envelope, why: str, *, held: bool) -> RemovalFailed | None:
        try:
            await self._durable.commit(self._spool.removal(envelope.id))
        except RemovalFailed as error:
            self._emit(Problem("queue", f"{why}, but its file cannot be removed: {error}", id=envelope.id))
            await self._save(envelope, 0, self._now(), held=held)
            self._remove_later(envelope.id, why)
            return error
        self._emit(Removed(envelope.id, why))
        return None

    def _remove_later(self, id: str, why: str) -> None:
        asyncio.get_running_loop().call_later(AGAIN, self._remove_again, id, why)

    def _remove_again(self, id: str, why: str) -> None:
        with suppress(RuntimeError):  # nothing is committed any more: the next start deals with it
            commit = self._durable.commit(self._spool.removal(id))
            commit.add_done_callback(partial(self._removed, id, why))

    def _removed(self, id: str, why: str, commit: asyncio.Future[None]) -> None:
        if commit.cancelled():
            return
        if commit.exception() is None:
            self._emit(Removed(id, why))
        else:
            self._remove_later(id, why)

    def tell(self, batch: Batch, envelope: Envelope, judgement: Judgement) -> None:
        """Into the log, what has become of whom."""
        told = judgement.told
        emit, name, tries = self._emit, envelope.id, batch.attempts
        age = self._now() - envelope.accepted
        for recipient, o in judgement.delivered:
            emit(DeliveredTo(name, recipient.address, o.remote, o.reply, age, tries))
        for recipient, f in judgement.failed:
            emit(FailedFor(name, recipient.address, f.reply, f.status, f.remote))
            if recipient.id not in told:
                emit(Dropped(name, recipient.address, why_untold(envelope, recipient)))
        for recipient, d in judgement.deferred:
            emit(DeferredFor(
                name, recipient.address, d.reply, d.status, tries, batch.due, d.remote
            ))  # fmt: skip

    async def _save(self, envelope: Envelope, attempts: int, due: float, *, held: bool) -> None:
        file = self._spool.progress(envelope, attempts=attempts, due=due, held=held)
        try:
            await self._durable.commit(Job((file,)))
        except OSError as error:
            self._emit(Problem("queue", f"progress could not be saved: {error}", id=envelope.id))
