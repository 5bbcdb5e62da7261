"""How much is under way: a slot for every delivery, and further ones for those that hang. Pure.

RFC 5321 4.5.3.2 lets a host be silent for minutes at every step. So a delivery that takes longer than SLOW
gives its slot back and goes on in the waiting room, which has WAITING_ROOM places for every slot: hosts that
hang hold up the others for SLOW seconds, not for as long as they like to. What hangs is a coroutine and a
socket; the room bounds them.
"""

from __future__ import annotations

from collections import OrderedDict

from mailserver.queue.batch import Batch

SLOW = 10.0  # seconds; most deliveries take one, greeting delays five
WAITING_ROOM = 4


class Slots:
    """Deliveries under way. ``concurrency`` is how many slots there are; every time is Unix seconds."""

    def __init__(self) -> None:
        self._quick: OrderedDict[Batch, float] = OrderedDict()  # since when, the oldest first
        self._slow: set[Batch] = set()

    def __len__(self) -> int:
        return len(self._quick) + len(self._slow)

    def free(self, concurrency: int) -> bool:
        """Whether another delivery may start."""
        return len(self._quick) < concurrency and len(self) < concurrency * (1 + WAITING_ROOM)

    def take(self, delivery: Batch, now: float) -> None:
        """It starts."""
        self._quick[delivery] = now

    def give(self, delivery: Batch) -> None:
        """It is over."""
        if self._quick.pop(delivery, None) is None:
            self._slow.discard(delivery)

    def hanging(self, now: float) -> list[Batch]:
        """Those that have become slow since the last call, now in the waiting room."""
        found: list[Batch] = []
        while (at := self.next_slow()) is not None and at <= now:
            delivery, _ = self._quick.popitem(last=False)
            self._slow.add(delivery)
            found.append(delivery)
        return found

    def clock_set(self, by: float) -> None:
        """Nothing has become slow by that."""
        for delivery in self._quick:
            self._quick[delivery] += by

    def next_slow(self) -> float | None:
        """When the next one becomes slow; None: nothing is under way that is not slow already."""
        return next(iter(self._quick.values())) + SLOW if self._quick else None
