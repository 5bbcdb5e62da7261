"""Domains, users, aliases and catch-alls of the file: do they name what exists, and does every alias end
somewhere?

Accounts, aliases and domains may also live in the database. With ``Known`` given, a name that nobody has is a fault;
without it (the database was not asked) it is a warning. Loops are found by routing's own resolve().
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mailserver.config.faults import nearest
from mailserver.config.lines import Path
from mailserver.config.schema import Config, Domain
from mailserver.config.shape import Finding
from mailserver.message.address import Address, AddressError, normalise_domain, parse
from mailserver.routing.directory import ROLE_ADDRESSES, Directory, DomainEntry
from mailserver.routing.resolve import Leaves, Loop, resolve, target_address


class Known(NamedTuple):
    """What the database holds: keys ``local@domain`` of accounts, names of domains, and aliases with their
    targets, normalised."""

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    aliases: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def check(config: Config, known: Known | None) -> Iterator[Finding]:
    """Everything about who gets mail."""
    yield from _Recipients(config, known).check()


class _Recipients:
    """``_domains``: our normalised names; ``_exist``: keys of mailboxes and aliases, wherever they are
    kept."""

    def __init__(self, config: Config, known: Known | None) -> None:
        self._config = config
        self._asked = known is not None
        known = known or Known()
        self._stored = known.aliases
        self._domains: dict[str, Domain] = {}
        for name, domain in config.domains.items():
            if (normal := _domain_name(name)) is not None:
                self._domains.setdefault(normal, domain)
        self._mailboxes = {
            key for name in config.users if (key := _key(name, "")) is not None
        } | known.addresses
        self._aliases = {
            key: alias for name, domain in self._domains.items() for alias in domain.aliases
            if (key := _key(alias, name)) is not None
        }  # fmt: skip
        self._locals: dict[str, set[str]] = {}  # domain → local parts to guess from
        for key in (*self._mailboxes, *self._aliases, *self._stored):
            local, _, name = key.rpartition("@")
            self._locals.setdefault(name, set()).add(local)
        self._backed = {_domain_name(name) for one in config.backends.values() for name in one.domains}
        stored = (*known.addresses, *known.aliases)
        self._ours = set(self._domains) | known.domains | {key.rpartition("@")[2] for key in stored}
        self._ours |= {name for name in self._backed if name is not None}

    def check(self) -> Iterator[Finding]:
        yield from self._names()
        yield from self._users()
        if self._config.postmaster is not None:
            yield from self._postmaster(self._config.postmaster)
        for name, domain in self._config.domains.items():
            normal = _domain_name(name)
            if normal is not None:
                yield from self._domain(("domains", name), normal, domain)
        yield from self._named()
        yield from self._loops()

    def _postmaster(self, text: str) -> Iterator[Finding]:
        default, path = next(iter(self._domains), ""), ("postmaster",)
        yield from self._target(path, text, default)
        domain = (_key(text, default) or "").rpartition("@")[2]
        if domain and domain not in self._ours:
            wrong = "not in a domain of ours: reports that mail cannot leave this server could not reach it, either"
            yield Finding(path, wrong, "a mailbox here is safer", warning=True)

    def _names(self) -> Iterator[Finding]:
        seen: dict[str, str] = {}
        for name in self._config.domains:
            normal = _domain_name(name)
            if normal is None:
                yield Finding(("domains", name), "no domain name", 'write it like "example.test"')
            elif normal in seen:
                yield Finding(
                    ("domains", name), f'the same domain as "{seen[normal]}"', "keep one of the two"
                )
            else:
                seen[normal] = name

    def _users(self) -> Iterator[Finding]:
        seen: dict[str, str] = {}
        for name in self._config.users:
            path: Path = ("users", name)
            key = _key(name, "")
            if key is None:
                yield Finding(path, "no mail address", 'write it like [users."alice@example.test"]')
                continue
            domain = key.rpartition("@")[2]
            if key in seen:
                yield Finding(path, f'the same account as "{seen[key]}"', "keep one of the two")
            elif domain not in self._ours:
                guess = nearest(domain, self._ours)
                right = f'did you mean "{guess}"?' if guess else f'add [domains."{domain}"]'
                yield Finding(path, f"the domain {domain} is not declared", right, warning=not self._asked)
            seen.setdefault(key, name)

    def _domain(self, path: Path, name: str, domain: Domain) -> Iterator[Finding]:
        if domain.catch_all is not None:
            yield from self._target((*path, "catch_all"), domain.catch_all, name)
        seen: dict[str, str] = {}
        for alias, targets in domain.aliases.items():
            here = (*path, "aliases", alias)
            key = _key(alias, name) if "@" not in alias else None
            if key is None:
                right = "write what stands before the @" if "@" in alias else 'write it like "team"'
                yield Finding(here, "no local part", right)
                continue
            if key in seen:
                yield Finding(here, f'the same alias as "{seen[key]}"', "keep one of the two")
            seen.setdefault(key, alias)
            if not targets:
                yield Finding(here, "an alias of nobody", "give it a target, or remove it")
            for n, target in enumerate(targets):
                yield from self._target((*here, n) if len(targets) > 1 else here, target, name, own=key)

    def _named(self) -> Iterator[Finding]:
        """Who is given senders or terms, and may be gone by now."""
        settings = self._config
        names: list[tuple[Path, str]] = [
            (("submission", "senders", n), n) for n in settings.submission.senders
        ]
        names += [(("pop3", "accounts", name), name) for name in settings.pop3.accounts]
        for path, name in names:
            local, _, domain = (_key(name, "") or "").rpartition("@")
            if domain not in self._ours - self._backed or f"{local}@{domain}" in self._mailboxes:
                continue
            guess = nearest(local, self._locals.get(domain, set()) - {local})
            right = f'did you mean "{guess}@{domain}"?' if guess else "remove it"
            wrong = f"nobody has the account {local}@{domain}"
            yield Finding(path, wrong, right, warning=True)

    def _target(self, path: Path, text: str, domain: str, own: str = "") -> Iterator[Finding]:
        """One target of an alias, catch-all or the postmaster; ``own``: the alias's key."""
        if text.startswith(("|", "/", ":")):
            yield Finding(path, f'"{text}" is a program or a file', "name mailboxes or addresses only")
            return
        try:
            address = parse(target_address(text, domain))
        except AddressError as error:
            right = 'write it like "alice" or "alice@example.test"'
            yield Finding(path, f'"{text}" is no address ({error})', right)
            return
        if address.domain not in self._ours or self._exists(address, own):
            return
        local, name = address.key.rsplit("@", 1)
        guess = nearest(local, self._locals.get(name, set()) - {local})
        right = f'did you mean "{guess}"?' if guess else f"make it with `mailserver user add {address.key}`"
        yield Finding(path, f"nobody has the address {address.key}", right, warning=not self._asked)

    def _exists(self, address: Address, own: str) -> bool:
        key = address.key
        if address.domain in self._backed:  # the backend will know
            return True
        if key in self._mailboxes or (key != own and (key in self._aliases or key in self._stored)):
            return True
        local = key[: -len(address.domain) - 1]
        domain = self._domains.get(address.domain)
        caught = (
            domain is not None
            and domain.catch_all is not None
            and _key(domain.catch_all, address.domain) != key
        )
        return key != own and (local in ROLE_ADDRESSES or caught)

    def _loops(self) -> Iterator[Finding]:
        """Each cycle once, at the alias of it that stands first in the file."""
        directory = self._directory()
        seen: set[frozenset[str]] = set()
        ending: set[str] = set()  # on the way of an alias that ends: not walked again
        for key in self._aliases:
            local, _, name = key.rpartition("@")
            if key in ending or not self._leads_on(directory.domains[name].aliases[local]):
                continue
            found = resolve(directory, Address(local, name))
            if isinstance(found, Leaves):
                ending.update(*(leaf.via for leaf in found.leaves))
            if not isinstance(found, Loop):
                continue
            cycle = found.path[found.path.index(found.path[-1]) :]
            if len(cycle) == 1:
                yield Finding(self._path(key), found.reason, "use fewer")
            elif frozenset(cycle) not in seen:
                seen.add(frozenset(cycle))
                member = next((k for k in self._aliases if k in cycle), key)
                told = "a loop: " + " → ".join(cycle)
                yield Finding(self._path(member), told, "let one of them end at a mailbox")

    def _leads_on(self, targets: tuple[str, ...]) -> bool:
        """Whether anything but mailboxes and other people's addresses is among them."""
        return any(
            target in self._aliases or target in self._stored or target not in self._mailboxes
            for target in targets
            if target.rpartition("@")[2] in self._ours
        )

    def _path(self, key: str) -> Path:
        """Where the alias of this key is written."""
        name = next(n for n in self._config.domains if _domain_name(n) == key.rpartition("@")[2])
        return ("domains", name, "aliases", self._aliases[key])

    def _directory(self) -> Directory:
        """What routing would see. Targets that are no addresses have been reported; they are left out."""
        mailboxes: dict[str, set[str]] = {name: set() for name in self._ours}
        for key in self._mailboxes:
            local, _, name = key.rpartition("@")
            mailboxes.setdefault(name, set()).add(local)
        aliases: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in mailboxes}
        for key, targets in self._stored.items():
            local, _, name = key.rpartition("@")
            aliases[name][local] = targets
        for key, alias in self._aliases.items():
            local, _, name = key.rpartition("@")
            found = (_key(target, name) for target in self._domains[name].aliases[alias])
            aliases[name][local] = tuple(target for target in found if target is not None)
        catch_alls = {
            name: _key(d.catch_all, name) if d.catch_all else None for name, d in self._domains.items()
        }
        entries = {
            name: DomainEntry(frozenset(locals_), aliases[name], catch_alls.get(name))
            for name, locals_ in mailboxes.items()
        }
        postmaster = self._config.postmaster
        return Directory(entries, _key(postmaster, next(iter(self._domains), "")) if postmaster else None)


def _domain_name(text: str) -> str | None:
    try:
        return normalise_domain(text)
    except AddressError:
        return None


def _key(text: str, domain: str) -> str | None:
    """The normalised address of a name of ``domain``, or None for what is none."""
    try:
        return parse(target_address(text, domain)).key
    except AddressError:
        return None
