"""Background work of the queue: nothing is lost to the garbage collector, no exception is lost to nobody."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

from mailserver.events import Emit, Problem

P = ParamSpec("P")
T = TypeVar("T")


class Tasks:
    """Running coroutines, each a message's. ``executor``: where blocking reads go, None = the loop's own."""

    def __init__(self, emit: Emit, executor: Executor | None) -> None:
        self._emit, self._executor = emit, executor
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work``; what escapes it is reported as the bug it is."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def in_thread(self, blocking: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        """Call ``blocking`` in the executor."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, blocking, *args)

    async def drain(self, patience: float) -> None:
        """Let what runs finish for ``patience`` seconds, then cancel the rest and wait for that."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=patience)
        for task in (rest := tuple(self._running)):
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def bug(self, where: str, error: BaseException, id: str = "") -> None:
        """An exception nobody expected: into the log with its traceback."""
        trace = "".join(traceback.format_exception(error))
        self._emit(Problem(where, f"{type(error).__name__}: {error}", trace, id))

    def see(self, id: str, commit: asyncio.Future[None]) -> None:
        """Done-callback of a commit that nobody waits for: its failure is reported."""
        if not commit.cancelled() and (error := commit.exception()) is not None:
            self._emit(Problem("queue", f"progress could not be saved: {error}", id=id))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.bug("queue", error)
