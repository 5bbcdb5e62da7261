"""Addresses as the guards count them: who is trusted, and which addresses are one client.

A subscriber has a whole /64 of IPv6 (RFC 6177), so all of it counts as one; IPv4-mapped IPv6 is IPv4.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from mailserver.policy import pattern

_HOST_BITS = 64
_KNOWN_MAX = 4096  # addresses remembered


@functools.lru_cache(maxsize=4096)
def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Without a zone, and IPv4-mapped IPv6 as IPv4; None when it is no IP address (a local socket)."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@functools.lru_cache(maxsize=4096)
def client_key(address: str) -> str:
    """``"192.0.2.1"``, ``"2001:db8:1:2::/64"``; what is no IP address (a local socket) stays itself."""
    ip = parse_address(address)
    if ip is None:
        return address
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_loopback:
        return str(ip)
    return str(ipaddress.IPv6Network((int(ip) >> _HOST_BITS << _HOST_BITS, _HOST_BITS)))


class Networks:
    """A set of networks, as relay rules write them. Raises ValueError naming the pattern."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = tuple(pattern.parse(text) for text in texts)
        self._known: dict[str, bool] = {}  # every connection asks, several times

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            ip = parse_address(address)
            known = self._known[address] = ip is not None and any(ip in network for network in self._networks)
        return known
