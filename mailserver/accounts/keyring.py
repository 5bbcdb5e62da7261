"""Which SCRAM keys open an account, and a decoy's for names that have none (RFC 5802 section 9)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import TypeVar

from mailserver.accounts import passwords, scram_keys
from mailserver.accounts.app_passwords import opens
from mailserver.accounts.database import Database, Keys, StoredAppPassword
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.merge import Account
from mailserver.accounts.scram_keys import Digest, ScramKeys
from mailserver.accounts.steps import KeyRing

_T = TypeVar("_T")
_DERIVED_MAX = 1000  # keys of {PLAIN} passwords kept in memory


def form_of(keys: Keys, digest: Digest) -> str | None:
    return keys.sha256 if digest == "SHA-256" else keys.sha1


def has_keys(account: Account) -> bool:
    """Whether every SCRAM mechanism works for it. Accounts of the configuration that hold keys of one digest
    count: whoever wrote them chose."""
    made = scram_keys.parse(account.password) is not None or passwords.is_plain(account.password)
    return made or account.keys.sha256 is not None


class KeyRings:
    """Belongs to one event loop; ``executor`` does what blocks."""

    def __init__(self, database: Database, executor: Executor) -> None:
        self._database, self._executor = database, executor
        self._secret: bytes | None = None
        self._derived: dict[tuple[str, Digest, str], ScramKeys] = {}

    async def ring(
        self,
        key: str,
        digest: Digest,
        account: tuple[str, Keys] | None,
        app_passwords: Iterable[StoredAppPassword],
        service: str,
    ) -> KeyRing:
        """What opens the account ``key`` for ``service``; ``account``: the stored form of its password and its
        keys."""
        found = await self._own(key, digest, *account) if account else None
        usable = [
            (one.name, form_of(one.keys, digest)) for one in app_passwords if opens(one.scopes, service)
        ]
        parsed = [(name, keys) for name, form in usable if form and (keys := scram_keys.parse(form))]
        first = found or (parsed[0][1] if parsed else None)
        if first is None:
            return KeyRing((("", scram_keys.decoy(digest, key, await self.secret())),))
        fitting = [
            (name, keys) for name, keys in parsed if keys[1:3] == first[1:3]
        ]  # the client is told one salt and one cost
        return KeyRing((("", found), *fitting) if found else tuple(fitting))

    async def salt(
        self, key: str, password: str, keys: Keys, app_passwords: Iterable[StoredAppPassword]
    ) -> bytes:
        """For a new password of the account ``key``: what its other ones have, so that all of them fit one SCRAM
        login; else the one that its name always had."""
        forms = (keys.sha256, password, *(one.keys.sha256 for one in app_passwords))
        known = (scram_keys.parse(form) for form in forms if form)
        found = next((one.salt for one in known if one is not None), None)
        return found or scram_keys.salt_for(key, await self.secret())

    async def secret(self) -> bytes:
        """Of this installation; of this process where it cannot be kept."""
        if self._secret is None:
            try:
                self._secret = await self._blocking(self._database.secret, "scram-decoy")
            except AccountsUnavailable:
                self._secret = os.urandom(32)
        return self._secret

    async def _own(self, key: str, digest: Digest, password: str, keys: Keys) -> ScramKeys | None:
        for form in (form_of(keys, digest), password):
            parsed = scram_keys.parse(form) if form else None
            if parsed is not None and parsed.digest == digest:
                return parsed
        if not passwords.is_plain(password):
            return None
        derived = self._derived.get((key, digest, password))
        if derived is None:
            salt = scram_keys.salt_for(key, await self.secret())
            clear = password.partition("}")[2]
            derived = await self._blocking(scram_keys.derive, digest, clear, salt)
            if len(self._derived) >= _DERIVED_MAX:
                self._derived.clear()
            self._derived[key, digest, password] = derived
        return derived

    async def _blocking(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def offers(setting: str, accounts: Mapping[str, Account], *, backed: bool) -> bool:
    """Whether SCRAM is offered: a program that sees it offered tries nothing else, so "auto" waits until it
    works for everybody."""
    if setting == "auto":
        return not backed and all(map(has_keys, accounts.values()))
    return setting == "always"
