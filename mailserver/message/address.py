"""Mail addresses of the envelope: parsed once, normalised once (RFC 5321 4.1.2, RFC 6531 3.3, RFC 5891).

The null sender is ``None`` wherever an address is optional; ``"<>"`` exists on the wire only.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

import idna

LOCAL_MAX = 64  # octets, RFC 5321 4.5.3.1.1
DOMAIN_MAX = 255  # octets, RFC 5321 4.5.3.1.2
PATH_MAX = 256  # octets with <>, RFC 5321 4.5.3.1.3

_ATOM_CHARS = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~"
_ATEXT = rf"[{_ATOM_CHARS}-]+"
_UTF8_ATEXT = (
    r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+'  # the same and all above ASCII; as a range it compiles for 15 ms
)
_DOT_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*\Z")
_UTF8_DOT_ATOM = re.compile(rf"{_UTF8_ATEXT}(?:\.{_UTF8_ATEXT})*\Z")
_QUOTED = re.compile(r'"(?:[^\x00-\x1f"\\\x7f]|\\[\x20-\x7e])*"\Z')
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_PLAIN = re.compile(rf"({_ATEXT}(?:\.{_ATEXT})*)@({_LABEL}(?:\.{_LABEL})*)\Z")
_LITERAL = re.compile(r"\[(?:(?P<v4>[0-9.]{7,15})|IPv6:(?P<v6>[0-9A-Fa-f:.]{2,45}))\]\Z", re.IGNORECASE)


class AddressError(ValueError):
    """The text is no address; ``str(error)`` is safe to show to a peer."""


class Address(NamedTuple):
    """One mailbox address. ``local`` in wire form (quoted if it must be; what its characters mean is for ``domain`` to
    say, RFC 5321 2.3.11), ``domain`` a lower-case A-label name."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def key(self) -> str:
        """What look-ups compare: local part folded, domain normalised."""
        return f"{fold(self.local)}@{self.domain}"


def parse(text: str) -> Address:
    """``local@domain`` without angle brackets → Address. Raises AddressError. Bounds: RFC 5321 4.5.3.1."""
    if (match := _PLAIN.match(text)) and len(text) < PATH_MAX - 1:
        local, domain = match.groups()
        if len(local) > LOCAL_MAX:
            raise AddressError("local part longer than 64 octets")
        return Address(local, domain.lower())
    return _parse_unusual(text)


def _parse_unusual(text: str) -> Address:
    local, at, domain = text.rpartition("@")
    if not at or not local:
        raise AddressError("an address is local-part@domain")
    if not (
        _DOT_ATOM.match(local)
        or _QUOTED.match(local)
        or (not local.isascii() and _UTF8_DOT_ATOM.match(local))
    ):
        raise AddressError("malformed local part")
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in local):
        raise AddressError("control character in the local part")
    if len(local.encode("utf-8", "surrogatepass")) > LOCAL_MAX:
        raise AddressError("local part longer than 64 octets")
    return Address(_shortest(local), normalise_domain(domain))


def _shortest(local: str) -> str:
    """The quoted string is dropped where it was not needed, so one mailbox has one spelling (RFC 5321 4.1.2)."""
    plain = unquote(local)
    return plain if _DOT_ATOM.match(plain) or (not plain.isascii() and _UTF8_DOT_ATOM.match(plain)) else local


def unquote(local: str) -> str:
    """The local part's meaning: without quotes and backslashes."""
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local


def fold(local: str) -> str:
    """What local parts of our own domains are compared by: the meaning, composed (NFC), in one case."""
    return unicodedata.normalize("NFC", unquote(local)).casefold()


@lru_cache(maxsize=4096)
def normalise_domain(domain: str) -> str:
    """Domain name or address literal → lower case A-labels. Raises AddressError."""
    if match := _LITERAL.match(domain):
        return _literal(match)
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            raise AddressError("malformed internationalised domain") from None
    if len(domain) > DOMAIN_MAX or not _DOMAIN.match(domain):
        raise AddressError("malformed domain")
    return domain.lower()


def _literal(match: re.Match[str]) -> str:
    """Address literal (RFC 5321 4.1.3); the address is checked, not only its characters."""
    try:
        if match["v4"]:
            return f"[{IPv4Address(match['v4'])}]"
        return f"[IPv6:{IPv6Address(match['v6'])}]"
    except AddressValueError:
        raise AddressError("malformed address literal") from None
