"""The queue's clock, and what is to be done when somebody sets it.

Unix time may be set, by an hour or by years, and waits and ages are spans: mail of a minute ago must not be five days
old then, nor what was to be tried in five minutes wait until next year. So the time that passes is measured by a
second clock that nobody can set, and when the two disagree, every time the queue knows is moved along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from mailserver.config.schema import Queue as Settings
from mailserver.events import Emit, Warned
from mailserver.message.envelope import Envelope
from mailserver.queue.schedule import Schedule
from mailserver.queue.spool import Loaded

TOLERANCE = 30.0  # seconds; less is not worth a word


# Seconds of a clock that cannot be set and goes on while the machine sleeps, where there is one.
steady = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """A call gives Unix seconds, as ``wall`` does. ``schedule`` and the envelopes of ``messages`` have been moved
    along before anybody sees a time that was set."""

    def __init__(
        self, wall: Callable[[], float], passed: Callable[[], float], schedule: Schedule,
        messages: Mapping[str, Envelope], emit: Emit,
    ) -> None:  # fmt: skip
        self._wall, self._passed, self._emit = wall, passed, emit
        self._schedule, self._messages = schedule, messages
        self._offset = wall() - passed()

    def __call__(self) -> float:
        now = self._wall()
        offset = now - self._passed()
        by, self._offset = offset - self._offset, offset
        if not -TOLERANCE <= by <= TOLERANCE:
            self._was_set(by)
        return now

    def _was_set(self, by: float) -> None:
        self._schedule.clock_set(by)
        for envelope in self._messages.values():
            envelope.accepted += by
        self._emit(
            Warned(
                "queue", f"the clock was set by {by:+.0f} s: ages and waits of queued mail go on as before"
            )
        )

    def credible(self, message: Loaded, settings: Settings) -> Loaded:
        """What comes from the disk may have been written when the clock was ahead: it is not from the future, and no
        wait is longer than the longest."""
        now = self()
        message.envelope.accepted = min(message.envelope.accepted, now)
        return message._replace(due=min(message.due, now + max(settings.retry) * (1 + settings.jitter)))
