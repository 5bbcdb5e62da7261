"""Which backend keeps which domain, and how routing, which cannot wait, sees its mailboxes.

A Directory holds a LiveMailboxes for such a domain: it answers from memory and notes what it could not
answer. ``resolve`` asks the backend for exactly that and routes again, so aliases, catch-alls and role
addresses keep their one precedence, whoever keeps the mailbox they lead to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Set

from mailserver.accounts.backends.backend import Backend
from mailserver.accounts.backends.checkpassword import Checkpassword
from mailserver.accounts.backends.postgresql import PostgreSql
from mailserver.accounts.backends.remembered import Remembered
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.config.accounts import Backend as Settings
from mailserver.message.address import Address, normalise_domain
from mailserver.policy.admission import Unavailable
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Resolution, resolve

_ROUNDS = 20  # aliases of aliases that lead to one more unknown address of a backend each time


class LiveMailboxes(Set[str]):
    """Local parts of one domain: ``own`` ones and those remembered of the backend."""

    def __init__(self, domain: str, own: Set[str], remembered: Remembered, missed: set[str]) -> None:
        self._domain, self._own = domain, own
        self._remembered, self._missed = remembered, missed

    def __contains__(self, local: object) -> bool:
        if local in self._own:
            return True
        address = f"{local}@{self._domain}"
        known = self._remembered.peek(address)
        if known is None:
            self._missed.add(address)
        return bool(known)

    def __iter__(self) -> Iterator[str]:
        ending = f"@{self._domain}"
        seen = (a.removesuffix(ending) for a in self._remembered.known() if a.endswith(ending))
        yield from {*self._own, *seen}

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Backends:
    """``now``: Unix seconds. Nothing is asked before the first question. Raises AccountsError where a driver
    is missing. Belongs to one event loop."""

    def __init__(self, settings: Mapping[str, Settings], *, now: Callable[[], float]) -> None:
        self.settings = dict(settings)
        self._of: dict[str, Remembered] = {}
        self._missed: set[str] = set()
        for name, one in self.settings.items():
            remembered = Remembered(
                _make(name, one, now), fresh=one.fresh, stale=one.stale, size=one.remember, now=now
            )
            self._of |= {normalise_domain(domain): remembered for domain in one.domains}

    @property
    def domains(self) -> Set[str]:
        return self._of.keys()

    def of(self, key: str) -> Remembered | None:
        """Who keeps the account ``user@domain``; None: we do."""
        return self._of.get(key.rpartition("@")[2])

    def mailboxes(self, domain: str, own: Set[str]) -> Set[str]:
        """For a DomainEntry."""
        remembered = self._of.get(domain)
        return own if remembered is None else LiveMailboxes(domain, own, remembered, self._missed)

    def resolve(
        self, directory: Callable[[], Directory], address: Address
    ) -> Resolution | Awaitable[Resolution | Unavailable]:
        """Where mail goes: at once if a backend need not be asked."""
        self._missed.clear()
        resolution = resolve(directory(), address)
        return self._resolved(directory, address) if self._missed else resolution

    async def _resolved(
        self, directory: Callable[[], Directory], address: Address
    ) -> Resolution | Unavailable:
        for _ in range(_ROUNDS):
            self._missed.clear()
            resolution = resolve(directory(), address)
            if not (missed := frozenset(self._missed)):
                return resolution
            try:
                await asyncio.gather(*(self._of[key.rpartition("@")[2]].find(key) for key in missed))
            except AccountsUnavailable as error:
                return Unavailable(str(error))
        return Unavailable(f"{address} leads on and on through accounts that must be asked for")

    def close(self) -> None:
        """On the loop's thread."""
        for remembered in {id(one): one for one in self._of.values()}.values():
            remembered.close()


def _make(name: str, one: Settings, now: Callable[[], float]) -> Backend:
    if one.type == "postgresql":
        return PostgreSql(name, one.url or "", one.query, timeout=one.timeout, at_once=one.concurrency)
    return Checkpassword(
        name, one.program, one.exists,
        local_only=one.user == "local", timeout=one.timeout, at_once=one.concurrency, now=now,
    )  # fmt: skip
