"""A static route as [routes] writes it: ``smtp://host:port``, ``smtps://…`` (TLS from the start),
``lmtp://…``."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple, cast

from mailserver.message.address import AddressError, normalise_domain

Scheme = Literal["smtp", "smtps", "lmtp"]
DEFAULT_PORTS: dict[str, int] = {"smtp": 25, "smtps": 465, "lmtp": 24}  # RFC 5321, RFC 8314, RFC 2033

_URL = re.compile(r"(?P<scheme>[A-Za-z+]+)://(?P<rest>.*)\Z", re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:/?#@\[\]]+))(?::(?P<port>[^:]*))?\Z")
_RIGHT = 'write it like "smtp://relay.example:587", "smtps://…" or "lmtp://[::1]:24"'


class RouteError(ValueError):
    """``wrong`` and ``right`` in words for the administrator."""

    def __init__(self, wrong: str, right: str = _RIGHT) -> None:
        super().__init__(f"{wrong}, {right}")
        self.wrong, self.right = wrong, right


class RouteUrl(NamedTuple):
    """``host`` is a name or an IP address without brackets; ``port`` 1–65535."""

    scheme: Scheme
    host: str
    port: int


def parse(text: str) -> RouteUrl:
    """Route → parts; a port left out is the scheme's own. Raises RouteError."""
    match = _URL.match(text)
    if not match:
        raise RouteError(f'"{text}" is no route')
    scheme = match["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise RouteError(f'scheme "{match["scheme"]}" is none of smtp, smtps, lmtp')
    if "@" in match["rest"]:
        raise RouteError("user names in routes are not supported", "leave out what stands before the @")
    authority = _AUTHORITY.match(match["rest"].removesuffix("/"))
    if not authority:
        raise RouteError(f'"{match["rest"]}" is no host or host:port')
    return RouteUrl(cast(Scheme, scheme), _host(authority), _port(authority["port"], DEFAULT_PORTS[scheme]))


def _host(authority: re.Match[str]) -> str:
    try:
        if authority["six"] is not None:
            return str(ipaddress.IPv6Address(authority["six"]))
        return normalise_domain(authority["host"])
    except (AddressError, ValueError):
        raise RouteError(
            f'"{authority["six"] or authority["host"] or ""}" is no host name or address'
        ) from None


def _port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 65535):
        raise RouteError(f'port "{text}" is not 1 to 65535')
    return int(text)
