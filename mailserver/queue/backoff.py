"""How long to wait before the next attempt (RFC 5321 4.5.4.1): pure functions, times in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def backoff(attempt: int, retry: Sequence[float], jitter: float, random: Callable[[], float]) -> float:
    """Seconds to wait after attempt number ``attempt`` (1 = the first); the last wait repeats. ``jitter`` is
    the fraction by which it varies either way, so that a burst does not come back as a burst."""
    return retry[min(attempt, len(retry)) - 1] * (1 + jitter * (2 * random() - 1))


def next_time(now: float, wait: float, expires: float) -> float:
    """When to try again: the last attempt falls on the moment the message grows too old."""
    return min(now + wait, expires) if expires > now else now + wait
