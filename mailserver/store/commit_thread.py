"""The commit thread and the event loop: the waiting and the waking of group commit."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from mailserver.store.belt import Belt, CompiledBelt, Orders, PythonBelt, Taken
from mailserver.store.job import together
from mailserver.store.steps import Steps
from mailserver.store.task import Task


class CommitThread:
    """Tasks go to the thread by parcels, those of one turn of the loop, and come back in the same order.

    ``steps`` and ``folders``: for compiled code, which does nearly all and without the interpreter's lock; None: there
    is none. ``orders``: how it is to sync, asked each time. ``work``: does a batch that compiled code left, to the end;
    both are called in the thread. ``settle``: told of finished tasks, in the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, steps: Steps | None, folders: Sequence[str], *,
        orders: Callable[[], Orders], work: Callable[[list[Task], Taken], None],
        settle: Callable[[Sequence[Task]], None],
    ) -> None:  # fmt: skip
        self._loop, self._orders, self._work, self._settle = loop, orders, work, settle
        self._turn: list[Task] = []
        self._parcels: dict[int, Sequence[Task]] = {}  # by number since the start, those that are not settled
        self._handed_over = self._settled = 0
        self._closed = False
        self._finished = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # counts parcels
        self._belt: Belt = (
            CompiledBelt(steps, folders, self._finished) if steps and folders else PythonBelt(self._finished)
        )
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            os.close(self._finished)
            raise OSError(errno.EAGAIN, f"no commit thread: {error}") from None
        loop.add_reader(self._finished, self._come_back)

    @property
    def batches(self) -> int:
        """Since the start."""
        return self._belt.batches

    def put(self, task: Task) -> None:
        """Called in the loop's thread. Raises RuntimeError after close()."""
        if self._closed:
            raise RuntimeError("commit after close")
        if not self._turn:
            # What this turn of the loop brings in goes over together: one wake-up, one larger batch.
            self._loop.call_soon(self._hand_over)
        self._turn.append(task)

    def close(self) -> None:
        """Work off everything, join the thread, settle. Blocking; called in the loop's thread."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._belt.close()
        self._thread.join()
        with suppress(RuntimeError):  # the loop was closed before us: nobody is left to hear
            self._loop.remove_reader(self._finished)
            self._come_back()
        os.close(self._finished)

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        while turn:
            count = together(task.job for task in turn)
            parcel, turn = turn[:count], turn[count:]
            self._parcels[self._handed_over] = parcel
            self._handed_over += 1
            self._belt.put(parcel)

    def _come_back(self) -> None:
        try:
            count = os.eventfd_read(self._finished)
        except BlockingIOError:
            return
        tasks: list[Task] = []
        for _ in range(count):
            tasks += self._parcels.pop(self._settled)
            self._settled += 1
        self._settle(tasks)

    def _run(self) -> None:
        while (taken := self._belt.take(self._orders())) is not None:
            numbers = range(taken.first, taken.first + taken.parcels)
            self._work([task for number in numbers for task in self._parcels[number]], taken)
            self._belt.report(taken.parcels)
