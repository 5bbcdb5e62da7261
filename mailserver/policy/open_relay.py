"""The open-relay guard: a private address behind which the whole Internet may hide gives no right to relay.

A container behind a userland proxy, or a machine behind a router that rewrites sources, sees one private address
for everybody. A [[relay]] rule for private networks then lets strangers send through us (mailcow, docker-mailserver
and Mailu all had it). We cannot see through the gateway, but we see that very different clients come from it: many
connections whose HELO names are those of many hosts. Then its relay rule is void, and that is said loudly.

Suspicious is a private, not loopback, address with at least CONNECTIONS connections and HELO_NAMES different
host names, if it is a default gateway of this machine, or the only address that ever connected. Logins still give
the right to relay. Pure; ``now`` is Unix time. Bounded: CANDIDATES_MAX addresses, HELO_NAMES names each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from functools import lru_cache

from mailserver.policy.networks import parse_address
from mailserver.policy.relay import Verdict
from mailserver.reply import reply

CONNECTIONS = 20
HELO_NAMES = 5
CANDIDATES_MAX = 64
NAME_MAX = 255  # characters

BEHIND_GATEWAY = reply(
    550, "5.7.1", "Relaying denied: your address may be everybody's here; log in, or tell the postmaster"
)


class _Candidate:
    __slots__ = ("connections", "names", "since")

    def __init__(self, now: float) -> None:
        self.connections, self.since = 0, now
        self.names: set[str] = set()


class OpenRelayGuard:
    """``gateways``: the machine's default gateways. One for all services; ``enabled`` is [guard].gateway."""

    def __init__(self, gateways: Collection[str] = (), *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._gateways = frozenset(gateways)
        self._candidates: OrderedDict[str, _Candidate] = OrderedDict()
        self._told: set[str] = set()
        self._first = ""
        self._several = False  # more than one address has connected

    def see(self, peer: str, helo: str, now: float) -> str | None:
        """A client has said its name, once per connection. The text of the loud event, at the moment ``peer``
        becomes suspicious. ``peer`` is what the socket shows; clients that a PROXY header named are not seen."""
        peer, is_global = _known_as(peer)
        if not peer:
            return None
        self._several |= bool(self._first) and peer != self._first
        self._first = self._first or peer
        if is_global or (self._several and peer not in self._gateways):
            return None
        candidate = self._candidates.setdefault(peer, _Candidate(now))
        self._candidates.move_to_end(peer)
        if len(self._candidates) > CANDIDATES_MAX:
            self._candidates.popitem(last=False)
        candidate.connections += 1
        if len(candidate.names) < HELO_NAMES and _is_host_name(helo):
            candidate.names.add(helo.lower().rstrip(".")[:NAME_MAX])
        if peer in self._told or not self.suspicious(peer):
            return None
        self._told = {peer, *list(self._told)[: CANDIDATES_MAX - 1]}
        return self.explanation(peer)

    def suspicious(self, peer: str) -> bool:
        """Whether a relay rule must not hold for ``peer``."""
        if not self.enabled or not self._candidates:
            return False
        peer, _ = _known_as(peer)
        candidate = self._candidates.get(peer)
        if candidate is None or candidate.connections < CONNECTIONS or len(candidate.names) < HELO_NAMES:
            return False
        return peer in self._gateways or not self._several

    def verdict(self, peer: str, verdict: Verdict) -> Verdict:
        """``verdict``, without the right to relay when ``peer`` is suspicious."""
        if verdict.action != "relay" or not self.suspicious(peer):
            return verdict
        return Verdict(
            "accept", f"{verdict.rule}, void: {parse_address(peer)} is a gateway for others ([guard] gateway)"
        )

    def explanation(self, peer: str) -> str:
        """For the log and for `mailserver status`: why, and how to mend it."""
        candidate = self._candidates[str(parse_address(peer))]
        what = "the default gateway" if peer in self._gateways else "the only address that ever connected"
        names = ", ".join(sorted(candidate.names))
        return (
            f"RELAYING REFUSED for {peer}: it is {what}, and {candidate.connections} connections from it called "
            f"themselves {names}, so the whole Internet may hide behind it and a [[relay]] rule would make an open "
            "relay. To mend it: publish the ports without NAT (host network, or no userland proxy and IPv6 NAT off), "
            "or put a proxy in front that speaks the PROXY protocol ([proxy] trusted), and let programs log in. "
            f"If {peer} really is one host of yours: [guard] gateway = false"
        )


@lru_cache(maxsize=1024)
def _known_as(peer: str) -> tuple[str, bool]:
    """Its address in the one spelling, and whether that is a global one; "" where nothing can hide behind it."""
    address = parse_address(peer)
    return ("", False) if address is None or address.is_loopback else (str(address), address.is_global)


def _is_host_name(helo: str) -> bool:
    """Names of hosts somewhere: what has no dot may be containers of ours, address literals say nothing."""
    return "." in helo.strip(".") and not helo.startswith("[") and not helo.replace(".", "").isdecimal()
