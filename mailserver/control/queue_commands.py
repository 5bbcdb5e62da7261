"""The queue.* commands on a running Queue. Unknown ids are an error, so that a typing mistake is noticed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mailserver.control.server import Refused
from mailserver.queue.queue import Queue

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


def queue_commands(queue: Queue) -> dict[str, Handler]:
    """Command name → handler, ready for ControlServer."""

    def known(arguments: dict[str, Any]) -> list[str]:
        ids: list[str] = arguments["ids"]
        if unknown := [name for name in ids if queue.show(name) is None]:
            raise Refused(f"not in the queue: {', '.join(unknown[:10])}; nothing was done")
        return ids

    async def show(arguments: dict[str, Any]) -> Any:
        message = queue.show(arguments["id"])
        if message is None:
            raise Refused(f"not in the queue: {arguments['id']}")
        return message

    async def list_all(_arguments: dict[str, Any]) -> Any:
        return queue.list()

    async def retry(arguments: dict[str, Any]) -> Any:
        return {"count": queue.retry(known(arguments) if arguments["ids"] else None)}

    async def hold(arguments: dict[str, Any]) -> Any:
        return {"count": queue.hold(known(arguments))}

    async def release(arguments: dict[str, Any]) -> Any:
        return {"count": queue.release(known(arguments))}

    async def remove(arguments: dict[str, Any]) -> Any:
        return {"count": await queue.remove(known(arguments))}

    return {
        "queue.list": list_all,
        "queue.show": show,
        "queue.retry": retry,
        "queue.hold": hold,
        "queue.release": release,
        "queue.remove": remove,
    }
