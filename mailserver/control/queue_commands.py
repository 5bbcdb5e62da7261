"""The queue commands on a Queue object, ready for ControlServer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mailserver.control.server import Refused
from mailserver.message.address import AddressError, parse
from mailserver.store.job import RemovalFailed

if TYPE_CHECKING:
    from mailserver.queue.queue import Queue

Arguments = dict[str, Any]
PORTION = 200  # messages described, or tried, in one turn of the loop: about 3 ms


Handlers = dict[str, Callable[[Arguments], Awaitable[Any]]]


def queue_commands(queue: Queue, trusted_again: Callable[[str], None]) -> Handlers:
    """Command name → handler. Unknown ids are Refused before anything is done. ``trusted_again`` is told the
    account whose mail an administrator released as a whole."""
    return _questions(queue) | _changes(queue, trusted_again)


def _questions(queue: Queue) -> Handlers:
    async def show_all(args: Arguments) -> Any:
        shown: list[bytes] = []
        for number, name in enumerate(queue.ids(_account(args))):
            if (message := queue.show(name)) is not None:  # it may be settled meanwhile
                shown.append(msgspec.json.encode(message))
            if number % PORTION == 0:
                await asyncio.sleep(0)  # mail goes on while a long queue is listed
        return msgspec.Raw(b"[" + b",".join(shown) + b"]")

    async def show(args: Arguments) -> Any:
        return queue.show(_known(queue, [args["id"]])[0])

    return {"queue.list": show_all, "queue.show": show}


def _changes(queue: Queue, trusted_again: Callable[[str], None]) -> Handlers:
    async def retry(args: Arguments) -> Any:
        ids = queue.ids() if args["ids"] is None else _known(queue, args["ids"])
        count = 0
        for start in range(0, len(ids), PORTION):
            count += queue.retry(ids[start : start + PORTION])
            await asyncio.sleep(0)  # as above
        return {"count": count}

    async def hold(args: Arguments) -> Any:
        return {"count": queue.hold(_chosen(queue, args))}

    async def release(args: Arguments) -> Any:
        count = queue.release(_chosen(queue, args))
        if (account := _account(args)) is not None:
            trusted_again(account)
        return {"count": count}

    async def remove(args: Arguments) -> Any:
        try:
            return {"count": await queue.remove(_chosen(queue, args))}
        except RemovalFailed as error:
            stays = "tried again every ten seconds; a restart before that finds it held, if the disk took a note of it"
            raise Refused(f"out of the queue, but not off the disk yet: {error}; {stays}") from error

    return {
        "queue.retry": retry,
        "queue.hold": hold,
        "queue.release": release,
        "queue.remove": remove,
    }


def _known(queue: Queue, ids: list[str]) -> list[str]:
    if missing := [name for name in ids if queue.show(name) is None]:
        nothing = "; nothing was done" if len(missing) < len(ids) else ""
        if queue.status()["loading"]:
            nothing += "; it is still being loaded, so they may come"
        raise Refused(f"not in the queue: {', '.join(missing)}{nothing}")
    return ids


def _chosen(queue: Queue, args: Arguments) -> list[str]:
    """The ids that were named, and those of the account's messages."""
    ids = _known(queue, args["ids"])
    if (account := _account(args)) is not None:
        ids = [*ids, *queue.ids(account)]
    return list(dict.fromkeys(ids))


def _account(args: Arguments) -> str | None:
    """The mailbox key of the account that was named, if any."""
    if args["account"] is None:
        return None
    try:
        return parse(args["account"]).key
    except AddressError as error:
        raise Refused(f"{args['account']}: {error}") from None
