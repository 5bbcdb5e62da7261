"""What a route's destination text means: a mail domain, an address literal, or a host named by [routes]."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from mailserver.routing import route_url
from mailserver.routing.route_url import Scheme


class Destination(NamedTuple):
    """``host``: a domain whose MX is asked when ``by_mx``, else a host name or IP address to connect to. ``by_route``:
    [routes] names it, not the recipient's address."""

    host: str
    port: int = 25
    by_mx: bool = False
    protocol: Scheme = "smtp"
    by_route: bool = False

    @property
    def is_address(self) -> bool:
        """Whether there is nothing to look up."""
        return not self.by_mx and _is_ip(self.host)


@lru_cache(maxsize=4096)
def parse(text: str, port: int = 25) -> Destination:
    """``example.org``, ``[192.0.2.1]``, ``[IPv6:::1]``, ``smtp://host:587``, ``lmtp://[::1]`` → Destination.

    ``port`` is where MX hosts and literals listen. Raises ValueError with the fault.
    """
    if "://" in text:
        scheme, host, route_port = route_url.parse(text)
        return Destination(host, route_port, protocol=scheme, by_route=True)
    if text.startswith("["):
        return Destination(_literal(text), port)
    return Destination(text, port, by_mx=True)


def _literal(text: str) -> str:
    """``[192.0.2.1]``, ``[IPv6:::1]`` (RFC 5321 4.1.3) → the address."""
    inner = text[1:-1] if text.endswith("]") else ""
    try:
        return str(ipaddress.ip_address(inner[5:] if inner[:5].lower() == "ipv6:" else inner))
    except ValueError:
        raise ValueError(f"{text!r} is no address literal") from None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
