"""When is what tried: a pure scheduler of deliveries (``now`` is an argument, nothing here does I/O).

The unit is a Batch (queue/batch.py). What is ready stands in the lane of its destination (queue/lanes.py),
what is under way holds a slot (queue/slots.py).

Every operation costs O(log n) or, for a message, its number of batches. About 370 octets per waiting batch.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from mailserver.config.schema import Queue as Settings
from mailserver.queue.backoff import backoff, next_time
from mailserver.queue.batch import Batch, Stage
from mailserver.queue.lanes import Lanes
from mailserver.queue.slots import Slots

PORTION = 500  # batches one take() moves at most, so that a great many due at once do not stall the caller


class Schedule:
    """All batches of all queued messages. Not thread-safe: one event loop owns it."""

    def __init__(self, settings: Settings, *, random: Callable[[], float] = random_module.random) -> None:
        self._settings = settings
        self._random = random
        self._messages: dict[str, tuple[Batch, ...]] = {}
        self._heap: list[tuple[float, int, Batch]] = []
        self._ticket = 0
        self._waiting = 0
        self._lanes = Lanes(settings)
        self._slots = Slots()

    def reconfigure(self, settings: Settings) -> None:
        """Other settings, from the next decision on."""
        self._settings = self._lanes.settings = settings

    @property
    def in_flight(self) -> int:
        """How many batches are being tried."""
        return len(self._slots)

    # ---- in and out --------------------------------------------------------------------------------
    def add(
        self,
        message: str,
        recipients: Sequence[tuple[int, str]],
        *,
        due: float,
        attempts: int = 0,
        held: bool = False,
    ) -> None:
        """A message by its id, which must be new, with (recipient id, destination) of the pending ones."""
        assert message not in self._messages, message
        if len(recipients) == 1:  # by far the most
            ((recipient, destination),) = recipients
            batches: tuple[Batch, ...] = (Batch(message, destination, (recipient,), due, attempts),)
        else:
            batches = self._split(message, recipients, due, attempts)
            if not batches:
                return
        self._messages[message] = batches
        for batch in batches:
            self._put(batch, held=held)

    def _put(self, batch: Batch, *, held: bool) -> None:
        if held:
            batch.stage = Stage.HELD
        else:
            self._wait(batch)

    def _split(
        self, message: str, recipients: Sequence[tuple[int, str]], due: float, attempts: int
    ) -> tuple[Batch, ...]:
        most = self._settings.recipients_per_transaction
        by_destination: dict[str, list[int]] = {}
        for recipient, destination in recipients:
            by_destination.setdefault(destination, []).append(recipient)
        return tuple(
            Batch(message, destination, tuple(members[i : i + most]), due, attempts)
            for destination, members in by_destination.items()
            for i in range(0, len(members), most)
        )

    def take(self, now: float) -> list[Batch]:
        """What to do now, already in flight: every one of them must come back through ``settle``.

        Suspended batches take no slot, so no concurrency limits them. ``attempts`` and ``due`` have been
        moved forward. At most PORTION batches, of suspended ones no more than have so many recipients, for each is
        settled at once; ``wake`` says "at once" when there is more.
        """
        self._ripen(now)
        for hanging in self._slots.hanging(now):
            self._lanes.hangs(hanging.destination)
        taken: list[Batch] = []
        room = PORTION
        while room > 0 and (found := self._lanes.suspended(now)) is not None:
            batch, batch.suspended = found[0], found[1]
            room -= len(batch.recipients)
            taken.append(self._depart(batch, now))
        while len(taken) < PORTION and self._slots.free(self._settings.concurrency):
            if (ready := self._lanes.next(now)) is None:
                break
            self._slots.take(ready, now)
            taken.append(self._depart(ready, now))
        return taken

    def settle(
        self, batch: Batch, left: Sequence[int], *, now: float, expires: float, down: str = ""
    ) -> None:
        """The attempt is over; ``left``: recipients still pending, tried again no later than ``expires``.

        ``down``: why the destination as a whole could not be reached, if so. Frees the slot.
        """
        wait = backoff(batch.attempts, self._settings.retry, self._settings.jitter, self._random)
        due = next_time(now, wait, expires)
        if batch.suspended:
            batch.suspended = ""
        else:
            self._slots.give(batch)
            if down:
                until = min(due, now + self._settings.retry[0])
                self._lanes.back_from_down(batch.destination, reason=down, until=until, now=now)
            else:
                answered = len(left) < len(batch.recipients)
                self._lanes.back(batch.destination, answered=answered, now=now)
        if batch.stage is Stage.GONE:
            return
        if not left:
            self._forget(batch)
            return
        batch.recipients, batch.due = tuple(left), due
        held, batch.held = batch.held, False
        self._put(batch, held=held)

    def regroup(self, message: str, destinations: Mapping[int, str]) -> bool:
        """Other destinations, by recipient id, for what is not in flight. What then goes one way is one batch, with the
        earliest time and the most attempts; what was held stays so. False: all of it goes there already, or there is no
        such message."""
        batches = self._messages.get(message, ())
        moved = [
            batch
            for batch in batches
            if batch.stage not in {Stage.IN_FLIGHT, Stage.GONE}
            and any(destinations.get(id, batch.destination) != batch.destination for id in batch.recipients)
        ]
        goals = {destinations.get(id, batch.destination) for batch in moved for id in batch.recipients}
        if len(moved) == len(goals) == 1:  # by far the most: its place in the heap stays
            self._move(moved[0], goals.pop())
        elif moved:
            rest = [batch for batch in batches if batch not in moved]
            self._messages[message] = (*rest, *self._replaced(message, moved, destinations))
        return bool(moved)

    def _move(self, batch: Batch, destination: str) -> None:
        if batch.stage is Stage.READY:  # its lane is another now
            self._withdraw(batch)
            self._wait(batch)
        batch.destination = destination

    def _replaced(
        self, message: str, batches: Iterable[Batch], destinations: Mapping[int, str]
    ) -> list[Batch]:
        ways: dict[tuple[str, bool], list[tuple[int, Batch]]] = {}
        for batch in batches:
            held = batch.stage is Stage.HELD
            for id in batch.recipients:
                way = destinations.get(id, batch.destination), held
                ways.setdefault(way, []).append((id, batch))
            self._withdraw(batch)
            batch.stage = Stage.GONE
        parts: list[Batch] = []
        for (destination, held), members in ways.items():
            due, attempts = min(b.due for _, b in members), max(b.attempts for _, b in members)
            for part in self._split(message, [(id, destination) for id, _ in members], due, attempts):
                self._put(part, held=held)
                parts.append(part)
        return parts

    def clock_set(self, by: float) -> None:
        """The clock was set forward by so many seconds: what waits goes on waiting as long as it would have."""
        for batches in self._messages.values():
            for batch in batches:
                batch.due += by
        self._heap = [(due + by, ticket, batch) for due, ticket, batch in self._heap]
        heapify(self._heap)  # rounding may have made two times equal
        self._lanes.clock_set(by)
        self._slots.clock_set(by)

    def wake(self) -> float | None:
        """When ``take`` will next have something: 0.0 = at once, None = not before something changes."""
        due = self.oldest_due()
        if self._lanes.any_suspended:
            return 0.0
        if not self._lanes.any_ready:
            return due
        if self._slots.free(self._settings.concurrency):
            return 0.0
        slow = self._slots.next_slow()  # that frees a slot
        return min((time for time in (due, slow) if time is not None), default=None)

    # ---- an administrator's hand -------------------------------------------------------------------
    def hold(self, message: str) -> bool:
        """Not tried until released; what is in flight finishes. False = unknown."""
        for batch in self._messages.get(message, ()):
            if batch.stage is Stage.IN_FLIGHT:
                batch.held = True
            elif batch.stage is not Stage.GONE:
                self._withdraw(batch)
                batch.stage = Stage.HELD
        return message in self._messages

    def release(self, message: str, now: float) -> bool:
        """Undo hold: due when it would have been, or now if that is past. False = no such message."""
        for batch in self._messages.get(message, ()):
            batch.held = False
            if batch.stage is Stage.HELD:
                batch.due = max(batch.due, now)
                self._wait(batch)
        return message in self._messages

    def retry(self, message: str, now: float) -> bool:
        """Try now what waits, even if the destination is down. False = unknown, or held: that it stays."""
        for batch in self._messages.get(message, ()):
            self._lanes.revive(batch.destination, now)
            if batch.stage is Stage.WAITING:
                self._withdraw(batch)
                batch.due = now
                self._make_ready(batch, now)
        return message in self._messages and not self.is_held(message)

    def remove(self, message: str) -> bool:
        """Forget the message; an attempt under way still has to be settled, for its slot. False = unknown."""
        batches = self._messages.pop(message, ())
        for batch in batches:
            self._withdraw(batch)
            batch.stage = Stage.GONE
        return bool(batches)

    # ---- questions ---------------------------------------------------------------------------------
    def oldest_due(self) -> float | None:
        """The earliest time anything waits for; None: nothing does."""
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].ticket:
            heappop(heap)
        return heap[0][0] if heap else None

    def batches(self, message: str) -> tuple[Batch, ...]:
        """What is left of the message; () = unknown."""
        return tuple(b for b in self._messages.get(message, ()) if b.stage is not Stage.GONE)

    def is_held(self, message: str) -> bool:
        """Whether ``hold`` was asked for the message."""
        return any(b.held or b.stage is Stage.HELD for b in self._messages.get(message, ()))

    # ---- moves between the stages ------------------------------------------------------------------
    def _wait(self, batch: Batch) -> None:
        self._ticket += 1
        batch.stage, batch.ticket = Stage.WAITING, self._ticket
        self._waiting += 1
        heappush(self._heap, (batch.due, self._ticket, batch))

    def _withdraw(self, batch: Batch) -> None:
        """Out of the heap (its entry goes stale; too many stale ones are swept) or out of its lane."""
        if batch.stage is Stage.WAITING:
            batch.ticket = 0
            self._waiting -= 1
            if len(self._heap) > 2 * self._waiting + PORTION:
                self._heap = [entry for entry in self._heap if entry[1] == entry[2].ticket]
                heapify(self._heap)
        elif batch.stage is Stage.READY:
            self._lanes.withdraw(batch)

    def _ripen(self, now: float) -> None:
        """What is due leaves the heap for its lane, at most PORTION of it."""
        heap, moved = self._heap, 0
        while heap and heap[0][0] <= now and moved < PORTION:
            _, ticket, batch = heappop(heap)
            if ticket == batch.ticket:
                batch.ticket = 0
                self._waiting -= 1
                self._make_ready(batch, now)
                moved += 1

    def _make_ready(self, batch: Batch, now: float) -> None:
        batch.stage = Stage.READY
        self._lanes.enter(batch, now)

    def _depart(self, batch: Batch, now: float) -> Batch:
        batch.stage = Stage.IN_FLIGHT
        batch.attempts += 1
        batch.due = now + backoff(batch.attempts, self._settings.retry, self._settings.jitter, self._random)
        return batch

    def _forget(self, batch: Batch) -> None:
        batch.stage = Stage.GONE
        if all(b.stage is Stage.GONE for b in self._messages[batch.id]):
            del self._messages[batch.id]
