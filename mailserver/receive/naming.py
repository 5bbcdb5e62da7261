"""What a client calls itself (RFC 5321 4.1.1.1): whether that is a name at all, and whether it is ours.

A stranger that takes our own name, or the address it has connected to, is no mail server: those know who they
are. Any other name is noted and believed by nobody, as RFC 5321 4.1.4 forbids to refuse mail for it.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from mailserver import reply
from mailserver.receive.session import ClientSession
from mailserver.reply import Reply

NAME_MAX = 255  # octets
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]-]")


def note(session: ClientSession, name: str, *, extended: bool, ours: frozenset[str]) -> Reply | None:
    """Keep the name, cleaned of what must not get into a header; or the refusal. ``ours``: spellings, in lower
    case, that only we may use."""
    name = name.strip()
    if not name or " " in name or len(name) > NAME_MAX:
        return reply.BAD_HELO
    if ours and session.account is None and is_among(ours, name):
        return reply.OUR_NAME
    session.host_name = _NOT_IN_A_NAME.sub("?", name)
    session.extended_smtp = extended
    return None


def names_of_ours(hostname: str, address: str) -> frozenset[str]:
    """Spellings of ``hostname`` and of the IP ``address`` a client has connected to; a loopback address is everybody's
    own (smtplib, for one, greets with it)."""
    local = not address or ip_address(address).is_loopback
    return frozenset({hostname.lower()} if local else {hostname.lower(), literal(address)})


def is_among(ours: frozenset[str], name: str) -> bool:
    """In any case, with or without a final dot; an IPv6 address has many spellings, an IPv4 address some as IPv6."""
    name = name.lower().rstrip(".")
    return name in ours or (name[:6] == "[ipv6:" and name[-1] == "]" and literal(name[6:-1]) in ours)


def literal(address: str) -> str:
    """An IP address as the client of RFC 5321 4.1.3 writes it, in lower case; "" for what is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    return f"[ipv6:{ip}]" if ip.version == 6 else f"[{ip}]"


def unmapped(host: str) -> str:
    """A socket's address without a zone, and IPv4 as IPv4."""
    if ":" in host:
        host = host.partition("%")[0].removeprefix("::ffff:")
    return host
