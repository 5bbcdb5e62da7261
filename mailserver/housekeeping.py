"""What runs beside the listeners for as long as the process: supervised components, and a look around every second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from mailserver.host import notify

LONGEST_WAIT = 60.0  # seconds before a component that keeps failing is started again


async def supervise(
    component: Callable[[], Awaitable[None]], report: Callable[[BaseException], None]
) -> None:
    """Run ``component`` until it ends by itself; what escapes it is reported, then it starts again, later each time."""
    wait = 1.0
    while True:
        try:
            await component()
        except Exception as error:
            report(error)
        else:
            return
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)


async def on_failures(
    failures: Callable[[], int], still: Callable[[], bool], look: Callable[[], Awaitable[None]]
) -> None:
    """``look`` closer when there are more ``failures`` than a second ago, and as long as ``still`` says so."""
    seen = failures()
    while True:
        await asyncio.sleep(1.0)
        if failures() != seen or still():
            seen = failures()
            await look()


async def every_second(checks: Sequence[Callable[[], object]]) -> None:
    """Call ``checks`` once a second, and give the service manager its sign of life."""
    interval = notify.watchdog_interval()
    next_sign = 0.0
    while True:
        for check in checks:
            check()
        now = time.monotonic()
        if interval and now >= next_sign:
            notify.watchdog()
            next_sign = now + interval
        await asyncio.sleep(1.0)
