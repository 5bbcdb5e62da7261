"""Who exists and who may log in: the configuration and the database behind one immutable Directory.

``directory`` is swapped whole, so a reader sees all of a change or nothing. Changes go to the database first
(they are durable when the method returns) and are one after the other; the configuration file is never
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Container, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from mailserver.accounts import app_passwords, passwords
from mailserver.accounts.authenticate import Authentication
from mailserver.accounts.backends.by_domain import Backends
from mailserver.accounts.database import NO_KEYS, Database, Keys, StoredAppPassword, StoredUser
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.gate import Gate
from mailserver.accounts.keyring import offers
from mailserver.accounts.merge import Account, Merged, address_key, full_address, known_form, merge
from mailserver.accounts.sasl import Channel
from mailserver.accounts.tokens import TokenProgram
from mailserver.config.schema import Config
from mailserver.message.address import Address, AddressError, normalise_domain
from mailserver.policy.admission import Unavailable
from mailserver.routing.directory import Directory
from mailserver.routing.new_alias import objection
from mailserver.routing.orphans import orphans
from mailserver.routing.resolve import Resolution

_T = TypeVar("_T")


class Accounts:
    """``now``: Unix seconds, for creation times. Reads the database once here (blocking): raises AccountsUnavailable
    when it cannot be used, AccountsError when the configuration names something that is no address, or a
    backend whose driver is missing."""

    def __init__(
        self, config: Config, database: Database, *, executor: Executor, now: Callable[[], float]
    ) -> None:
        self._config = config
        self._database = database
        self._executor = executor
        self._now = now
        self._tokens = _tokens(config)
        self._scram: tuple[Merged | None, str, bool] = None, "", False  # what offers_scram judged, and how
        self._changing = asyncio.Lock()
        self.backends = Backends(config.backends, now=now)
        self.merged: Merged = self._read(config, self.backends)
        self.gate = Gate(
            database, merged=lambda: self.merged, backends=lambda: self.backends, renew=self._renew,
            tokens=lambda: self._tokens, executor=executor, now=now,
        )  # fmt: skip
        self.gate.rehash = config.accounts.rehash

    @property
    def directory(self) -> Directory:
        """The current snapshot; take it once per decision."""
        return self.merged.directory

    async def login(self, name: str, password: bytes, service: str = "", client: str = "") -> str | None:
        """The mailbox key ``user@domain``, or None for a wrong name or password. Raises AccountsUnavailable.

        ``name`` is a full address; a bare local part is of the default domain. App passwords open what they
        are for: ``service`` ("smtp", "submission", "pop3"); their last use is noted with ``client``.
        """
        return await self.gate.login(name, password, service, client)

    def authentication(
        self, mechanism: str, channel: Channel, *, service: str, client: str
    ) -> Authentication:
        """One attempt with any mechanism that ``sasl.offered(channel)`` lists; raises UnknownMechanism."""
        return Authentication(self.gate, mechanism, channel, service=service, client=client)

    def channel(self, *, safe: bool, end_point: bytes = b"", identities: tuple[str, ...] = ()) -> Channel:
        """What the mechanisms must know of a connection. ``safe``: a password may travel; ``end_point``: the
        tls-server-end-point of the certificate it was shown (RFC 5929), empty without; ``identities``:
        addresses in the client's verified certificate."""
        settings = self._config.accounts
        bindings = {"tls-server-end-point": end_point} if end_point and settings.channel_binding else {}
        bearer, tokens = self._config.bearer, self._tokens is not None
        return Channel(safe, bindings, identities, self.offers_scram, tokens, bearer.scope, bearer.discovery)

    @property
    def offers_scram(self) -> bool:
        """Judged once for each picture of the accounts: there may be many."""
        merged, setting = self.merged, self._config.accounts.scram
        judged, by, offered = self._scram
        if judged is not merged or by != setting:
            offered = offers(setting, merged.accounts, backed=bool(self.backends.domains))
            self._scram = merged, setting, offered
        return offered

    def resolve(self, address: Address) -> Resolution | Awaitable[Resolution | Unavailable]:
        """Where mail for an address goes; an awaitable where a backend has to be asked first."""
        return self.backends.resolve(lambda: self.directory, address)

    async def exists(self, address: str) -> bool:
        """Whether it is an account (aliases are none). Raises AccountsUnavailable."""
        return await self.gate.exists(self.gate.key_of(address))

    async def refresh(self, config: Config) -> None:
        """Take a new configuration and what the database holds now; on an exception nothing has changed."""
        async with self._changing:
            old = self.backends
            new = old if old.settings == config.backends else Backends(config.backends, now=self._now)
            merged = await self._blocking(self._read, config, new)
            if config.bearer != self._config.bearer:
                self._tokens = _tokens(config)
            self._config, self.merged, self.backends = config, merged, new
            self.gate.rehash = config.accounts.rehash
            if new is not old:
                old.close()

    async def first_account(self) -> tuple[str, str] | None:
        """Where there is a domain but no account at all, make ``alice@`` it; its address and password, or
        None."""
        domain = next(iter(self.merged.domains), None)
        if domain is None or self.merged.accounts or domain in self.backends.domains:
            return None
        address, password = f"alice@{domain}", app_passwords.readable_password()
        await self.add_user(address, password)
        return address, password

    async def add_user(self, address: str, password: str, *, hashed: bool = False) -> str:
        """A new account; its key. ``hashed``: ``password`` is a stored form from elsewhere. Raises
        AccountsError for an address that is none, exists, or is not in a domain of ours;
        AccountsUnavailable."""
        key = self._new_key(address)
        stored, keys = await self._stored(key, password, hashed)
        await self._change(self._database.add_user, key, stored, self._now(), keys)
        return key

    async def import_users(self, entries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """New accounts, each an address and a stored form from elsewhere; those that were refused, and why."""
        new: dict[str, StoredUser] = {}
        refused = []
        for address, stored in entries:
            try:
                key = self._new_key(address, also=new)
                new[key] = StoredUser(key, known_form(stored), self._now())
            except AccountsError as error:
                refused.append((address, str(error)))
        await self._change(self._database.add_users, tuple(new.values()))
        return refused

    async def set_password(
        self, address: str, password: str, *, hashed: bool = False, old: str | None = None
    ) -> str:
        """``old``: what must be the password until now, shown by whoever is no administrator."""
        key = self._ours_to_change(address)
        account = self.merged.accounts.get(key)
        if old is not None and not await self.gate.proves(key, account.password if account else "", old):
            raise AccountsError("the old password is wrong")
        stored, keys = await self._stored(key, password, hashed)
        await self._change(self._database.set_password, key, stored, keys)
        return key

    async def remove_user(self, address: str, *, force: bool = False) -> str:
        """The account goes; its mail stays on disk. Raises AccountsError where an alias would lead nowhere then,
        unless ``force``."""
        key = self._ours_to_change(address)

        def leaves_no_orphans() -> None:
            if not force and key in self.merged.accounts and (left := orphans(self.directory, key)):
                raise AccountsError(
                    f"mail for {', '.join(left)} would lead nowhere: remove or change that first, or say --force"
                )

        await self._change(self._database.remove_user, key, allowed=leaves_no_orphans)
        return key

    async def add_app_password(
        self, address: str, name: str, scopes: Sequence[str] = ()
    ) -> tuple[StoredAppPassword, str]:
        """A new one for the services ``scopes`` (none: for all), and the password itself, which is not kept.
        Raises AccountsError, AccountsUnavailable."""
        key = await self._account_key(address)
        existing = self.merged.app_passwords.get(key, ())
        allowed = app_passwords.checked(name, scopes, existing)
        password = app_passwords.readable_password()
        salt = await self._salt(key)
        keys = await self._blocking(app_passwords.make_keys, password, salt)
        new = StoredAppPassword(key, name, allowed, keys, self._now())
        await self._change(self._database.add_app_password, new)
        return new, password

    async def list_app_passwords(self, address: str) -> list[StoredAppPassword]:
        """With their last use, as the database has it now."""
        key = await self._account_key(address)
        return [one for one in await self._blocking(self._database.app_passwords) if one.address == key]

    async def remove_app_password(self, address: str, name: str) -> str:
        """It stops working at once."""
        key = address_key(address, self.directory.default_domain, "address")
        await self._change(self._database.remove_app_password, key, name)
        return key

    async def add_domain(self, name: str) -> str:
        domain = _domain(name)
        if domain in self.merged.domains:
            raise AccountsError(f"the domain {domain} exists already")
        await self._change(self._database.add_domain, domain, self._now())
        return domain

    async def remove_domain(self, name: str) -> str:
        domain = _domain(name)
        known = self.merged.domains.get(domain)
        if known is not None and known.source == "config":
            raise AccountsError(f"the domain {domain} stands in the configuration file; remove it there")
        await self._change(self._database.remove_domain, domain)
        return domain

    async def set_alias(self, address: str, targets: Sequence[str]) -> str:
        """Make or replace an alias; bare target names are of the alias's own domain. Raises AccountsError for a
        loop and for a target of ours that nobody has, AccountsUnavailable."""
        key = self._key(address)
        if not targets:
            raise AccountsError("an alias needs at least one target")
        self._refuse_configured_alias(key)
        for target in targets:
            if target.startswith(("|", "/", ":")):  # as in the configuration
                raise AccountsError(
                    f"target: {target!r} is a program or a file: name mailboxes or addresses only"
                )
        domain = key.rpartition("@")[2]
        full = tuple(dict.fromkeys(full_address(target, domain, "target") for target in targets))

        def leads_somewhere() -> None:
            if (reason := objection(self.directory, key, full, self.backends.domains)) is not None:
                raise AccountsError(reason)

        await self._change(self._database.set_alias, key, full, self._now(), allowed=leads_somewhere)
        return key

    async def remove_alias(self, address: str) -> str:
        key = self._key(address)
        self._refuse_configured_alias(key)
        await self._change(self._database.remove_alias, key)
        return key

    def close(self) -> None:
        """Close backends and database, after the last change. Blocking; on the loop's thread."""
        self.gate.close()
        self.backends.close()
        self._database.close()

    async def _account_key(self, address: str) -> str:
        key = address_key(address, self.directory.default_domain, "address")
        if not await self.gate.exists(key):
            raise AccountsError(f"no account {key}")
        return key

    async def _salt(self, key: str) -> bytes:
        account = self.merged.accounts.get(key) or Account(key, "", "database", None)
        known = self.merged.app_passwords.get(key, ())
        return await self.gate.rings.salt(key, account.password, account.keys, known)

    async def _stored(self, key: str, password: str, hashed: bool) -> tuple[str, Keys]:
        """What is kept of a new password. Raises AccountsError."""
        if hashed:
            return known_form(password), NO_KEYS
        if not password:
            raise AccountsError("an empty password protects nothing")
        keys = await self._blocking(app_passwords.make_keys, password, await self._salt(key))
        return await self._blocking(passwords.hash_password, password), keys

    async def _renew(self, account: Account, password: str) -> None:
        """Store a password anew that a login has just shown. Whatever is in the way, the next login tries
        again."""
        with contextlib.suppress(AccountsError, AccountsUnavailable):
            stored, keys = await self._stored(account.address, password, hashed=False)
            if not passwords.is_outdated(account.password):
                stored = account.password
            change = partial(self._database.set_password, instead_of=account.password)
            async with self._changing:
                await self._blocking(change, account.address, stored, keys)
                accounts = dict(self.merged.accounts)
                if accounts.get(account.address) == account:
                    accounts[account.address] = account._replace(password=stored, keys=keys)
                    self.merged = dataclasses.replace(self.merged, accounts=accounts)

    def _refuse_configured_alias(self, key: str) -> None:
        alias = self.merged.aliases.get(key)
        if alias is not None and alias.source == "config":
            raise AccountsError(f"the alias {key} stands in the configuration file; change it there")

    def _key(self, address: str) -> str:
        """The key of an address of ours."""
        key = address_key(address, self.directory.default_domain, "address")
        domain = key.rpartition("@")[2]
        if domain not in self.merged.domains:
            hint = f"`mailserver domain add {domain}` makes it one"
            raise AccountsError(f"{domain} is not a domain of ours; {hint}")
        return key

    def _new_key(self, address: str, *, also: Container[str] = ()) -> str:
        key = self._key(address)
        if key in self.merged.accounts or key in also:
            raise AccountsError(f"the account {key} exists already")
        return key

    def _ours_to_change(self, address: str) -> str:
        """The key of an account that the database holds."""
        key = address_key(address, self.directory.default_domain, "address")
        account = self.merged.accounts.get(key)
        if account is not None and account.source == "config":
            raise AccountsError(f"the account {key} stands in the configuration file; change it there")
        return key

    async def _change(
        self, verb: Callable[..., object], *arguments: object, allowed: Callable[[], None] = lambda: None
    ) -> None:
        """One database verb, then the new snapshot. A client that hangs up cannot part the two. ``allowed`` raises
        what forbids it, asked when no other change can come between."""
        await asyncio.shield(asyncio.ensure_future(self._change_whole(verb, arguments, allowed)))

    async def _change_whole(
        self, verb: Callable[..., object], arguments: tuple[object, ...], allowed: Callable[[], None]
    ) -> None:
        async with self._changing:
            allowed()
            await self._blocking(verb, *arguments)
            self.merged = await self._blocking(self._read, self._config, self.backends)

    def _read(self, config: Config, backends: Backends) -> Merged:
        db = self._database
        return merge(
            config, db.users(), db.domains(), db.aliases(), db.app_passwords(), live=backends.mailboxes
        )

    async def _blocking(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _tokens(config: Config) -> TokenProgram | None:
    return TokenProgram(config.bearer) if config.bearer.program else None


def _domain(name: str) -> str:
    try:
        return normalise_domain(name)
    except AddressError as error:
        raise AccountsError(f"{name!r}: {error}") from None
