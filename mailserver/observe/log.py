"""The log: every event at or above a level becomes one line of a file or of standard error.

``write`` only puts the event into a deque: encoding and writing happen in one thread, so a stuck disk or
terminal never stops the event loop. What cannot be written is kept and tried again; beyond BUFFER events the
newest are counted, and the count is written as soon as the target works again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from mailserver.config import schema
from mailserver.events import Event, Problem
from mailserver.observe.lines import FORMATS, Line
from mailserver.observe.logfile import Descriptor, RotatedFile

BUFFER = 65_536  # events waiting for the writer
BATCH = 128  # events encoded at once: the interpreter is held for less than a millisecond
LINGER = 0.02  # seconds between two batches: events of a busy server share wake-ups
RETRY = 1.0  # seconds until a target that failed is tried again
CLOSING = 5.0  # seconds a stuck target may delay the end of the process
STDERR = 2
_RANK = {"info": 0, "warning": 1, "error": 2}


class Log:
    """Writes events; thread-safe. Raises OSError when the target cannot be opened.

    ``data_dir`` is where a relative ``target`` lies; ``now`` gives Unix seconds.
    """

    def __init__(self, settings: schema.Log, data_dir: str, *, now: Callable[[], float] = time.time) -> None:
        self._settings, self._data_dir, self._now = settings, data_dir, now
        self._buffer: deque[tuple[float, Event]] = deque()
        self._pending: deque[bytes] = deque()  # encoded, not yet written
        self._rank = _RANK[settings.level]
        self._line: Line = FORMATS[settings.format]()
        self._target = _target(settings, data_dir)
        self._target.begin()
        self._next: tuple[Line, Descriptor] | None = None  # what reopen() prepared
        self._lock = threading.Lock()  # guards _next and _lost, never held while writing
        self._lost = 0
        self._fault = ""  # the target's last OSError, reported once
        self._sleeping = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        """Take one event; returns at once, whatever state the target is in."""
        if self._rank and _RANK[event.level] < self._rank:
            return
        if len(self._buffer) >= BUFFER:
            with self._lock:
                self._lost += 1
            return
        self._buffer.append((self._now(), event))
        if self._sleeping:
            self._sleeping = False
            self._wake.put(None)

    def reopen(self, settings: schema.Log | None = None) -> None:
        """Continue in a newly opened file (logrotate moved the old one), or with new settings.

        Raises OSError when the target cannot be opened; nothing has changed then.
        """
        settings = settings or self._settings
        target = _target(settings, self._data_dir)
        with self._lock:
            unused, self._next = self._next, (FORMATS[settings.format](), target)
        if unused:  # reopened twice before the thread came to it
            unused[1].close()
        self._settings, self._rank = settings, _RANK[settings.level]
        self._wake.put(None)

    def close(self) -> None:
        """Write what is waiting, end the thread; a target that stays stuck delays it by CLOSING seconds."""
        self._closing.set()
        self._wake.put(None)
        self._thread.join(CLOSING)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._sleeping = True
            if not self._buffer and not self._pending:  # looked at after the flag is up: no wake-up is missed
                self._wake.get()
            self._sleeping = False
            self._closing.wait(LINGER if self._write_waiting() else RETRY)
        self._write_waiting()
        self._target.close()

    def _write_waiting(self) -> bool:
        """Everything that waits, batch by batch; False when the target failed."""
        while True:
            try:
                self._switch()
                self._encode_batch()
                self._target.write(self._pending)
            except OSError as error:
                self._complain(error)
                if self._pending:
                    return False
            else:
                self._fault = ""
            if not self._buffer and not self._lost:
                return True

    def _encode_batch(self) -> None:
        for _ in range(min(len(self._buffer), BATCH - len(self._pending))):
            when, event = self._buffer.popleft()
            try:
                line = self._line(when, event)
            except Exception as error:  # a bug in one event must not silence all others
                line = self._line(when, Problem("log", f"cannot encode {type(event).__name__}: {error!r}"))
            self._pending.append(line)
        if self._lost and not self._buffer:
            with self._lock:
                lost, self._lost = self._lost, 0
            self._pending.append(
                self._line(self._now(), Problem("log", f"{lost} events lost: the log was stuck"))
            )

    def _switch(self) -> None:
        """Take over what reopen() prepared; what the old target no longer takes goes to the new one."""
        if self._next is None:
            return
        with contextlib.suppress(OSError):
            self._target.write(self._pending)
        self._target.leave(self._pending)
        with self._lock:
            (self._line, target), self._next = self._next, None
        self._target.close()
        self._target = target
        target.begin()

    def _complain(self, error: OSError) -> None:
        """Once for each kind of fault: into the log itself for later, and to standard error for now."""
        text = f"cannot write the log: {error.strerror}"
        if text == self._fault:
            return
        self._fault = text
        line = self._line(self._now(), Problem("log", text))
        self._pending.append(line)
        if self._settings.target != "stderr":
            with contextlib.suppress(OSError):
                os.write(STDERR, line)


def _target(settings: schema.Log, data_dir: str) -> Descriptor:
    if settings.target == "stderr":
        return Descriptor(STDERR)
    path = os.path.join(data_dir, settings.target)
    return RotatedFile(path, max_size=settings.max_size, keep=settings.keep)
