"""Checking passwords without blocking the loop, without telling who exists, and without doing it twice.

A failed login costs one argon2 verification whether the account is known or not. A success is remembered
under a keyed hash of name, password and stored hash for ten minutes, so a mail program that polls costs
microseconds, and a changed password is asked for at once. Equal logins under way share one verification.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from mailserver.accounts import passwords
from mailserver.accounts.errors import AccountsUnavailable

REMEMBER = 600.0  # seconds a success is remembered
REMEMBERED_MAX = 10_000  # successes (about 150 octets each)
AT_ONCE = 2  # verifications running: 19 MiB and one core each
WAITING_MAX = 128  # verifications running or waiting; beyond it logins are put off
PASSWORD_MAX = 4096  # octets

# What names without an account are verified against: same cost as a real one, and nobody knows its password.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LWhhcy10aGlz$gUdkCbzpiRU2YPHwhXSaRqdXYGsWBWKQ8cjM39BBqpM"


class LoginCheck:
    """``now``: seconds of any clock. One per process; belongs to one event loop."""

    def __init__(self, *, executor: Executor, now: Callable[[], float]) -> None:
        self._executor = executor
        self._now = now
        self._secret = os.urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def check(self, name: str, password: bytes, stored: str | None) -> bool:
        """Whether ``password`` opens the account ``name`` with the stored form ``stored`` (None: no such
        account).

        Raises AccountsUnavailable when WAITING_MAX verifications are under way or the executor does not work.
        """
        if not password or len(password) > PASSWORD_MAX:
            return False
        key = self._key(name, password, stored)
        until = self._until.get(key)
        if until is not None and 0 < until - self._now() <= REMEMBER:  # a clock set back prolongs nothing
            return True
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= WAITING_MAX:
                raise AccountsUnavailable("too many logins at once")
            task = asyncio.get_running_loop().create_task(self._verify(key, password, stored))
            self._running[key] = task
        return await asyncio.shield(task)  # one client that hangs up must not end what others wait for

    async def _verify(self, key: bytes, password: bytes, stored: str | None) -> bool:
        try:
            async with self._turn:
                good = await asyncio.get_running_loop().run_in_executor(
                    self._executor, _is_right, password, stored
                )
        except (RuntimeError, MemoryError) as error:  # the executor was shut down; no 19 MiB to be had
            raise AccountsUnavailable("logins are not possible now") from error
        finally:
            del self._running[key]
        if good:
            self._remember(key)
        return good

    def _remember(self, key: bytes) -> None:
        self._until.pop(key, None)
        self._until[key] = self._now() + REMEMBER
        if len(self._until) > REMEMBERED_MAX:
            self._until.popitem(last=False)

    def _key(self, name: str, password: bytes, stored: str | None) -> bytes:
        parts = (name.encode(), password, (stored or "").encode())
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")


def _is_right(password: bytes, stored: str | None) -> bool:
    """Blocking. A cheap form that does not fit costs as much as an unknown name."""
    text = password.decode("utf-8", "replace") if stored is None else _utf8(password)
    if stored is None or text is None:
        passwords.verify(text or "", _NOBODY)
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
