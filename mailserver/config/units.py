"""Sizes, durations and socket addresses as people write them, parsed once into numbers."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\Z", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_SIZE_MAX = 1 << 62  # octets; what the kernel and SIZE can say
_DURATION_MAX = 36_500 * 86_400.0  # seconds; timers and dates bear it
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(value: Any) -> int:
    """``"50 MiB"``, ``"4k"``, ``1000`` → octets. K, M, G, T are powers of 1024 with or without the i."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a size cannot be negative")
        return _bounded_size(value)
    if isinstance(value, str) and (match := _SIZE.match(value.strip())):
        power = " KMGT".index(match[2].upper() or " ")
        return _bounded_size(float(match[1]) * 1024**power)
    raise ValueError('a size is written like "50 MiB", "64 KiB" or a number of octets')


def _bounded_size(octets: float) -> int:
    if octets > _SIZE_MAX:
        raise ValueError("no disk is that large, at most 4194304 TiB")
    return int(octets)


def parse_duration(value: Any) -> float:
    """``"5m"``, ``"1h30m"``, ``"5d"``, ``30`` → seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < math.inf:
            raise ValueError("a time cannot be negative or endless")
        return _bounded_duration(float(value))
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        parts = _DURATION_PART.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            return _bounded_duration(sum(float(n) * _SECONDS[u.lower()] for n, u in parts))
    raise ValueError('a time is written like "30s", "5m", "1h30m" or "5d" (units ms s m h d w)')


def parse_retention(value: Any) -> float:
    """A duration, or ``"never"`` → infinity."""
    return math.inf if value in {"never", math.inf} else parse_duration(value)


def _bounded_duration(seconds: float) -> float:
    if seconds > _DURATION_MAX:
        raise ValueError("nobody waits that long, at most 36500d")
    return seconds


class SocketAddress(NamedTuple):
    """An IP address and a port; ``str()`` gives the way the configuration writes it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_socket_address(value: Any) -> SocketAddress:
    """``"127.0.0.1:25"``, ``"[::]:25"``, ``"*:25"`` (= ``0.0.0.0:25``) → SocketAddress. IP addresses only,
    port 0–65535."""
    if isinstance(value, SocketAddress):
        return value
    hint = 'an address is written like "127.0.0.1:2525" or "[::1]:2525"'
    if not isinstance(value, str):
        raise ValueError(hint)  # noqa: TRY004 - pydantic collects ValueErrors
    host, colon, port = value.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(hint)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('an IPv6 address stands in brackets: "[::1]:2525"')
    host = "0.0.0.0" if host == "*" else host  # noqa: S104 - the administrator wrote it
    try:
        return SocketAddress(str(ipaddress.ip_address(host)), int(port))
    except ValueError:
        raise ValueError(hint) from None


def one_or_more(value: Any) -> Any:
    """One value alone stands for a list of one: ``retry = "5m"``."""
    return (value,) if isinstance(value, (str, int, float)) else value


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Retention = Annotated[float, BeforeValidator(parse_retention)]
Listen = Annotated[SocketAddress, BeforeValidator(parse_socket_address)]
OneOrMore = BeforeValidator(one_or_more)
