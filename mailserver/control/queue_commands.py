"""The queue commands on a Queue object, ready for ControlServer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mailserver.control.server import Refused

if TYPE_CHECKING:
    from mailserver.queue.queue import Queue

Arguments = dict[str, Any]
PORTION = 200  # messages described in one turn of the loop: about 3 ms


def queue_commands(queue: Queue) -> dict[str, Callable[[Arguments], Awaitable[Any]]]:
    """Command name → handler. Unknown ids are Refused before anything is done."""

    def known(ids: list[str]) -> list[str]:
        if missing := [name for name in ids if queue.show(name) is None]:
            raise Refused(f"not in the queue: {', '.join(missing)}")
        return ids

    async def show_all(_: Arguments) -> Any:
        shown: list[bytes] = []
        for number, name in enumerate(queue.ids()):
            if (message := queue.show(name)) is not None:  # it may be settled meanwhile
                shown.append(msgspec.json.encode(message))
            if number % PORTION == 0:
                await asyncio.sleep(0)  # mail goes on while a long queue is listed
        return msgspec.Raw(b"[" + b",".join(shown) + b"]")

    async def show(args: Arguments) -> Any:
        return queue.show(known([args["id"]])[0])

    async def retry(args: Arguments) -> Any:
        ids = args["ids"]
        return {"count": queue.retry(None if ids is None else known(ids))}

    async def hold(args: Arguments) -> Any:
        return {"count": queue.hold(known(args["ids"]))}

    async def release(args: Arguments) -> Any:
        return {"count": queue.release(known(args["ids"]))}

    async def remove(args: Arguments) -> Any:
        return {"count": await queue.remove(known(args["ids"]))}

    return {
        "queue.list": show_all,
        "queue.show": show,
        "queue.retry": retry,
        "queue.hold": hold,
        "queue.release": release,
        "queue.remove": remove,
    }
