"""What would lead nowhere once an account is gone: aliases whose only mailbox it is, and catch-alls. Pure."""

from __future__ import annotations

from dataclasses import replace

from mailserver.message.address import Address, parse
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Leaves, Unknown, resolve


def orphans(directory: Directory, account: str) -> list[str]:
    """Their addresses, "*@domain" for a catch-all; what leads nowhere already is not among them. ``account``: its
    key, in a domain of ours."""
    local, _, domain = account.rpartition("@")
    entry = directory.domains[domain]
    rest = replace(entry, mailboxes=frozenset(entry.mailboxes) - {local})
    without = replace(directory, domains={**directory.domains, domain: rest})

    def loses_all(address: Address) -> bool:
        return isinstance(resolve(without, address), Unknown) and isinstance(
            resolve(directory, address), Leaves
        )

    found = []
    for name, one in directory.domains.items():
        found += [f"{alias}@{name}" for alias in one.aliases if loses_all(Address(alias, name))]
        if one.catch_all is not None and loses_all(parse(one.catch_all)):
            found.append(f"*@{name}")
    return found
