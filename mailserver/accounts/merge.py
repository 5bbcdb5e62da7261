"""One picture of who exists, from the configuration and the database. Pure: rows in, immutable snapshot out.

The configuration wins where both name the same account or alias, and each such place is reported. Order
matters twice: the first domain completes bare names, the first account is the postmaster by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mailserver.accounts.database import (
    NO_KEYS,
    Keys,
    StoredAlias,
    StoredAppPassword,
    StoredDomain,
    StoredUser,
)
from mailserver.accounts.errors import AccountsError
from mailserver.accounts.passwords import is_known_scheme
from mailserver.config.schema import Config
from mailserver.message.address import Address, AddressError, normalise_domain, parse
from mailserver.routing.directory import Directory, DomainEntry

Source = Literal["config", "database"]


class Account(NamedTuple):
    """``address`` is the key ``user@domain``, ``created`` Unix seconds or None for the configuration's."""

    address: str
    password: str
    source: Source
    created: float | None
    keys: Keys = NO_KEYS


class OurDomain(NamedTuple):
    name: str
    source: Source
    created: float | None


class Alias(NamedTuple):
    """``targets`` are full addresses in wire form."""

    address: str
    targets: tuple[str, ...]
    source: Source
    created: float | None


@dataclass(frozen=True, slots=True)
class Merged:
    """Everything that exists, keyed by normalised address or name, in order (configuration first, then by
    age). ``conflicts``: one sentence each, for the log and `mailserver check`."""

    directory: Directory = field(default_factory=Directory)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    domains: Mapping[str, OurDomain] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    app_passwords: Mapping[str, tuple[StoredAppPassword, ...]] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()


def _ours_alone(_: str, own: Set[str]) -> Set[str]:
    return own


def merge(
    config: Config,
    users: Iterable[StoredUser],
    domains: Iterable[StoredDomain],
    aliases: Iterable[StoredAlias],
    app_passwords: Iterable[StoredAppPassword] = (),
    *,
    live: Callable[[str, Set[str]], Set[str]] = _ours_alone,
) -> Merged:
    """Raises AccountsError for a name in the configuration that is no address or no domain. ``live``: a domain
    and its mailboxes that we keep → all of them, those a backend keeps among them."""
    conflicts: list[str] = []
    our_domains = _domains(config, domains)
    accounts = _accounts(config, users, our_domains, conflicts)
    our_aliases = _aliases(config, aliases, our_domains, conflicts)
    default = next(iter(our_domains), None)
    postmaster = _postmaster(config, accounts, our_aliases, our_domains, conflicts)
    mailboxes: dict[str, set[str]] = {name: set() for name in our_domains}
    for key in accounts:
        local, _, domain = key.rpartition("@")
        mailboxes[domain].add(local)
    if postmaster == f"postmaster@{default}" and default is not None:
        mailboxes[default].add("postmaster")  # RFC 5321 4.5.1: mail for it is accepted, whoever exists
    directory = Directory(
        domains=_entries(config, {name: live(name, own) for name, own in mailboxes.items()}, our_aliases),
        postmaster=postmaster,
        static_routes={_route_key(name): url for name, url in config.routes.items()},
        default_domain=default or _domain(config.hostname, "hostname"),
    )
    by_address: dict[str, tuple[StoredAppPassword, ...]] = {}
    for row in app_passwords:
        by_address[row.address] = (*by_address.get(row.address, ()), row)
    return Merged(directory, accounts, our_domains, our_aliases, by_address, tuple(conflicts))


def full_address(text: str, domain: str, where: str) -> str:
    """``text`` in wire form; a bare local part is of ``domain``. Raises AccountsError naming ``where``."""
    return str(_address(text, domain, where))


def address_key(text: str, domain: str, where: str) -> str:
    """The key of ``text``, completed like full_address."""
    return _address(text, domain, where).key


def _address(text: str, domain: str, where: str) -> Address:
    try:
        return parse(text if "@" in text else f"{text}@{domain}")
    except AddressError as error:
        raise AccountsError(f"{where}: {text!r}: {error}") from None


def _domain(text: str, where: str) -> str:
    try:
        return normalise_domain(text)
    except AddressError as error:
        raise AccountsError(f"{where}: {text!r}: {error}") from None


def _route_key(name: str) -> str:
    return name if name == "*" else _domain(name, "routes")


def _domains(config: Config, stored: Iterable[StoredDomain]) -> dict[str, OurDomain]:
    ours: dict[str, OurDomain] = {}
    for text in config.domains:
        name = _domain(text, "domains")
        ours[name] = OurDomain(name, "config", None)
    for text in config.users:  # an account of the file makes its domain ours
        name = _key(text).rpartition("@")[2]
        ours.setdefault(name, OurDomain(name, "config", None))
    for backend in config.backends.values():
        for text in backend.domains:
            name = _domain(text, "backends")
            ours.setdefault(name, OurDomain(name, "config", None))
    for row in stored:
        ours.setdefault(row.name, OurDomain(row.name, "database", row.created))
    return ours


def _key(text: str) -> str:
    return address_key(text, "", "users")


def _accounts(
    config: Config, users: Iterable[StoredUser], ours: dict[str, OurDomain], conflicts: list[str]
) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for text, user in config.users.items():
        key = _key(text)
        accounts[key] = Account(key, user.password, "config", None)
    for row in users:
        if row.address in accounts:
            conflicts.append(
                f"account {row.address}: the configuration's counts, not the one in the database"
            )
        elif row.address.rpartition("@")[2] not in ours:
            conflicts.append(f"account {row.address}: its domain is not ours any more; it gets no mail")
        else:
            accounts[row.address] = Account(row.address, row.password, "database", row.created, row.keys)
    return accounts


def _aliases(
    config: Config, stored: Iterable[StoredAlias], ours: dict[str, OurDomain], conflicts: list[str]
) -> dict[str, Alias]:
    aliases: dict[str, Alias] = {}
    for domain_text, domain in config.domains.items():
        name = _domain(domain_text, "domains")
        for local, targets in domain.aliases.items():
            where = f'domains."{name}".aliases.{local}'
            key = address_key(local, name, where)
            full = tuple(full_address(target, name, where) for target in targets)
            aliases[key] = Alias(key, full, "config", None)
    for row in stored:
        if row.address in aliases:
            conflicts.append(f"alias {row.address}: the configuration's counts, not the one in the database")
        elif row.address.rpartition("@")[2] not in ours:
            conflicts.append(f"alias {row.address}: its domain is not ours any more; it gets no mail")
        else:
            aliases[row.address] = Alias(row.address, row.targets, "database", row.created)
    return aliases


def _postmaster(
    config: Config,
    accounts: Mapping[str, Account],
    aliases: Mapping[str, Alias],
    ours: Mapping[str, OurDomain],
    conflicts: list[str],
) -> str | None:
    """The configured one if mail for it arrives or leaves (somebody elsewhere may be the postmaster, as an alias
    may lead there), else the first account, else a mailbox made for it."""
    default = next(iter(ours), None)
    if default is None:
        return None
    if config.postmaster is not None:
        full = full_address(config.postmaster, default, "postmaster")
        key = parse(full).key
        backed = {_domain(text, "backends") for one in config.backends.values() for text in one.domains}
        domain = key.rpartition("@")[2]
        if domain not in ours:
            return full
        if key in accounts or key in aliases or domain in backed:
            return key
        conflicts.append(f"postmaster {key}: no such account or alias; role mail goes to the first account")
    return next(iter(accounts), f"postmaster@{default}")


def _entries(
    config: Config, mailboxes: Mapping[str, Set[str]], aliases: Mapping[str, Alias]
) -> dict[str, DomainEntry]:
    by_domain: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in mailboxes}
    for key, alias in aliases.items():
        local, _, domain = key.rpartition("@")
        by_domain[domain][local] = alias.targets
    catch_alls = {
        name: full_address(settings.catch_all, name, f'domains."{name}".catch_all')
        for text, settings in config.domains.items()
        if settings.catch_all is not None and (name := _domain(text, "domains"))
    }
    return {
        name: DomainEntry(locals_, by_domain[name], catch_alls.get(name))
        for name, locals_ in mailboxes.items()
    }


def known_form(stored: str) -> str:
    """``stored``, a password's form from elsewhere. Raises AccountsError where nothing could ever fit it."""
    if not is_known_scheme(stored):
        raise AccountsError("this is no password hash of a known form, such as $argon2id$…, $6$… or {SSHA}…")
    return stored
