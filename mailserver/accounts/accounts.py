"""Who exists and who may log in: the configuration and the database behind one immutable Directory.

``directory`` is swapped whole, so a reader sees all of a change or nothing. Changes go to the database first
(they are durable when the method returns) and are one after the other; the configuration file is never
written.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from mailserver.accounts import passwords
from mailserver.accounts.database import Database
from mailserver.accounts.errors import AccountsError
from mailserver.accounts.login import LoginCheck
from mailserver.accounts.merge import Merged, address_key, full_address, merge
from mailserver.config.schema import Config
from mailserver.message.address import AddressError, normalise_domain
from mailserver.routing.directory import Directory

_T = TypeVar("_T")
_READABLE = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing to misread: no i l o 0 1


class Accounts:
    """``now``: Unix seconds, for creation times. Reads the database once here (blocking): raises
    AccountsUnavailable when it cannot be used, AccountsError when the configuration names something that is
    no address."""

    def __init__(
        self,
        config: Config,
        database: Database,
        *,
        executor: Executor,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._database = database
        self._executor = executor
        self._now = now
        self._login = LoginCheck(executor=executor, now=now)
        self._changing = asyncio.Lock()
        self.merged: Merged = self._read(config)

    @property
    def directory(self) -> Directory:
        """The current snapshot; take it once per decision."""
        return self.merged.directory

    async def login(self, name: str, password: bytes) -> str | None:
        """The mailbox key ``user@domain``, or None for a wrong name or password. Raises AccountsUnavailable.

        ``name`` is a full address; a bare local part is of the default domain.
        """
        try:
            key = address_key(name, self.directory.default_domain, "login")
        except AccountsError:
            key = ""
        account = self.merged.accounts.get(key)
        stored = account.password if account else None
        return key if await self._login.check(key, password, stored) else None

    async def refresh(self, config: Config) -> None:
        """Take a new configuration and what the database holds now; on an exception nothing has changed."""
        async with self._changing:
            merged = await self._blocking(self._read, config)
            self._config, self.merged = config, merged

    async def first_account(self) -> tuple[str, str] | None:
        """Where there is a domain but no account at all, make ``alice@`` it; its address and password, or
        None."""
        domain = next(iter(self.merged.domains), None)
        if domain is None or self.merged.accounts:
            return None
        groups = ("".join(secrets.choice(_READABLE) for _ in range(5)) for _ in range(4))
        address, password = f"alice@{domain}", "-".join(groups)  # 99 bits
        await self.add_user(address, password)
        return address, password

    async def add_user(self, address: str, password: str, *, hashed: bool = False) -> str:
        """A new account; its key. ``hashed``: ``password`` is a stored form from elsewhere. Raises
        AccountsError for an address that is none, exists, or is not in a domain of ours;
        AccountsUnavailable."""
        key = self._key(address)
        if key in self.merged.accounts:
            raise AccountsError(f"the account {key} exists already")
        stored = await self._blocking(_stored_form, password, hashed)
        await self._change(self._database.add_user, key, stored, self._now())
        return key

    async def set_password(self, address: str, password: str, *, hashed: bool = False) -> str:
        key = self._ours_to_change(address)
        stored = await self._blocking(_stored_form, password, hashed)
        await self._change(self._database.set_password, key, stored)
        return key

    async def remove_user(self, address: str) -> str:
        """The account goes; its mail stays on disk."""
        key = self._ours_to_change(address)
        await self._change(self._database.remove_user, key)
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
        """Make or replace an alias; bare target names are of the alias's own domain."""
        key = self._key(address)
        if not targets:
            raise AccountsError("an alias needs at least one target")
        self._refuse_configured_alias(key)
        domain = key.rpartition("@")[2]
        full = tuple(dict.fromkeys(full_address(target, domain, "target") for target in targets))
        await self._change(self._database.set_alias, key, full, self._now())
        return key

    async def remove_alias(self, address: str) -> str:
        key = self._key(address)
        self._refuse_configured_alias(key)
        await self._change(self._database.remove_alias, key)
        return key

    def close(self) -> None:
        """Close the database, after the last change. Blocking."""
        self._database.close()

    def _refuse_configured_alias(self, key: str) -> None:
        alias = self.merged.aliases.get(key)
        if alias is not None and alias.source == "config":
            raise AccountsError(f"the alias {key} stands in the configuration file; change it there")

    def _key(self, address: str) -> str:
        """The key of an address of ours."""
        key = address_key(address, self.directory.default_domain, "address")
        domain = key.rpartition("@")[2]
        if domain not in self.merged.domains:
            raise AccountsError(
                f"{domain} is not a domain of ours; `mailserver domain add {domain}` makes it one"
            )
        return key

    def _ours_to_change(self, address: str) -> str:
        """The key of an account that the database holds."""
        key = address_key(address, self.directory.default_domain, "address")
        account = self.merged.accounts.get(key)
        if account is not None and account.source == "config":
            raise AccountsError(f"the account {key} stands in the configuration file; change it there")
        return key

    async def _change(self, verb: Callable[..., None], *arguments: object) -> None:
        """One database verb, then the new snapshot. A client that hangs up cannot part the two."""
        await asyncio.shield(asyncio.ensure_future(self._change_whole(verb, arguments)))

    async def _change_whole(self, verb: Callable[..., None], arguments: tuple[object, ...]) -> None:
        async with self._changing:
            await self._blocking(verb, *arguments)
            self.merged = await self._blocking(self._read, self._config)

    def _read(self, config: Config) -> Merged:
        database = self._database
        return merge(config, database.users(), database.domains(), database.aliases())

    async def _blocking(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _domain(name: str) -> str:
    try:
        return normalise_domain(name)
    except AddressError as error:
        raise AccountsError(f"{name!r}: {error}") from None


def _stored_form(password: str, hashed: bool) -> str:
    """Blocking."""
    if not hashed:
        if not password:
            raise AccountsError("an empty password protects nothing")
        return passwords.hash_password(password)
    if not passwords.is_known_scheme(password):
        raise AccountsError("this is no password hash of a known form, such as $argon2id$…, $6$… or {SSHA}…")
    return password
