"""A thread that works on what piled up while it was working: the waiting and the waking of group commit."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class BatchThread(Generic[T]):
    """``cut`` takes the next batch off the items waiting, at least one; ``work`` does it and returns how
    many of them are done, at least one (the rest goes in front of the queue again). Both run in the thread,
    in order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cut: Callable[[deque[T]], list[T]],
        work: Callable[[list[T]], int],
    ) -> None:
        self._loop, self._cut, self._work = loop, cut, work
        self._turn: list[T] = []
        self._inbox: SimpleQueue[list[T] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Called in the loop's thread. Raises RuntimeError after close()."""
        if self._closed:
            raise RuntimeError("commit after close")
        if not self._turn:
            # What this turn of the loop brings in goes over together: one wake-up, one larger batch.
            self._loop.call_soon(self._hand_over)
        self._turn.append(item)

    def close(self) -> None:
        """Work off everything, join the thread."""
        self._closed = True
        self._hand_over()
        self._inbox.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        if self._turn:
            self._inbox.put(self._turn)
            self._turn = []

    def _run(self) -> None:
        queued: deque[T] = deque()
        more = True
        while more or queued:
            more = self._receive(queued, more)
            if queued:
                batch = self._cut(queued)
                queued.extendleft(reversed(batch[self._work(batch) :]))

    def _receive(self, queued: deque[T], more: bool) -> bool:
        """Everything in the inbox goes to ``queued``; waits only when there is nothing. False once closed."""
        try:
            while more:
                items = self._inbox.get(block=not queued)
                if items is None:
                    more = False
                else:
                    queued.extend(items)
        except Empty:
            pass
        return more
