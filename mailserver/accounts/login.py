"""Checking passwords without blocking the loop, without telling who exists, and without doing it twice.

A failed login costs one argon2 verification whether the account is known or not. A success is remembered
under a keyed hash of name, password and everything that could have opened the account for ten minutes, so a
mail program that polls costs microseconds, and a changed password is asked for at once. Equal logins under
way share one verification.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import blake2b
from typing import NamedTuple

from mailserver.accounts import passwords
from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.scram_keys import ScramKeys, derive

REMEMBER = 600.0  # seconds a success is remembered
REMEMBERED_MAX = 10_000  # successes (about 200 octets each)
MEMORY = 64 << 20  # octets that verifications may take together
# Verifications running: what the memory allows, and one core stays for mail, whoever storms the door.
AT_ONCE = max(1, min(MEMORY // passwords.MEMORY, len(os.sched_getaffinity(0)) - 1))
WAITING_MAX = 128  # hashes computed or waiting for it; beyond it logins are put off
PASSWORD_MAX = 4096  # octets

# What names without an account are verified against: same cost as a real one, and nobody knows its password.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LWhhcy10aGlz$gUdkCbzpiRU2YPHwhXSaRqdXYGsWBWKQ8cjM39BBqpM"


class Lock(NamedTuple):
    """What may open an account: its own ``secret`` (None: no such account), or one of its app passwords,
    name → keys. ``stale``: seconds for which an earlier success counts while its secret cannot be asked. Without
    ``exists`` nothing opens, whatever ``secret`` says: it is asked for the time that takes."""

    secret: Secret | None = None
    app_passwords: tuple[tuple[str, ScramKeys], ...] = ()
    stale: float = 0.0
    exists: bool = True


class LoginCheck:
    """``now``: seconds of any clock. One per process; belongs to one event loop."""

    def __init__(self, *, executor: Executor, now: Callable[[], float]) -> None:
        self._executor = executor
        self._now = now
        self._secret = os.urandom(32)
        self._good: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[str | None]] = {}
        self._hashing = 0  # of those running, without the ones that wait for a backend: they keep nobody out
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._large = asyncio.Lock()  # hashes from elsewhere that take more memory than ours, one at a time

    async def check(self, name: str, password: bytes, lock: Lock) -> str | None:
        """What ``password`` is to the account ``name``: the name of one of its app passwords, "" its own
        password, None nothing.

        Raises AccountsUnavailable when WAITING_MAX hashes are under way, the executor does not work,
        or whoever has to be asked does not answer.
        """
        if not password or len(password) > PASSWORD_MAX:
            return None
        key = self._key(name, password, lock)
        if (label := self._remembered(key, REMEMBER)) is not None:
            return label
        task = self._running.get(key)
        if task is None:
            if self._hashing >= WAITING_MAX:
                raise AccountsUnavailable("too many logins at once")
            self._hashing += 1
            task = asyncio.get_running_loop().create_task(self._verify(key, password, lock))
            self._running[key] = task
        try:
            return await asyncio.shield(task)  # one client that hangs up must not end what others wait for
        except AccountsUnavailable:
            if (label := self._remembered(key, lock.stale)) is not None:
                return label
            raise

    async def _verify(self, key: bytes, password: bytes, lock: Lock) -> str | None:
        try:
            try:
                opened = await self._hash(password, lock)
            finally:
                self._hashing -= 1
            if opened is None and callable(lock.secret) and await lock.secret(password) and lock.exists:
                opened = ""
        except (RuntimeError, MemoryError) as error:  # the executor was shut down; no 19 MiB to be had
            raise AccountsUnavailable("logins are not possible now") from error
        finally:
            del self._running[key]
        if opened is not None:
            self._remember(key, opened)
        return opened

    async def _hash(self, password: bytes, lock: Lock) -> str | None:
        large = isinstance(lock.secret, str) and passwords.memory(lock.secret) > passwords.MEMORY
        async with self._large if large else contextlib.nullcontext(), self._turn:
            return await asyncio.get_running_loop().run_in_executor(self._executor, _opened, password, lock)

    def _remembered(self, key: bytes, seconds: float) -> str | None:
        at, label = self._good.get(key, (0.0, ""))
        known = key in self._good and 0 <= self._now() - at < seconds  # a clock set back prolongs nothing
        return label if known else None

    def _remember(self, key: bytes, label: str) -> None:
        self._good.pop(key, None)
        self._good[key] = self._now(), label
        if len(self._good) > REMEMBERED_MAX:
            self._good.popitem(last=False)

    def _key(self, name: str, password: bytes, lock: Lock) -> bytes:
        stored = lock.secret if isinstance(lock.secret, str) else ""
        parts = [name.encode(), password, stored.encode(), b"exists" if lock.exists else b""]
        parts += [keys.stored for _, keys in lock.app_passwords]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return blake2b(message, key=self._secret, digest_size=32).digest()  # a quarter of the time of an HMAC


def _opened(password: bytes, lock: Lock) -> str | None:
    """Blocking. A cheap form that does not fit costs as much as an unknown name."""
    text = _utf8(password)
    if text is not None:
        for salt, iterations in {(keys.salt, keys.iterations) for _, keys in lock.app_passwords}:
            stored = derive("SHA-256", text, salt, iterations).stored
            for name, keys in lock.app_passwords:
                if keys.salt == salt and hmac.compare_digest(stored, keys.stored):
                    return name
    if callable(lock.secret):
        return None  # the caller asks
    return "" if _is_right(password, text, lock.secret or None) else None


def _is_right(password: bytes, text: str | None, stored: str | None) -> bool:
    if stored is None or text is None:
        passwords.verify(password.decode("utf-8", "replace"), _NOBODY)
        return False
    good = passwords.verify(text, stored)
    if not good and passwords.is_fast(stored):
        passwords.verify(text, _NOBODY)
    return good


def _utf8(password: bytes) -> str | None:
    try:
        return password.decode("utf-8")
    except UnicodeDecodeError:
        return None
