"""The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): octets in, the client's address out.

Sans-IO and strict: what is no header is refused at its first wrong octet, so a speaker of SMTP or POP3 is never
mistaken for a proxy. Bounded: version 1 has at most 107 octets, version 2 at most 4096; its TLVs are skipped. LOCAL,
UNKNOWN, UNSPEC and Unix sockets give a header that is ``local``: the connection is the proxy's own.

Who may send one is decided by ``expected``; a header that was not asked for must never be looked at.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import NamedTuple

from mailserver.config.trust import Proxy as Settings
from mailserver.config.units import SocketAddress
from mailserver.policy.networks import Networks

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_MAX, V2_MAX = 107, 4096  # octets, header included
_V1 = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{1,45}) ([0-9a-fA-F:.]{1,45}) (\d{1,5}) (\d{1,5})\r\n", re.ASCII
)
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_ADDRESSES = {
    0x1: (4, 12),
    0x2: (16, 36),
    0x3: (0, 216),
}  # family → octets of one address, of the whole block


class ProxyError(Exception):
    """These octets are not the header that was expected; ``str(error)`` says why. Hang up without a word."""


class Header(NamedTuple):
    """``length`` octets were the header. ``local``: no other client is behind it, addresses are None."""

    source: SocketAddress | None
    destination: SocketAddress | None
    local: bool
    length: int


class Expected(enum.Enum):
    """What a new connection begins with."""

    NOTHING = "nothing"  # a client of ours speaks
    HEADER = "header"  # a proxy, and nothing else is accepted from it
    REFUSED = "refused"  # a stranger on a listener that is the proxies' own


def looks_at_headers(settings: Settings, listener: SocketAddress) -> bool:
    """Whether connections to ``listener`` may begin with a header at all."""
    return bool(settings.trusted) and (not settings.listen or listener in settings.listen)


def expected(settings: Settings, trusted: Networks, listener: SocketAddress, peer: str) -> Expected:
    """The rule for one connection; ``trusted`` is Networks(settings.trusted), ``listener`` as configured."""
    if settings.listen and listener not in settings.listen:
        return Expected.NOTHING
    if peer in trusted:
        return Expected.HEADER
    return Expected.REFUSED if settings.listen else Expected.NOTHING


def parse(data: bytes) -> Header | None:
    """The header ``data`` begins with; None: more octets are needed (all so far are its). Raises ProxyError."""
    if data[:1] == b"P":
        return _version_1(data)
    if data[:12] == SIGNATURE[: len(data)]:
        _check_beginning(data)
        return _version_2(data) if len(data) >= 16 else None
    raise ProxyError("neither version 1 nor version 2")


# ---- version 1: a line of text -----------------------------------------------------------------------------
def _version_1(data: bytes) -> Header | None:
    head = data[:V1_MAX]
    end = head.find(b"\n") + 1
    if not end:
        if b"PROXY "[: len(head)] != head[:6]:
            raise ProxyError("it begins like version 1 and is not")
        if len(head) == V1_MAX or b"\r" in head[:-1]:
            raise ProxyError("version 1: no CRLF within 107 octets")
        return None
    line = head[:end]
    if _V1_UNKNOWN.fullmatch(line):
        return Header(None, None, True, end)
    match = _V1.fullmatch(line)
    if match is None:
        raise ProxyError("version 1: malformed line")
    family, source, destination, from_port, to_port = (part.decode("ascii") for part in match.groups())
    return Header(_endpoint(family, source, from_port), _endpoint(family, destination, to_port), False, end)


def _endpoint(family: str, host: str, port: str) -> SocketAddress:
    wanted = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        address = wanted(host)
    except ValueError:
        raise ProxyError(f"version 1: no {family} address") from None
    if int(port) > 65535 or (port[0] == "0" and port != "0"):
        raise ProxyError("version 1: no port number")
    return SocketAddress(_plain(address), int(port))


# ---- version 2: binary -------------------------------------------------------------------------------------
def _check_beginning(data: bytes) -> None:
    """Version, command and family must be right as soon as they are there."""
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise ProxyError("version 2: unknown version or command")
    if len(data) > 13:
        _family(data[12], data[13])


def _version_2(data: bytes) -> Header | None:
    size, block = _ADDRESSES.get(_family(data[12], data[13]), (0, 0))
    length = int.from_bytes(data[14:16], "big")
    end = 16 + length
    if end > V2_MAX:
        raise ProxyError("version 2: larger than 4096 octets")
    if length < block:
        raise ProxyError("version 2: too short for its addresses")
    if len(data) < end:
        return None
    if not size:
        return Header(None, None, True, end)
    source, destination, ports = data[16 : 16 + size], data[16 + size : 16 + 2 * size], data[16 + 2 * size :]
    return Header(_packed(source, ports[:2]), _packed(destination, ports[2:4]), False, end)


def _packed(address: bytes, port: bytes) -> SocketAddress:
    return SocketAddress(_plain(ipaddress.ip_address(address)), int.from_bytes(port, "big"))


def _family(command: int, octet: int) -> int:
    """The address family; 0 for LOCAL, whose addresses mean nothing, and UNSPEC."""
    family, transport = octet >> 4, octet & 0xF
    if command == 0x20:
        return 0
    if family > 3 or transport > 1 or (family == 0) != (transport == 0):
        raise ProxyError("version 2: no stream of a known family")
    return family


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """IPv4-mapped IPv6 is IPv4, as everywhere."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
