"""Who gets in: every question a mechanism may ask, answered from the snapshot, the backends and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from mailserver.accounts import passwords, scram_keys
from mailserver.accounts.app_passwords import LastUse, opens
from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.backends.by_domain import Backends
from mailserver.accounts.database import NO_KEYS, Database
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.keyring import KeyRings
from mailserver.accounts.login import Lock, LoginCheck
from mailserver.accounts.merge import Account, Merged, address_key
from mailserver.accounts.scram_keys import Digest
from mailserver.accounts.steps import KeyRing
from mailserver.accounts.tokens import TokenProgram

Renew = Callable[[Account, str], Awaitable[None]]


class Gate:
    """``merged``, ``backends`` and ``tokens`` give what is in force. ``renew`` stores a password anew
    whose form is weak; None: nobody wants that."""

    def __init__(
        self,
        database: Database,
        *,
        merged: Callable[[], Merged],
        backends: Callable[[], Backends],
        renew: Renew,
        tokens: Callable[[], TokenProgram | None],
        executor: Executor,
        now: Callable[[], float],
    ) -> None:
        self._merged, self._backends, self._renew = merged, backends, renew
        self._tokens, self._executor = tokens, executor
        self._check = LoginCheck(executor=executor, now=now)
        self._last_use = LastUse(database, now)
        self.rings = KeyRings(database, executor)
        self.rehash = True
        self._renewing: set[str] = set()
        self._tasks: set[asyncio.Future[Any]] = set()

    def key_of(self, name: str) -> str:
        """The account a login name means; "" for what is no address."""
        try:
            return address_key(name, self._merged().directory.default_domain, "login")
        except AccountsError:
            return ""

    async def login(self, name: str, password: bytes, service: str = "", client: str = "") -> str | None:
        """See Accounts.login."""
        key = self.key_of(name)
        account = self._merged().accounts.get(key)
        lock = await self._lock(key, account, service)
        opened = await self._check.check(key, password, lock)
        if opened is None and (changed := await self._changed(key, account, lock)):
            opened = await self._check.check(key, password, changed)
        if opened is None:
            return None
        remembered = None if account else self._backends().of(key)
        if remembered is not None and callable(lock.secret):
            remembered.learn(key, lock.secret)
        self._entered(key, opened, service, client)
        if account is not None and not opened:
            self._renew_if_weak(account, password)
        return key

    async def digest(self, name: str, stamp: bytes, digest: bytes) -> str | None:
        """The mailbox key if ``digest`` is what APOP makes of the account's own password, kept in clear."""
        key = self.key_of(name)
        account = self._merged().accounts.get(key)
        if account is not None:
            return key if passwords.fits_digest(stamp, digest, account.password) else None
        for latest in (False, True):  # a backend may hold another one by now
            secret = await self._secret(key, latest=latest)
            if passwords.fits_digest(stamp, digest, secret if isinstance(secret, str) else ""):
                return key
        return None

    async def proves(self, key: str, stored: str, password: str) -> bool:
        """Whether it is the account's own password, no app password."""
        return await self._check.check(key, password.encode(), Lock(stored)) == ""

    async def key_ring(self, user: str, digest: Digest, service: str) -> KeyRing:
        key = self.key_of(user)
        account = self._merged().accounts.get(key)
        found = (account.password, account.keys) if account else None
        if account is None:
            secret = await self._secret(key)
            found = (secret, NO_KEYS) if isinstance(secret, str) else None
            if secret is None:
                return await self.rings.ring(key or user, digest, None, (), service)
        return await self.rings.ring(key, digest, found, self._merged().app_passwords.get(key, ()), service)

    async def owner_of(self, token: str) -> str | None:
        """Raises AccountsUnavailable."""
        tokens = self._tokens()
        if tokens is None:
            raise AccountsUnavailable("a reload has taken logins by token away")
        return await tokens.owner_of(token)

    async def proven(self, user: str, app_password: str, service: str, client: str) -> str | None:
        """The mailbox key of who has shown to be ``user``, None where that is no account."""
        key = self.key_of(user)
        if not await self.exists(key):
            return None
        self._entered(key, app_password, service, client)
        return key

    async def exists(self, key: str) -> bool:
        return key in self._merged().accounts or await self._secret(key) is not None

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _secret(self, key: str, *, latest: bool = False) -> Secret | None:
        """What a backend keeps for it."""
        remembered = self._backends().of(key)
        return None if remembered is None else await remembered.find(key, latest=latest)

    async def _lock(self, key: str, account: Account | None, service: str) -> Lock:
        secret: Secret | None = account.password if account else await self._secret(key)
        if secret is None:
            remembered = self._backends().of(key)
            return Lock(remembered.backend.stand_in(key) if remembered else None, exists=False)
        usable = (one for one in self._merged().app_passwords.get(key, ()) if opens(one.scopes, service))
        parsed = ((one.name, scram_keys.parse(one.keys.sha256 or "")) for one in usable)
        remembered = self._backends().of(key)
        stale = remembered.stale if remembered is not None and callable(secret) else 0.0
        return Lock(secret, tuple((name, keys) for name, keys in parsed if keys is not None), stale)

    async def _changed(self, key: str, account: Account | None, lock: Lock) -> Lock | None:
        """The lock with what a backend holds now, if that is not what the password was tried against."""
        if account is not None or not isinstance(lock.secret, str):
            return None
        secret = await self._secret(key, latest=True)
        return lock._replace(secret=secret) if isinstance(secret, str) and secret != lock.secret else None

    def _entered(self, key: str, app_password: str, service: str, client: str) -> None:
        if app_password and self._last_use.due(key, app_password):
            self._keep(
                asyncio.get_running_loop().run_in_executor(
                    self._executor, self._last_use.note, key, app_password, service, client
                )
            )

    def _renew_if_weak(self, account: Account, password: bytes) -> None:
        """The password is known at this moment only."""
        weak = passwords.is_outdated(account.password) or account.keys.sha256 is None
        if not self.rehash or account.source != "database" or not weak or account.address in self._renewing:
            return
        self._renewing.add(account.address)
        task = asyncio.ensure_future(self._renew(account, password.decode()))
        task.add_done_callback(lambda _: self._renewing.discard(account.address))
        self._keep(task)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
