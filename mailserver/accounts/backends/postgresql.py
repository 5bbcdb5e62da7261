"""Accounts in a PostgreSQL database. The only importer of asyncpg, which comes with the extra ``postgres``.

One query says both who exists and what opens the account. Connections are made when they are needed and kept
for a while; one that died is replaced, and asked once more, before anybody hears of it.
"""

from __future__ import annotations

import asyncio
import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.errors import AccountsError, AccountsUnavailable

if TYPE_CHECKING:
    import asyncpg

IDLE = 60.0  # seconds an unused connection is kept
_TRIES = 2


class PostgreSql:
    """``url``: libpq's (``postgresql://user@host/database?passfile=…``). ``query``: one row whose first column
    is the stored form of the password of $1, NULL where nothing opens it. ``timeout``: seconds for connecting and
    for the answer. Raises AccountsError where asyncpg cannot be had."""

    def __init__(self, name: str, url: str, query: str, *, timeout: float, at_once: int) -> None:
        driver = _driver(name)
        self.name = name
        self._url, self._query, self._timeout, self._at_once = url, query, timeout, at_once
        self._lost = (OSError, driver.InterfaceError, driver.PostgresConnectionError)
        self._faults = (*self._lost, driver.PostgresError, driver.InternalClientError, ValueError)
        self._create = driver.create_pool
        self._pool: asyncpg.Pool | None = None
        self._turn = asyncio.Semaphore(at_once)

    async def find(self, address: str) -> Secret | None:
        if "\0" in address:
            return None
        try:
            async with self._turn, asyncio.timeout(_TRIES * self._timeout):
                row = await self._row(address)
        except TimeoutError:
            raise AccountsUnavailable(f"{self.name}: no answer in time") from None
        except self._faults as error:
            raise AccountsUnavailable(f"{self.name}: {type(error).__name__}: {error}") from error
        if row is None:
            return None
        stored = row[0]
        if not isinstance(stored, str | None):
            raise AccountsUnavailable(f"{self.name}: the query's first column is no text")
        return stored or ""

    def stand_in(self, address: str) -> None:  # noqa: ARG002 - the database stores hashes as we do
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _row(self, address: str) -> asyncpg.Record | None:
        for last in range(1, _TRIES + 1):
            try:
                return await (await self._connected()).fetchrow(self._query, address, timeout=self._timeout)
            except self._lost:
                if last == _TRIES:
                    raise
        return None

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            pool = self._create(
                self._url, min_size=0, max_size=self._at_once, timeout=self._timeout,
                max_inactive_connection_lifetime=IDLE, statement_cache_size=0,
                server_settings={"application_name": "mailserver"},
            )  # fmt: skip
            self._pool = pool
            await pool
        return self._pool


def _driver(name: str) -> ModuleType:
    """asyncpg, imported late: it is an extra, and 40 ms that others need not pay. Raises AccountsError."""
    try:
        driver = importlib.import_module("asyncpg")
    except ImportError as error:
        if error.name != "asyncpg":
            raise _unusable(name, error) from error
        raise AccountsError(
            f"backends.{name}: the PostgreSQL driver is missing; install the extra: mailserver[postgres]"
        ) from None
    except OSError as error:
        raise _unusable(name, error) from error
    if not hasattr(driver, "create_pool"):  # Python takes a folder that it may not read for an empty package
        raise _unusable(name, f"{list(driver.__path__)} cannot be read")
    return driver


def _unusable(name: str, reason: object) -> AccountsError:
    return AccountsError(
        f"backends.{name}: the PostgreSQL driver asyncpg is there but cannot be loaded: {reason}"
    )
