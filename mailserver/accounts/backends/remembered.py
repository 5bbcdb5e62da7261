"""A backend whose answers are remembered: fast while it works, and good enough while it does not.

An answer counts for ``fresh`` seconds. A backend that cannot be asked then is stood in for by its own older
answers, but only by the good ones and for ``stale`` seconds: a user known yesterday gets mail and may log in,
of anybody else nobody can say that he does not exist.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from mailserver.accounts.backends.backend import Backend, Secret
from mailserver.accounts.errors import AccountsUnavailable

RETRY = 5.0  # seconds before a backend that failed is asked about the same address again
RECENT = 5.0  # seconds in which an answer is news even to who wants the latest
ASKING_MAX = 1000  # different addresses being asked about at once


class _Answer(NamedTuple):
    """``asked``: when the backend said so; ``until``: when it is to be asked again."""

    secret: Secret | None
    asked: float
    until: float


class Remembered:
    """``now``: Unix seconds. ``size``: answers kept, about 300 octets each. Belongs to one event loop."""

    def __init__(
        self, backend: Backend, *, fresh: float, stale: float, size: int, now: Callable[[], float]
    ) -> None:
        self.backend = backend
        self._fresh, self._size, self._now = fresh, size, now
        self.stale = stale  # seconds
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Secret | None]] = {}

    def peek(self, address: str) -> bool | None:
        """Whether it exists, None where the backend must be asked."""
        answer = self._answers.get(address)
        if answer is None or not answer.asked <= self._now() < answer.until:
            return None
        return answer.secret is not None

    def known(self) -> list[str]:
        """Addresses that exist as far as remembered."""
        return [address for address, answer in self._answers.items() if answer.secret is not None]

    async def find(self, address: str, *, latest: bool = False) -> Secret | None:
        """What the backend says, now (``latest``) or lately. Raises AccountsUnavailable."""
        answer, now = self._answers.get(address), self._now()
        if answer is not None and answer.asked <= now < (answer.asked + RECENT if latest else answer.until):
            self._answers.move_to_end(address)
            return answer.secret
        task = self._asking.get(address)
        if task is None:
            if len(self._asking) >= ASKING_MAX:
                raise AccountsUnavailable(f"{self.backend.name}: too many questions at once")
            task = asyncio.get_running_loop().create_task(self._ask(address))
            self._asking[address] = task
        try:
            return await asyncio.shield(task)
        except AccountsUnavailable:
            if latest or answer is None or answer.secret is None or now - answer.asked > self.stale:
                raise
            self._keep(address, answer._replace(until=now + RETRY))
            return answer.secret

    def learn(self, address: str, secret: Secret) -> None:
        """The account exists: it has just been opened."""
        now = self._now()
        self._keep(address, _Answer(secret, now, now + self._fresh))

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        self.backend.close()

    async def _ask(self, address: str) -> Secret | None:
        try:
            secret = await self.backend.find(address)
        finally:
            del self._asking[address]
        now = self._now()
        self._keep(address, _Answer(secret, now, now + self._fresh))
        return secret

    def _keep(self, address: str, answer: _Answer) -> None:
        self._answers[address] = answer
        self._answers.move_to_end(address)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)
