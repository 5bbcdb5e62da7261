"""Whether an alias that somebody wants to make would lead anywhere: no loop, and no target of ours that nobody has.
Pure."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence, Set
from dataclasses import replace

from mailserver.message.address import parse
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Loop, Unknown, resolve


def objection(directory: Directory, alias: str, targets: Sequence[str], unsure: Set[str]) -> str | None:
    """Why not, in words; None: nothing is in the way. ``alias``: its key, in a domain of ours. ``unsure``: domains
    whose mailboxes somebody else keeps, so that a missing one is no fault."""
    local, _, domain = alias.rpartition("@")
    entry = directory.domains[domain]
    aliases = ChainMap({local: tuple(targets)}, dict(entry.aliases))
    wanted = replace(directory, domains={**directory.domains, domain: replace(entry, aliases=aliases)})
    whole = resolve(wanted, parse(alias))
    if isinstance(whole, Loop):
        cycle = whole.path[whole.path.index(whole.path[-1]) :]
        if len(cycle) == 1:
            return whole.reason
        return f"a loop: {' → '.join(cycle)}: let one of them end at a mailbox"
    for target in targets:
        address = parse(target)
        itself = address.key == alias  # there it means the mailbox
        found = local in entry.mailboxes if itself else not isinstance(resolve(wanted, address), Unknown)
        if not found and address.domain not in unsure:
            made = f"`mailserver user add {address.key}`"
            return f"target: nobody has the address {address.key}: make it first with {made}"
    return None
