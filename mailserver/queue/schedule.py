"""When is what tried: a pure scheduler of deliveries (``now`` is an argument, nothing here does I/O).

The unit is a Batch: recipients of one message with one destination, at most ``recipients_per_transaction``.
A batch is in exactly one stage and a recipient in exactly one batch, so nobody is tried twice at once::

    add ──> WAITING (heap by due time) ──due──> READY (a destination's lane) ──take──> IN_FLIGHT ──> GONE
               ^   │ hold                          │ hold                                 │ settle
               │   └──────────> HELD <─────────────┘                                      │
               └──────────────────────────────────────────────────────────────────────────┘

``take`` serves the lanes in turn, one batch each: a destination with 100,000 messages delays another by one.

A destination that does not answer is *down* until the failed batch's next time, at most the first retry wait.
Until then whatever is or becomes ready for it is handed out as *suspended*: not to be tried, only settled
with the known reason, so each message keeps its own back-off, delay warning and end of life without a
connection of its own. (Postfix does so too. Parking the whole lane would never let the messages at its end
grow old.) After that one batch at a time probes, until one does not find the destination down.

Every operation costs O(log n) or, for a message, its number of batches. About 370 octets per waiting batch.
"""

from __future__ import annotations

import random as random_module
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from mailserver.config.schema import Queue as Settings
from mailserver.queue.backoff import backoff, next_time

PORTION = 500  # batches one take() moves at most, so that a great many due at once do not stall the caller
DOWN_MAX = 10_000  # destinations remembered as down; the oldest are forgotten first


class Stage(IntEnum):
    """See the drawing above."""

    WAITING = 0
    READY = 1
    IN_FLIGHT = 2
    HELD = 3
    GONE = 4


class Batch:
    """Recipients (ids within their envelope) of message ``id`` to try together. ``attempts`` counts this one
    too once it is in flight; ``due`` is Unix seconds. ``suspended``: why not to try it now, "" = try it."""

    __slots__ = ("attempts", "destination", "due", "held", "id", "recipients", "stage", "suspended", "ticket")

    def __init__(
        self, message: str, destination: str, recipients: tuple[int, ...], due: float, attempts: int
    ) -> None:
        self.id = message
        self.destination = destination
        self.recipients = recipients
        self.due = due
        self.attempts = attempts
        self.suspended = ""
        self.held = False  # asked for while in flight: it goes to HELD when it comes back
        self.stage = Stage.WAITING
        self.ticket = 0  # the one heap entry that counts; older ones are stale


class _Down(NamedTuple):
    until: float
    reason: str


class _Lane:
    """What is ready for one destination, and how much of it is under way. Exists only while either is so."""

    __slots__ = ("in_flight", "line", "name", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: OrderedDict[Batch, None] = OrderedDict()  # a plain dict pops its front in O(n)
        self.in_flight = 0
        self.line: deque[_Lane] | None = None  # where it stands; an entry in another deque is stale


class Schedule:
    """All batches of all queued messages. Not thread-safe: one event loop owns it."""

    def __init__(self, settings: Settings, *, random: Callable[[], float] = random_module.random) -> None:
        self.settings = settings
        self.in_flight = 0
        self._random = random
        self._messages: dict[str, tuple[Batch, ...]] = {}
        self._heap: list[tuple[float, int, Batch]] = []
        self._ticket = 0
        self._waiting = 0
        self._lanes: dict[str, _Lane] = {}
        self._turn: deque[_Lane] = deque()
        self._down: OrderedDict[str, _Down] = OrderedDict()
        self._sinking: deque[_Lane] = deque()  # destinations that are down: handed out as suspended

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
            if held:
                batch.stage = Stage.HELD
            else:
                self._wait(batch)

    def _split(
        self, message: str, recipients: Sequence[tuple[int, str]], due: float, attempts: int
    ) -> tuple[Batch, ...]:
        most = self.settings.recipients_per_transaction
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
        moved forward. At most PORTION batches; ``wake`` says "at once" when there is more.
        """
        self._ripen(now)
        taken: list[Batch] = []
        while self._sinking and len(taken) < PORTION:
            lane = self._step_out(self._sinking)
            if lane is None:
                continue
            if reason := self._down_reason(lane.name, now):
                taken.append(self._depart(lane, now, reason))
            self._line_up(lane, now)
        while self._turn and self.in_flight < self.settings.concurrency and len(taken) < PORTION:
            lane = self._step_out(self._turn)
            if lane is None or lane.in_flight >= self._limit(lane.name):
                continue  # settle() lines it up again
            taken.append(self._depart(lane, now))
            self._line_up(lane, now)
        return taken

    def settle(
        self, batch: Batch, left: Sequence[int], *, now: float, expires: float, down: str = ""
    ) -> None:
        """The attempt is over; ``left``: recipients still pending, tried again no later than ``expires``.

        ``down``: why the destination as a whole could not be reached, if so. Frees the slot.
        """
        wait = backoff(batch.attempts, self.settings.retry, self.settings.jitter, self._random)
        due = next_time(now, wait, expires)
        if batch.suspended:
            batch.suspended = ""
        else:
            self._arrive(batch.destination, down, min(due, now + self.settings.retry[0]), now)
        if batch.stage is Stage.GONE:
            return
        if not left:
            self._forget(batch)
            return
        batch.recipients, batch.due = tuple(left), due
        if batch.held:
            batch.held, batch.stage = False, Stage.HELD
        else:
            self._wait(batch)

    def wake(self) -> float | None:
        """When ``take`` will next have something: 0.0 = at once, None = not before something changes."""
        if self._sinking or (self._turn and self.in_flight < self.settings.concurrency):
            return 0.0
        return self.oldest_due()

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
        """Try now what waits, even if the destination is down; held mail stays held. False = unknown."""
        for batch in self._messages.get(message, ()):
            self._down.pop(batch.destination, None)
            if batch.stage is Stage.WAITING:
                self._withdraw(batch)
                batch.due = now
                self._make_ready(batch, now)
            elif batch.stage is Stage.READY:
                self._line_up(self._lanes[batch.destination], now)
        return message in self._messages

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
            lane = self._lanes[batch.destination]
            del lane.ready[batch]
            self._drop_if_idle(lane)

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
        if (lane := self._lanes.get(batch.destination)) is None:
            lane = self._lanes[batch.destination] = _Lane(batch.destination)
        batch.stage = Stage.READY
        lane.ready[batch] = None
        self._line_up(lane, now)

    def _depart(self, lane: _Lane, now: float, suspended: str = "") -> Batch:
        batch, _ = lane.ready.popitem(last=False)
        batch.stage, batch.suspended = Stage.IN_FLIGHT, suspended
        batch.attempts += 1
        batch.due = now + backoff(batch.attempts, self.settings.retry, self.settings.jitter, self._random)
        if not suspended:
            lane.in_flight += 1
            self.in_flight += 1
        return batch

    def _arrive(self, destination: str, down: str, until: float, now: float) -> None:
        """A slot is free again, and we know more about the destination."""
        lane = self._lanes[destination]
        lane.in_flight -= 1
        self.in_flight -= 1
        if down:
            self._down[destination] = _Down(until, down)
            self._down.move_to_end(destination)
            if len(self._down) > DOWN_MAX:
                self._down.popitem(last=False)
        else:
            self._down.pop(destination, None)
        self._line_up(lane, now)

    def _forget(self, batch: Batch) -> None:
        batch.stage = Stage.GONE
        if all(b.stage is Stage.GONE for b in self._messages[batch.id]):
            del self._messages[batch.id]

    # ---- lanes -------------------------------------------------------------------------------------
    def _line_up(self, lane: _Lane, now: float) -> None:
        """At the end of the line it belongs to, if it has anything to give; idle lanes are dropped."""
        if not lane.ready:
            self._drop_if_idle(lane)
            return
        line = self._sinking if self._down_reason(lane.name, now) else self._turn
        if lane.line is line or (line is self._turn and lane.in_flight >= self._limit(lane.name)):
            return
        lane.line = line
        line.append(lane)

    def _step_out(self, line: deque[_Lane]) -> _Lane | None:
        """The first in line; None = a stale entry."""
        lane = line.popleft()
        if lane.line is not line:
            return None
        lane.line = None
        return lane if lane.ready else None

    def _drop_if_idle(self, lane: _Lane) -> None:
        if not lane.ready and not lane.in_flight and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]

    def _down_reason(self, destination: str, now: float) -> str:
        down = self._down.get(destination)
        return down.reason if down and now < down.until else ""

    def _limit(self, destination: str) -> int:
        """One at a time to a destination last seen down: the probe."""
        return 1 if destination in self._down else self.settings.concurrency_per_destination
