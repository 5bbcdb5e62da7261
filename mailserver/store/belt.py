"""What carries jobs from the event loop to the commit thread, parcel by parcel.

The compiled belt (belt.c) does nearly all of the work, too: Python sees only what cannot be done there, or went wrong.
The other one gives everything to Python. Both tell by an eventfd how many parcels are finished, in their order.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from mailserver.store.crash import crash_point
from mailserver.store.job import BATCH_FILES, together
from mailserver.store.parcel import FORM_TYPES, How, Progress, ProgressForm, form, path_of
from mailserver.store.steps import Steps
from mailserver.store.task import Task


class Orders(NamedTuple):
    """How compiled code syncs. With ``How.WHOLE`` it leaves to Python a batch that comes after more than ``rest``
    seconds without any, and one whose sync took longer than ``slow`` seconds and ``slow_file`` for each file; with
    ``How.NOTHING`` all. Batches here are those with files: removals are not synced."""

    how: How
    rest: float
    slow: float
    slow_file: float


class Taken(NamedTuple):
    """``parcels`` that Python is to finish, the first is number ``first`` since the start. ``rested``: they came after
    more than ``Orders.rest`` without any. ``how``: the belt has begun, and was to sync in this way; ``progress``: how
    far it came. ``fast``: batches since the last such."""

    first: int
    parcels: int
    rested: bool
    how: How = How.NOTHING
    progress: Progress = Progress()
    fast: int = 0


class Belt(Protocol):
    """put and close are called by the loop's thread, take and report by the commit thread."""

    @property
    def batches(self) -> int:
        """How many, since the start."""

    def put(self, tasks: Sequence[Task]) -> None:
        """A parcel, which must fit into one batch (job.together), and live until it is finished."""

    def take(self, orders: Orders) -> Taken | None:
        """Wait for what Python is to do; None: closed, and all is done."""

    def report(self, parcels: int) -> None:
        """Those taken last are finished."""

    def close(self) -> None:
        """There will be no more parcels."""


class _Orders(ctypes.Structure):
    """``struct orders`` of belt.c."""

    _fields_ = (
        ("how", ctypes.c_int), ("rest", ctypes.c_int64), ("slow", ctypes.c_int64), ("slow_file", ctypes.c_int64),
    )  # fmt: skip


class _Taken(ctypes.Structure):
    """``struct taken`` of belt.c."""

    _fields_ = (
        ("first", ctypes.c_int64), ("parcels", ctypes.c_int), ("rested", ctypes.c_int), ("fast", ctypes.c_int),
        ("progress", ProgressForm), ("fds", ctypes.c_int * BATCH_FILES),
    )  # fmt: skip


class CompiledBelt:
    """``folders``: where files begin without a name; ``report``: an eventfd. Raises MemoryError."""

    def __init__(self, steps: Steps, folders: Sequence[str], report: int) -> None:
        # What never waits keeps the interpreter's lock: to get it back would take longer than the whole call.
        short, long = ctypes.PyDLL(str(steps.path)), ctypes.CDLL(str(steps.path))
        self._take, self._put, self._report = long.belt_take, short.belt_put, short.belt_report
        self._batches, self._carry, self._close = short.belt_batches, short.belt_carry, short.belt_close
        self._take.argtypes = ctypes.c_void_p, ctypes.POINTER(_Orders), ctypes.POINTER(_Taken)
        self._put.argtypes = ctypes.c_void_p, *FORM_TYPES
        self._carry.argtypes = self._close.argtypes = (ctypes.c_void_p,)
        self._report.argtypes = ctypes.c_void_p, ctypes.c_int
        self._batches.argtypes, self._batches.restype = (ctypes.c_void_p,), ctypes.c_int64
        new = short.belt_new
        new.argtypes = ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int
        new.restype = ctypes.c_void_p
        self._folders = (ctypes.c_char_p * len(folders))(*map(path_of, folders))
        self._taken = _Taken()
        if not (belt := new(self._folders, len(folders), report)):
            raise MemoryError
        self._belt: int = belt

    @property
    def batches(self) -> int:
        return int(self._batches(self._belt))

    def put(self, tasks: Sequence[Task]) -> None:
        try:
            parcel = form([task.job for task in tasks])
        except Exception:  # a bug: the thread meets it again, and all that follow keep their numbers
            parcel = None
        if parcel is None or not self._put(self._belt, *parcel):
            self._carry(self._belt)

    def take(self, orders: Orders) -> Taken | None:
        so, taken = _Orders(orders.how, *[int(seconds * 1e9) for seconds in orders[1:]]), self._taken
        if not self._take(self._belt, so, taken):
            return None
        progress = taken.progress.read(taken.fds)
        return Taken(taken.first, taken.parcels, bool(taken.rested), orders.how, progress, taken.fast)

    def report(self, parcels: int) -> None:
        self._report(self._belt, parcels)

    def close(self) -> None:
        self._close(self._belt)


class PythonBelt:
    """``report``: an eventfd."""

    def __init__(self, report: int) -> None:
        self._inbox: SimpleQueue[Sequence[Task] | None] = SimpleQueue()
        self._queue: deque[Sequence[Task]] = deque()  # out of the inbox, not finished
        self._closed = False
        self._rest = 0.0  # seconds waited since the last batch with files
        self._finished, self._eventfd = 0, report
        self.batches = 0

    def put(self, tasks: Sequence[Task]) -> None:
        self._inbox.put(tasks)

    def take(self, orders: Orders) -> Taken | None:
        self._take_over()
        if not self._queue:
            return None
        rested = self._rest > orders.rest
        jobs = together(task.job for parcel in self._queue for task in parcel)
        parcels, files = 0, False
        for parcel in self._queue:
            jobs -= len(parcel)
            if jobs < 0:
                break
            parcels += 1
            files = files or any(task.job.files for task in parcel)
        if files:
            self._rest = 0.0
        return Taken(self._finished, parcels, rested)

    def _take_over(self) -> None:
        """What was put; waits for it if there is nothing to do, and only then."""
        start = time.monotonic()
        with suppress(Empty):
            while not self._closed:
                parcel = self._inbox.get(block=not self._queue)
                if parcel is None:
                    self._closed = True
                else:
                    if not self._queue:
                        self._rest += time.monotonic() - start
                    self._queue.append(parcel)

    def report(self, parcels: int) -> None:
        crash_point("before-report")
        for _ in range(parcels):
            self._queue.popleft()
        self._finished += parcels
        self.batches += 1
        os.eventfd_write(self._eventfd, parcels)

    def close(self) -> None:
        self._inbox.put(None)
