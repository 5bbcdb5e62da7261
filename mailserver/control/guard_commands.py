"""The guard commands on a Guard object, ready for ControlServer. Times are those of the guard's clock, Unix seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mailserver.policy.guard import Guard

Arguments = dict[str, Any]


def guard_commands(
    guard: Guard, now: Callable[[], float]
) -> dict[str, Callable[[Arguments], Awaitable[Any]]]:
    """Command name → handler."""

    async def show_all(_: Arguments) -> Any:
        return guard.list(now())

    async def clear(args: Arguments) -> Any:
        return {"count": guard.clear(args["what"])}

    return {"guard.list": show_all, "guard.clear": clear}
