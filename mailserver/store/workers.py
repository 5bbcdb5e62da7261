"""What may wait for a disk and is no commit, done beside the event loop.

Compiled threads (workers.c) do what can be said in C, without the interpreter's lock; the executor's threads do the
rest. Both are bounded, and a sick disk that holds up all of one kind does not hold up the other.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final, TypeVar

from mailserver.store.removal import unlink_each
from mailserver.store.steps import STEPS, Steps
from mailserver.store.work import Listing, Removal

T = TypeVar("T")
THREADS: Final = 8  # that wait for the disk at once
_MOST: Final = 64  # finished works asked for at once


class Workers:
    """For one event loop. ``steps``: compiled code; None: the executor does all."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, executor: Executor, steps: Steps | None = STEPS
    ) -> None:
        self._loop, self._executor = loop, executor
        self._threads = None if steps is None else _Threads(loop, steps)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Call ``work``, which blocks."""
        return await self._loop.run_in_executor(self._executor, work, *arguments)

    async def remove(self, paths: Sequence[str]) -> list[int]:
        """Unlink all of ``paths``, not synced; what prevented each (errno), 0 where nothing did. It is done even when
        nobody waits for it any more."""
        if self._threads is not None:
            return await self._threads.remove(paths)
        return await asyncio.shield(asyncio.ensure_future(self.run(unlink_each, paths, None)))

    async def maildir(self, path: str) -> Listing | None:
        """What lies in new/ and cur/. None: to be found out in another way."""
        return None if self._threads is None else await self._threads.maildir(path)

    def close(self) -> None:
        """End the compiled threads, after what is under way. Blocking. The executor is its owner's."""
        if self._threads is not None:
            self._threads.close()


class _Work(ctypes.Structure):
    """``struct work`` of workers.c."""

    _fields_ = (
        ("next", ctypes.c_void_p), ("run", ctypes.c_void_p), ("what", ctypes.c_void_p), ("number", ctypes.c_int64),
    )  # fmt: skip


class _Threads:
    """Raises OSError when there can be no thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, steps: Steps) -> None:
        # What never waits keeps the interpreter's lock: to get it back would take longer than the whole call.
        short, long = ctypes.PyDLL(str(steps.path)), ctypes.CDLL(str(steps.path))
        self._put, self._taken, self._join = short.workers_put, short.workers_finished, long.workers_close
        self._put.argtypes = ctypes.c_void_p, ctypes.POINTER(_Work)
        self._taken.argtypes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int
        self._join.argtypes = (ctypes.c_void_p,)
        self._unlink, self._list = (
            ctypes.cast(function, ctypes.c_void_p).value
            for function in (short.unlink_files, short.list_maildir)
        )
        self._listing = steps.listing
        self._loop = loop
        self._numbers = (ctypes.c_int64 * _MOST)()
        self._last = 0
        # By number; what C works on must live until it is finished.
        self._under_way: dict[int, tuple[asyncio.Future[None], _Work, ctypes.Structure]] = {}
        self._report = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        new = short.workers_new
        new.argtypes, new.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_void_p
        if not (threads := new(THREADS, self._report)):
            os.close(self._report)
            raise OSError(errno.EAGAIN, "no thread can be started")
        self._threads: int | None = threads
        loop.add_reader(self._report, self._come_back)

    async def remove(self, paths: Sequence[str]) -> list[int]:
        removal = Removal(paths)
        await self._do(self._unlink, removal)
        return removal.result()

    async def maildir(self, path: str) -> Listing | None:
        listing = self._listing(path)
        await self._do(self._list, listing)
        return None if listing.count < 0 else listing

    def _do(self, function: int | None, what: ctypes.Structure) -> asyncio.Future[None]:
        if self._threads is None:
            raise RuntimeError("work after close")
        self._last += 1
        work = _Work(None, function, ctypes.addressof(what), self._last)
        future: asyncio.Future[None] = self._loop.create_future()
        self._under_way[self._last] = future, work, what
        self._put(self._threads, work)
        return future

    def _come_back(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._report)
        count = _MOST
        while count == _MOST:
            count = self._taken(self._threads, self._numbers, _MOST)
            for number in self._numbers[:count]:
                future, _, _ = self._under_way.pop(number)
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        if self._threads is None:
            return
        self._join(self._threads)
        with suppress(RuntimeError):  # the loop was closed before us: nobody is left to hear
            self._loop.remove_reader(self._report)
            self._come_back()
        os.close(self._report)
        self._threads = None
