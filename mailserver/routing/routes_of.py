"""Where mail for an address goes, as reports to senders ask: addresses and routes without the decisions."""

from __future__ import annotations

from mailserver.message.address import AddressError, parse
from mailserver.message.envelope import Route
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Foreign, Leaves, resolve


def routes_of(directory: Directory, address: str) -> list[tuple[str, Route, str | None]]:
    """Address, route and the alias that led there, of each copy; [] when mail goes nowhere."""
    try:
        resolution = resolve(directory, parse(address))
    except AddressError:
        return []
    match resolution:
        case Leaves(leaves=leaves):
            return [(leaf.address, leaf.route, leaf.alias) for leaf in leaves]
        case Foreign(route=route, address=wire):
            return [(wire, route, None)]
    return []
