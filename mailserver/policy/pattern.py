"""Who a relay rule means: an address, a network, or the prefix ``10.1.2.`` people know from tcpserver.

The text becomes an ``ipaddress`` network; what could be misread is refused with what would be right.
"""

from __future__ import annotations

import ipaddress
import re

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PREFIX = re.compile(r"(\d{1,3}\.){1,3}\Z", re.ASCII)
_CUT_SHORT = re.compile(r"\d{1,3}(\.\d{1,3}){0,2}(\.\*)*\Z", re.ASCII)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_PRIVATE_V6 = (ipaddress.IPv6Network("fc00::/7"), ipaddress.IPv6Network("fe80::/10"))
_RIGHT = 'write an address ("192.0.2.1", "2001:db8::1"), a network ("10.0.0.0/8") or a prefix ("10.1.2.")'


class PatternError(ValueError):
    """``wrong`` names the pattern and what is the matter with it, ``right`` says what to write instead."""

    def __init__(self, wrong: str, right: str = _RIGHT) -> None:
        super().__init__(f"{wrong}, {right}")
        self.wrong, self.right = wrong, right


def parse(text: str) -> Network:
    """Pattern → network. IPv4 written as IPv4-mapped IPv6 becomes IPv4. Raises PatternError."""
    if _PREFIX.match(text):
        octets = text.split(".")[:-1]
        return _network(text, ".".join(octets + ["0"] * (4 - len(octets))), 8 * len(octets))
    if _CUT_SHORT.match(text):
        octets = text.replace(".*", "").split(".")
        raise PatternError(
            f'"{text}" is half an address', f'for all addresses below it write "{".".join(octets)}."'
        )
    if "%" in text:
        raise PatternError(f'"{text}" has a zone', f'leave it out: "{text.split("%", maxsplit=1)[0]}"')
    if text.startswith("["):
        raise PatternError(f'"{text}" has brackets', f'leave them out: "{re.sub(r"[][]", "", text)}"')
    address, slash, length = text.partition("/")
    if not slash:
        return _network(text, address, None)
    if not length.isdecimal() or not length.isascii():
        raise PatternError(f'"{text}" has no prefix length after the slash', 'write it like "10.0.0.0/8"')
    return _network(text, address, int(length))


def _network(text: str, address: str, length: int | None) -> Network:
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        raise PatternError(f'"{text}" is no IP address or network') from None
    bits = host.max_prefixlen if length is None else length
    if bits > host.max_prefixlen:
        raise PatternError(
            f'"{text}" has a prefix longer than {host.max_prefixlen} bits', 'write it like "10.0.0.0/8"'
        )
    network = ipaddress.ip_network((int(host) if host.version == 4 else host.packed, bits), strict=False)
    if network.network_address != host:
        raise PatternError(f'"{text}" has host bits set', f'write "{network}" or the address alone')
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def is_much_of_the_internet(network: Network) -> bool:
    """Whether it is more than one organisation has: shorter than /8 (IPv4) or /16 (IPv6), and public."""
    if isinstance(network, ipaddress.IPv4Network):
        return network.prefixlen < 8
    return network.prefixlen < 16 and not any(network.subnet_of(private) for private in _PRIVATE_V6)
