"""The default gateways of this machine (proc(5)): what an open-relay guard must not mistake for a client."""

from __future__ import annotations

import contextlib
import ipaddress
import sys

_ROUTES, _ROUTES_V6 = "/proc/self/net/route", "/proc/self/net/ipv6_route"


def default_gateways(v4: str = _ROUTES, v6: str = _ROUTES_V6) -> frozenset[str]:
    """Their addresses, IPv4 and IPv6. Blocking, and quick; empty where there are none or they cannot be seen."""
    found = set()
    with contextlib.suppress(OSError), open(v4, encoding="ascii") as table:
        for fields in map(str.split, table.readlines()[1:]):
            if len(fields) > 2 and fields[1] == "00000000" and fields[2] != "00000000":
                packed = int(fields[2], 16).to_bytes(
                    4, sys.byteorder
                )  # printed as a number of this machine's
                found.add(str(ipaddress.IPv4Address(packed)))
    with contextlib.suppress(OSError), open(v6, encoding="ascii") as table:
        for fields in map(str.split, table):
            if len(fields) > 4 and fields[0] == "0" * 32 and fields[1] == "00" and fields[4] != "0" * 32:
                found.add(str(ipaddress.IPv6Address(bytes.fromhex(fields[4]))))
    return frozenset(found)
