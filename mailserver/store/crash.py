"""Crash points: named places where a test kills the process, so that every legal disk state is visited.

``MAILSERVER_CRASH_AT="name"`` (or ``"name:N"``, the Nth time) makes ``crash_point(name)`` send SIGKILL to the
own process. Without the variable a crash point is an empty call.
"""

from __future__ import annotations

import os
import signal

CRASH_POINTS = (
    "before-write",  # nothing on disk yet
    "after-write",  # content written, not synced, no name
    "before-data-sync",
    "after-data-sync",  # content synced, no name
    "before-name",  # before each link or rename
    "after-name",  # that name is visible, not yet synced
    "before-name-sync",
    "after-name-sync",  # everything durable, nobody told; up to here commit.c has the same points
    "before-tmp-unlink",  # the file has its names and its name below tmp/
    "after-tmp-unlink",
    "before-remove",  # before what is settled is unlinked; belt.c has this and the next two
    "after-remove",
    "before-report",
    "after-report",  # the futures are being resolved
)


def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get("MAILSERVER_CRASH_AT", "").partition(":")
    if name and name not in CRASH_POINTS:
        raise ValueError(
            f"MAILSERVER_CRASH_AT={name}: no such crash point; there are {', '.join(CRASH_POINTS)}"
        )
    return name, int(count or 1)


_NAME, _COUNT = _armed()
_hits = 0


def _die_here(name: str) -> None:
    global _hits  # noqa: PLW0603 - one process dies once; the count is the process's
    if name != _NAME:
        return
    _hits += 1
    if _hits == _COUNT:
        os.kill(os.getpid(), signal.SIGKILL)


def _pass(name: str) -> None:
    """No crash was asked for."""


crash_point = _die_here if _NAME else _pass
# For compiled code (commit.h), which counts for itself: which point, and the how many-th time.
ARMED = (CRASH_POINTS.index(_NAME), _COUNT) if _NAME else None
