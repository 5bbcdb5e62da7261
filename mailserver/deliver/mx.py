"""Destination → the hosts to try, in order (RFC 5321 5.1, RFC 7505).

Loops: when we are among the exchangers, by name or by an own listener's address, that record and every one of
the same or a worse preference is dropped; if none is left the mail would come back to us.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import chain, groupby, zip_longest
from typing import NamedTuple

from mailserver.deliver import outcome
from mailserver.deliver.route import Destination
from mailserver.dns.hosts import HostsFile
from mailserver.dns.resolver import MX, DnsUnavailable, NoRecords, NoSuchName, Resolver
from mailserver.message.envelope import Outcome

MAX_ADDRESSES = 10  # tried in one attempt

Own = Callable[[str, int], bool]


class Host(NamedTuple):
    """One address to connect to. ``name`` is what DNS or the administrator calls it: SNI and logs."""

    name: str
    address: str
    port: int
    best: bool = False  # found by MX: a peer that greets with our own name there means a loop

    @property
    def label(self) -> str:
        """``mx.example.org[192.0.2.1]:25``, as reports name it."""
        return f"{self.name}[{self.address}]:{self.port}"


class Finder:
    """Finds hosts with ``resolver``; ``own(address, port)`` says whether that is one of our listeners."""

    def __init__(
        self,
        resolver: Resolver,
        hostname: str,
        own: Own,
        *,
        hosts: HostsFile | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._resolver = resolver
        self._hostname = hostname.rstrip(".").lower()
        self._own = own
        self._hosts = hosts or HostsFile()
        self._random = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret

    async def hosts(self, destination: Destination) -> list[Host] | Outcome:
        """At least one Host, at most MAX_ADDRESSES; or what becomes of the mail without connecting."""
        if destination.by_mx:
            return await self._by_mx(destination.host, destination.port)
        return await self._static(destination)

    async def _static(self, destination: Destination) -> list[Host] | Outcome:
        name, port = destination.host, destination.port
        if destination.is_address:
            found: Sequence[str] = (name,)
        else:
            found = self._hosts.addresses(name)
            try:
                found = found or await self._resolver.addresses(name)
            except DnsUnavailable:
                return outcome.dns_unavailable(name)
            except (NoSuchName, NoRecords):
                return outcome.unknown_route_host(name)
        usable = [Host(name, a, port) for a in _interleave(found) if not self._own(a, port)]
        if not usable:
            return outcome.route_loops_back(name) if destination.by_route else outcome.loops_back(name)
        return usable[:MAX_ADDRESSES]

    async def _by_mx(self, domain: str, port: int) -> list[Host] | Outcome:
        try:
            records = await self._resolver.mx(domain)
        except NoSuchName:
            return outcome.no_such_domain(domain)
        except NoRecords:
            return await self._implicit(domain, port)
        except DnsUnavailable:
            return outcome.dns_unavailable(domain)
        if all(record.host == "." for record in records):
            return outcome.null_mx(domain)
        return await self._exchangers(domain, [r for r in records if r.host != "."], port)

    async def _implicit(self, domain: str, port: int) -> list[Host] | Outcome:
        """No MX: the domain is its own exchanger with preference 0."""
        try:
            found = await self._resolver.addresses(domain)
        except (NoSuchName, NoRecords):
            return outcome.no_such_domain(domain)
        except DnsUnavailable:
            return outcome.dns_unavailable(domain)
        if domain == self._hostname or any(self._own(a, port) for a in found):
            return outcome.loops_back(domain)
        return [Host(domain, a, port, best=True) for a in _interleave(found)][:MAX_ADDRESSES]

    async def _exchangers(self, domain: str, records: list[MX], port: int) -> list[Host] | Outcome:
        self._random.shuffle(records)  # among equals the order is random (RFC 5321 5.1); sorting is stable
        records = sorted(records, key=lambda r: r.preference)
        found: list[Host] = []
        unavailable = False
        for _, group in groupby(records, key=lambda r: r.preference):
            names = list(dict.fromkeys(r.host for r in group))
            if self._hostname in names:
                return found or self._nothing_left(domain, unavailable)
            for name, addresses in zip(
                names, await asyncio.gather(*map(self._addresses, names)), strict=True
            ):
                unavailable = unavailable or addresses is None
                found += [Host(name, a, port, best=True) for a in _interleave(addresses or ())]
            if any(self._own(h.address, port) for h in found):
                better = [h for h in found if h.name not in names]
                return better or self._nothing_left(domain, unavailable)
            if len(found) >= MAX_ADDRESSES:
                break
        if found:
            return found[:MAX_ADDRESSES]
        return outcome.dns_unavailable(domain) if unavailable else outcome.no_usable_mx(domain)

    def _nothing_left(self, domain: str, unavailable: bool) -> Outcome:
        """We are the best that can be reached: a loop, unless a better host is only hidden by a sick DNS."""
        return outcome.dns_unavailable(domain) if unavailable else outcome.loops_back(domain)

    async def _addresses(self, name: str) -> tuple[str, ...] | None:
        """() when the name has none, None when that is not known now."""
        try:
            return await self._resolver.addresses(name)
        except (NoSuchName, NoRecords):
            return ()
        except DnsUnavailable:
            return None


def _interleave(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 alternately, so that a family that leads nowhere cannot use up all the tries."""
    six = [a for a in addresses if ":" in a]
    four = [a for a in addresses if ":" not in a]
    return [a for a in chain.from_iterable(zip_longest(six, four)) if a is not None]
