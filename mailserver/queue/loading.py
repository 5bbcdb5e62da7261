"""The spool comes into the queue at the start: read in a thread, portion by portion.

The listeners wait for that, but not for ever: a very deep queue is loaded while new mail is accepted and delivered.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from itertools import islice

from mailserver.events import Emit, Notice, Problem
from mailserver.queue.schedule import PORTION
from mailserver.queue.spool import Loaded, Spool
from mailserver.queue.tasks import Tasks

PATIENCE = 2.0  # seconds: enough for some 30,000 messages
PAUSE = 1.0  # seconds until what could not be read is tried again; a stop waits for that


class Loading:
    """``found`` is called with every message, and ``between`` after each portion: whether to go on."""

    def __init__(
        self, spool: Spool, tasks: Tasks, found: Callable[[Loaded], None], between: Callable[[], bool],
        emit: Emit,
    ) -> None:  # fmt: skip
        self._spool, self._tasks, self._found, self._between = spool, tasks, found, between
        self._emit, self._known = emit, 0
        self._work: asyncio.Task[None] | None = None
        self._beside = False  # nobody waits for it any more

    @property
    def under_way(self) -> bool:
        """Not all that lies in the spool is known yet."""
        return self._work is not None and not self._work.done()

    async def begin(self, patience: float) -> None:
        """Returns when all is loaded, or after ``patience`` seconds, but not before the spool is tidied. Raises OSError
        when it cannot be read; later that is reported, and tried again until it can be."""
        messages = self._spool.load()
        if not await self._portion(messages):
            return
        self._work = self._tasks.spawn(self._rest(messages))
        await asyncio.wait((self._work,), timeout=patience)
        if self._work.done():
            self._work.result()
        else:
            self._beside = True
            self._say(f"{self._known} messages are loaded; the rest is loaded beside the work")

    async def end(self) -> None:
        """Wait until no more are coming."""
        if self._work is not None:
            await asyncio.wait((self._work,))

    async def _rest(self, messages: Iterator[Loaded]) -> None:
        """Mail must not wait for the next start because for a moment no descriptor was free."""
        told = -1
        while True:
            try:
                while await self._portion(messages):
                    pass
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
                if told != self._known:
                    self._tell(error)
                told = self._known
            else:
                if self._beside and self._between():
                    self._say(f"all {self._known} messages are loaded")
                return
            await asyncio.sleep(PAUSE)
            if not self._between():
                return
            messages = self._spool.load_rest()

    def _say(self, text: str) -> None:
        self._emit(Notice("queue", text))

    def _tell(self, error: Exception) -> None:
        text = f"the queue is loaded in part, {self._known} messages: {error}; tried again every second"
        self._emit(Problem("spool", text))

    async def _portion(self, messages: Iterator[Loaded]) -> bool:
        portion: list[Loaded] = []
        failure = None
        try:
            await self._tasks.in_thread(portion.extend, islice(messages, PORTION))
        except Exception as error:  # what came before it is loaded all the same
            failure = error
        for message in portion:
            self._found(message)
        self._known += len(portion)
        gc.freeze()  # they live long and hold no cycles: collecting among 100,000 stalls the loop
        if failure is not None:
            raise failure
        return self._between() and len(portion) == PORTION
