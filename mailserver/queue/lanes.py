"""What is ready to be tried, by destination: whose turn it is, and how much a destination bears at once. Pure.

The lanes are served in turn, one batch each: a destination with 100,000 messages delays another by one. Within a
lane what was never tried and what was put off before take turns, too: mail that comes now does not wait for a
backlog that has become due again. How many deliveries a destination gets at once follows what it does with
them, as in Postfix's queue manager: START to begin with, one more for each that was answered, one less for
each that hangs (queue/slots.py), up to ``concurrency_per_destination``. One that hangs and has not answered
anybody yet gets one at a time.

A destination that does not answer is *down* for a while. Until then whatever is or becomes ready for it is
handed out as *suspended*: not to be tried, only settled with the known reason, so each message keeps its own
back-off, delay warning and end of life without a connection of its own. (Postfix does so too. Parking the
whole lane would never let the messages at its end grow old.) After that one batch at a time probes, until one
does not find the destination down.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from mailserver.config.schema import Queue as Settings
from mailserver.queue.batch import Batch

START = 5  # deliveries at once to a destination nothing is known about
DOWN_MAX = 10_000  # destinations remembered as down; the oldest are forgotten first


class _Down(NamedTuple):
    until: float
    reason: str


class _Ready:
    """Batches in the order in which they became ready, those never tried and the others in turn."""

    __slots__ = ("_again", "_fresh", "_turn")

    def __init__(self) -> None:
        # A plain dict pops its front in O(n).
        self._fresh: OrderedDict[Batch, None] = OrderedDict()
        self._again: OrderedDict[Batch, None] = OrderedDict()
        self._turn = self._fresh

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again)

    def add(self, batch: Batch) -> None:
        (self._again if batch.attempts else self._fresh)[batch] = None

    def remove(self, batch: Batch) -> None:
        del (self._again if batch.attempts else self._fresh)[batch]

    def pop(self) -> Batch:
        """The next; there must be one."""
        other = self._again if self._turn is self._fresh else self._fresh
        batch, _ = (self._turn or other).popitem(last=False)
        self._turn = other
        return batch


class _Lane:
    """What is ready for one destination, and how much of it is under way. Exists only while either is so."""

    __slots__ = ("answered", "in_flight", "line", "name", "ready", "window")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = _Ready()
        self.in_flight = 0
        self.answered = False
        self.window = START
        self.line: deque[_Lane] | None = None  # where it stands; an entry in another deque is stale


class Lanes:
    """All lanes. ``settings`` may change."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lanes: dict[str, _Lane] = {}
        self._turn: deque[_Lane] = deque()
        self._sinking: deque[_Lane] = deque()  # destinations that are down: handed out as suspended
        self._down: OrderedDict[str, _Down] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def any_ready(self) -> bool:
        """Whether ``next`` may have something."""
        return bool(self._turn)

    @property
    def any_suspended(self) -> bool:
        """Whether ``suspended`` may have something."""
        return bool(self._sinking)

    # ---- in and out ------------------------------------------------------------------------------------
    def enter(self, batch: Batch, now: float) -> None:
        """It is due."""
        if (lane := self._lanes.get(batch.destination)) is None:
            lane = self._lanes[batch.destination] = _Lane(batch.destination)
        lane.ready.add(batch)
        self._line_up(lane, now)

    def withdraw(self, batch: Batch) -> None:
        """It is not to be tried after all."""
        lane = self._lanes[batch.destination]
        lane.ready.remove(batch)
        self._drop_if_idle(lane)

    def suspended(self, now: float) -> tuple[Batch, str] | None:
        """What is ready for a destination that is down, and why it is: not under way by this."""
        while self._sinking:
            lane = self._step_out(self._sinking)
            if lane is None:
                continue
            reason = self._down_reason(lane.name, now)
            batch = lane.ready.pop() if reason else None
            self._line_up(lane, now)
            if batch is not None:
                return batch, reason
        return None

    def next(self, now: float) -> Batch | None:
        """The next to be tried: under way until ``back``."""
        while self._turn:
            lane = self._step_out(self._turn)
            if lane is None or lane.in_flight >= self._limit(lane):
                continue  # back() lines it up again
            batch = lane.ready.pop()
            lane.in_flight += 1
            self._line_up(lane, now)
            return batch
        return None

    # ---- what we learn of a destination ----------------------------------------------------------------
    def back(self, destination: str, *, answered: bool, now: float) -> None:
        """A delivery is over that did not find the destination down. ``answered``: somebody is settled."""
        lane = self._lanes[destination]
        self._down.pop(destination, None)
        if answered:
            lane.answered = True
            lane.window = min(lane.window + 1, self.settings.concurrency_per_destination)
        lane.in_flight -= 1
        self._line_up(lane, now)

    def back_from_down(self, destination: str, *, reason: str, until: float, now: float) -> None:
        """A delivery is over that found the destination down."""
        lane = self._lanes[destination]
        self._down[destination] = _Down(until, reason)
        self._down.move_to_end(destination)
        if len(self._down) > DOWN_MAX:
            self._down.popitem(last=False)
        lane.answered, lane.window = False, 1
        lane.in_flight -= 1
        self._line_up(lane, now)

    def hangs(self, destination: str) -> None:
        """A delivery under way takes its time."""
        lane = self._lanes[destination]
        lane.window = max(1, lane.window - 1) if lane.answered else 1

    def revive(self, destination: str, now: float) -> None:
        """Somebody knows better: it is not down."""
        if self._down.pop(destination, None) is not None and (lane := self._lanes.get(destination)):
            self._line_up(lane, now)

    def clock_set(self, by: float) -> None:
        """Who is down is so for as long as before."""
        for destination, down in self._down.items():
            self._down[destination] = _Down(down.until + by, down.reason)

    # ---- inside ----------------------------------------------------------------------------------------
    def _line_up(self, lane: _Lane, now: float) -> None:
        """At the end of the line it belongs to, if it has anything to give; idle lanes are dropped."""
        if not lane.ready:
            self._drop_if_idle(lane)
            return
        line = self._sinking if self._down_reason(lane.name, now) else self._turn
        if lane.line is line or (line is self._turn and lane.in_flight >= self._limit(lane)):
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

    def _limit(self, lane: _Lane) -> int:
        """One at a time to a destination last seen down: the probe."""
        return 1 if lane.name in self._down else min(lane.window, self.settings.concurrency_per_destination)
