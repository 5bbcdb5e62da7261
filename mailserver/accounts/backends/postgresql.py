"""Accounts in a PostgreSQL database. The only importer of asyncpg, which comes with the extra ``postgres``.

One query says both who exists and what opens the account. Connections are made when they are needed and kept
for a while; one that died is replaced, and asked once more, before anybody hears of it.
"""

from __future__ import annotations

import asyncio
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
    for the answer. Raises AccountsError where asyncpg is not installed."""

    def __init__(self, name: str, url: str, query: str, *, timeout: float, at_once: int) -> None:
        try:
            import asyncpg  # noqa: PLC0415 - an extra, and 40 ms that others need not pay
        except ImportError:
            raise AccountsError(
                f"backends.{name}: the PostgreSQL driver is missing; install the extra: mailserver[postgres]"
            ) from None
        self.name = name
        self._url, self._query, self._timeout, self._at_once = url, query, timeout, at_once
        self._lost = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
        self._faults = (*self._lost, asyncpg.PostgresError, asyncpg.InternalClientError, ValueError)
        self._create = asyncpg.create_pool
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
