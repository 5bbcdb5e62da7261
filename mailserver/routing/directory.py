"""Who and what exists: an immutable snapshot of domains, mailboxes, aliases and catch-alls.

Built by accounts/ from the configuration and the database, swapped whole; routing/resolve.py walks it.
All keys are normalised: domains by message.address.normalise_domain, local parts case-folded and unquoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

ROLE_ADDRESSES = ("postmaster", "abuse", "mailer-daemon", "root", "hostmaster")  # RFC 2142, RFC 5321 4.5.1


@dataclass(frozen=True, slots=True)
class DomainEntry:
    """``mailboxes``: local parts with an account, maybe a view of them that grows. ``aliases``: local part →
    targets, each a full address ``local@domain`` in normalised form. ``catch_all``: a full address or None."""

    mailboxes: Set[str] = frozenset()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    catch_all: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """``domains``: domain → entry. ``postmaster``: the mailbox (full address) that role addresses fall back
    to. ``static_routes``: [routes] with normalised domains, maybe ``"*"``. ``default_domain``: completes
    bare ``postmaster`` (RFC 5321 4.5.1)."""

    domains: Mapping[str, DomainEntry] = field(default_factory=dict)
    postmaster: str | None = None
    static_routes: Mapping[str, str] = field(default_factory=dict)
    default_domain: str = "localhost"
