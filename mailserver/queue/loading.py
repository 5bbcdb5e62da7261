"""The spool comes into the queue at the start: read in a thread, portion by portion.

The listeners wait for that, but not for ever: a very deep queue is loaded while new mail is accepted and delivered.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from itertools import islice

from mailserver.queue.schedule import PORTION
from mailserver.queue.spool import Loaded, Spool
from mailserver.queue.tasks import Tasks

PATIENCE = 2.0  # seconds: enough for some 30,000 messages


class Loading:
    """``found`` is called with every message, and ``between`` after each portion: whether to go on."""

    def __init__(
        self, spool: Spool, tasks: Tasks, found: Callable[[Loaded], None], between: Callable[[], bool]
    ) -> None:
        self._spool, self._tasks, self._found, self._between = spool, tasks, found, between
        self._work: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> bool:
        """Not all that lies in the spool is known yet."""
        return self._work is not None and not self._work.done()

    async def begin(self, patience: float) -> None:
        """Returns when all is loaded, or after ``patience`` seconds, but not before the spool is tidied. Raises OSError
        when it cannot be read; later that is reported, and what is left waits for the next start."""
        messages = self._spool.load()
        if not await self._portion(messages):
            return
        self._work = self._tasks.spawn(self._rest(messages))
        await asyncio.wait((self._work,), timeout=patience)
        if self._work.done():
            self._work.result()

    async def end(self) -> None:
        """Wait until no more are coming."""
        if self._work is not None:
            await asyncio.wait((self._work,))

    async def _rest(self, messages: Iterator[Loaded]) -> None:
        while await self._portion(messages):
            pass

    async def _portion(self, messages: Iterator[Loaded]) -> bool:
        portion = await self._tasks.in_thread(list[Loaded], islice(messages, PORTION))
        for message in portion:
            self._found(message)
        gc.freeze()  # they live long and hold no cycles: collecting among 100,000 stalls the loop
        return self._between() and len(portion) == PORTION
