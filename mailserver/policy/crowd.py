"""How many connections a service has, all together and from each address ([limits])."""

from __future__ import annotations

from mailserver.config.schema import Limits
from mailserver.policy.networks import client_key


class Crowd:
    """The clients that are connected; a /64 of IPv6 is one address, as for [rates]. Pure."""

    def __init__(self) -> None:
        self._from: dict[str, int] = {}
        self._all = 0

    def enter(self, client: str) -> None:
        """A connection begins."""
        key = client_key(client)
        self._from[key] = self._from.get(key, 0) + 1
        self._all += 1

    def leave(self, client: str) -> None:
        """It is gone; it had entered."""
        key = client_key(client)
        self._all -= 1
        self._from[key] -= 1
        if not self._from[key]:
            del self._from[key]

    def is_full(self, limits: Limits) -> bool:
        """Whether nobody else may come."""
        return self._all >= limits.connections

    def has_all_of(self, client: str, limits: Limits) -> bool:
        """Whether this address has all the connections that one may have."""
        return self._from.get(client_key(client), 0) >= limits.connections_per_address

    @property
    def addresses(self) -> int:
        """From how many addresses they come."""
        return len(self._from)
