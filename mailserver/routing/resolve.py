"""Where mail for an address goes: aliases, mailboxes, role addresses, catch-alls and static routes as one
graph.

Precedence within one of our domains, first match wins:

1. an alias of exactly this local part, even where a mailbox has the same name (the sendmail and Postfix
   habit: ``alice = ["alice", "bob"]`` keeps a copy; its own name inside it means the mailbox and
   nothing where there is none),
2. the mailbox,
3. a role address (RFC 2142, RFC 5321 4.5.1) → the postmaster,
4. the domain's catch-all, which therefore shadows nothing.

Targets of ours are resolved by the same rules, others leave by the network. A domain is ours only if it is
listed, address literals included. Pure: the directory is an argument, nothing here asks the network or the
disk.
"""

from __future__ import annotations

from typing import NamedTuple

from mailserver.message.address import Address, AddressError, fold, parse
from mailserver.message.envelope import Local, Remote, Route
from mailserver.routing.directory import ROLE_ADDRESSES, Directory

DEPTH_MAX = 100  # aliases of aliases
WIDTH_MAX = 10_000  # addresses one recipient may become


class Leaf(NamedTuple):
    """One place the message goes. ``address`` in wire form; ``alias`` the address given at RCPT when
    something else led from it to here; ``via`` every address passed on the way, that one first."""

    address: str
    route: Route
    alias: str | None
    via: tuple[str, ...]


class Leaves(NamedTuple):
    """At least one leaf, without duplicates. ``steps``: one sentence per decision, dead targets included."""

    leaves: tuple[Leaf, ...]
    steps: tuple[str, ...]


class Unknown(NamedTuple):
    """Our domain, but nobody there, or only aliases that lead nowhere."""

    reason: str
    steps: tuple[str, ...]


class Foreign(NamedTuple):
    """Not our domain: whoever may relay gets ``address`` delivered by ``route``."""

    route: Remote
    address: str
    steps: tuple[str, ...]


class Loop(NamedTuple):
    """No end was found: a cycle (``path`` ends where it came by before), or more than the bounds allow."""

    path: tuple[str, ...]
    reason: str
    steps: tuple[str, ...]


Resolution = Leaves | Unknown | Foreign | Loop


class _EndlessError(Exception):
    """Ends the walk: a cycle or a bound. Never leaves this module."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


def complete(directory: Directory, text: str) -> str:
    """Bare ``postmaster``, in any case, gets the default domain (RFC 5321 4.5.1); anything else is left as
    it is."""
    return f"{text}@{directory.default_domain}" if text.casefold() == "postmaster" else text


def resolve(directory: Directory, address: Address) -> Resolution:
    """All places mail for ``address`` goes. Bounds: DEPTH_MAX, WIDTH_MAX."""
    wire = str(address)
    entry = directory.domains.get(address.domain)
    if entry is None:
        route = next_hop(directory, address.domain)
        return Foreign(route, wire, (_leaves_by(wire, address.domain, route),))
    key = address.key
    local = key[: -len(address.domain) - 1]
    if local in entry.mailboxes and local not in entry.aliases:
        return Leaves((Leaf(wire, Local(key), None, ()),), (f"{key} is a mailbox",))
    walk = _Walk(directory, key, wire)
    try:
        walk.visit(key, ())
    except _EndlessError as endless:
        return Loop(endless.path, endless.reason, (*walk.steps, endless.reason))
    if walk.leaves:
        return Leaves(tuple(walk.leaves.values()), tuple(walk.steps))
    return Unknown(f"nobody has the address {key}", tuple(walk.steps))


class _Walk:
    """One depth-first walk through the graph. Every node is visited once, so its cost is bounded by the
    directory."""

    def __init__(self, directory: Directory, origin: str, wire: str) -> None:
        self._directory = directory
        self._origin = origin
        self._wire = wire
        self._done: set[str] = set()
        self.leaves: dict[str, Leaf] = {}
        self.steps: list[str] = []

    def visit(self, target: str, path: tuple[str, ...]) -> None:
        """Adds what ``target`` leads to; ``path`` are the nodes that led here. Raises _EndlessError."""
        local, _, domain = target.rpartition("@")
        entry = self._directory.domains.get(domain)
        if entry is None:
            route = next_hop(self._directory, domain)
            self.steps.append(_leaves_by(target, domain, route))
            self._add(target, target, route, path)
            return
        local = fold(local)
        key = f"{local}@{domain}"
        if key in path:
            cycle = (*path, key)
            raise _EndlessError(cycle, "alias loop: " + " → ".join(cycle))
        if key in self._done:
            return
        if len(path) >= DEPTH_MAX:
            raise _EndlessError(
                (*path, key), f"more than {DEPTH_MAX} aliases one behind the other, starting at {path[0]}"
            )
        if local in entry.aliases:
            self._alias(key, entry.aliases[local], local in entry.mailboxes, path)
        elif local in entry.mailboxes:
            self._mailbox(key, path)
        elif not self._fallback(key, local, entry.catch_all, path):
            self.steps.append(f"{key} does not exist" + (": left out" if path else ""))
        self._done.add(key)

    def _alias(self, key: str, targets: tuple[str, ...], has_mailbox: bool, path: tuple[str, ...]) -> None:
        shown = ", ".join(targets[:10]) + (f" and {len(targets) - 10} more" if len(targets) > 10 else "")
        self.steps.append(f"{key} is an alias of {shown or 'nobody'}")
        for target in targets:
            if _key(target) != key:
                self.visit(target, (*path, key))
            elif has_mailbox:
                self._mailbox(key, path if key == self._origin else (*path, key))
            else:
                self.steps.append(f"{key} is no mailbox: left out")

    def _mailbox(self, key: str, path: tuple[str, ...]) -> None:
        self.steps.append(f"{key} is a mailbox")
        self._add(key, self._wire if key == self._origin else wire_form(key), Local(key), path)

    def _fallback(self, key: str, local: str, catch_all: str | None, path: tuple[str, ...]) -> bool:
        """Role address, then catch-all. A fallback that is the address itself is none: False."""
        postmaster = self._directory.postmaster
        if local in ROLE_ADDRESSES and postmaster and _key(postmaster) != key:
            self.steps.append(f"{key} is a role address, kept by the postmaster {postmaster}")
            self.visit(postmaster, (*path, key))
            return True
        if catch_all and _key(catch_all) != key:
            self.steps.append(f"{key} falls to the catch-all {catch_all}")
            self.visit(catch_all, (*path, key))
            return True
        return False

    def _add(self, identity: str, address: str, route: Route, path: tuple[str, ...]) -> None:
        if len(self.leaves) >= WIDTH_MAX and identity not in self.leaves:
            raise _EndlessError((self._origin,), f"{self._origin} becomes more than {WIDTH_MAX:,} addresses")
        self.leaves.setdefault(identity, Leaf(address, route, self._wire if path else None, path))


def wire_form(key: str) -> str:
    """A directory key as an address for the envelope: the local part is quoted where RFC 5321 4.1.2 wants
    it."""
    try:
        return str(parse(key))
    except AddressError:
        local, _, domain = key.rpartition("@")
        escaped = local.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"@{domain}'


def target_address(text: str, domain: str) -> str:
    """An alias target as people write it → the form a Directory holds: bare names are of ``domain``.

    Folding the case is left to resolve(), which knows whose domain it is: other people's local parts keep
    theirs. Raises AddressError.
    """
    full = text if "@" in text else f"{text}@{domain}"
    return str(parse(full))


def _key(target: str) -> str:
    local, _, domain = target.rpartition("@")
    return f"{fold(local)}@{domain}"


def next_hop(directory: Directory, domain: str) -> Remote:
    """Where mail for a domain that is not ours goes; ``domain`` normalised."""
    routes = directory.static_routes
    return Remote(routes.get(domain) or routes.get("*") or domain)


def _leaves_by(address: str, domain: str, route: Remote) -> str:
    if route.destination == domain:
        return f"{address} leaves to the {'host' if domain.startswith('[') else 'mail hosts of'} {domain}"
    return f"{address} leaves by the route {route.destination}"
