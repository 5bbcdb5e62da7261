"""Threads that count and a clock that stands, for the tests of accounts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Counting(ThreadPoolExecutor):
    """Counts what is handed to it."""

    calls = 0

    def submit(self, *args, **kwargs):  # type: ignore[no-untyped-def,override]  # passes everything on
        self.calls += 1
        return super().submit(*args, **kwargs)


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time
