"""One callback, rung in the loop's next turn or when a time comes. Asking again costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring``. Belongs to one event loop; a time of it may come too early, never too late."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._next_turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0  # of the loop's clock

    def now(self) -> None:
        """In the loop's next turn, once, however often that is asked for."""
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._rings)

    def within(self, delay: float) -> None:
        """In ``delay`` seconds at the latest. A timer that is earlier stays: it will be asked then."""
        if delay <= 0:
            self.now()
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + delay
        if self._timer is None or at < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._at = loop.call_at(at, self._comes), at

    def cancel(self) -> None:
        """Not at all."""
        for handle in (self._next_turn, self._timer):
            if handle is not None:
                handle.cancel()
        self._next_turn = self._timer = None

    def _rings(self) -> None:
        self._next_turn = None
        self._ring()

    def _comes(self) -> None:
        self._timer = None
        self._ring()
