"""Accounts in a real PostgreSQL, which is stopped while people want their mail."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailserver.accounts import passwords
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.database import Database
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.steps import Refused
from mailserver.config.schema import Config
from mailserver.message.address import parse
from mailserver.policy.admission import Unavailable
from mailserver.routing.resolve import Leaves, Unknown

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
    pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("runuser"), reason="root needs runuser"),
]
SCHEMA = """
CREATE TABLE users (address text PRIMARY KEY, password text);
INSERT INTO users VALUES ('alice@sql.test', '{PLAIN}wonderland'), ('mute@sql.test', NULL),
  ('carol@sql.test', '$1$saltsalt$garbage');
"""


class Postgres:
    """A cluster of its own, reached over a socket in its folder only."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self.run(
            "initdb",
            "-D",
            f"{folder}/data",
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "--no-instructions",
        )

    def run(self, program: str, *arguments: str, stdin: str = "") -> None:
        assert PROGRAMS is not None
        command = [str(PROGRAMS.parent / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            input=stdin,
            text=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    def start(self) -> None:
        options = f"-k {self.folder} -F -c listen_addresses= -c shared_buffers=8MB -c max_connections=10"
        log = f"{self.folder}/log"
        self.run("pg_ctl", "start", "-w", "-s", "-D", f"{self.folder}/data", "-l", log, "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-s", "-m", "immediate", "-D", f"{self.folder}/data")

    def sql(self, text: str) -> None:
        self.run("psql", "-q", "-h", self.folder, "-U", "postgres", "-v", "ON_ERROR_STOP=1", stdin=text)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    folder = tempfile.mkdtemp(prefix="pg-")
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        server = Postgres(folder)
        server.start()
        server.sql(SCHEMA)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def accounts(postgres: Postgres, tmp_path: Path, clock: Clock) -> Iterator[Accounts]:  # type: ignore[misc]  # driven by pytest-asyncio
    config = Config.model_validate(
        {
            "hostname": "mail.example.test",
            "domains": {"example.test": {"aliases": {"team": ["alice@sql.test", "x@sql.test"]}}},
            "backends": {"sql": {"type": "postgresql", "domains": ["sql.test"], "url": postgres.url}},
        }
    )
    with ThreadPoolExecutor(2) as executor:
        accounts = Accounts(config, Database(str(tmp_path / "a.sqlite")), executor=executor, now=clock)
        yield accounts
        accounts.close()


async def route(accounts: Accounts, address: str) -> object:
    found = accounts.resolve(parse(address))
    if not isinstance(found, Leaves | Unknown):
        found = await found  # type: ignore[misc]  # neither foreign nor a loop here
    return [leaf.address for leaf in found.leaves] if isinstance(found, Leaves) else type(found)


async def test_accounts_of_the_database(accounts: Accounts) -> None:
    assert await accounts.login("Alice@sql.test", b"wonderland") == "alice@sql.test"
    for name, password in (
        ("alice", b"x"),
        ("mute", b""),
        ("mute", b"x"),
        ("ghost", b"x"),
        ("carol", b"garbage"),
    ):
        assert await accounts.login(f"{name}@sql.test", password) is None
    assert await accounts.login("'; DROP TABLE users --@sql.test", b"x") is None
    assert await accounts.exists("mute@sql.test")
    assert not await accounts.exists("ghost@sql.test")
    assert await route(accounts, "mute@sql.test") == ["mute@sql.test"]
    assert await route(accounts, "team@example.test") == ["alice@sql.test"]
    assert await route(accounts, "ghost@sql.test") is Unknown


async def test_a_changed_password_counts_at_once(
    accounts: Accounts, postgres: Postgres, clock: Clock
) -> None:
    stored = passwords.hash_password("first")
    postgres.sql(f"INSERT INTO users VALUES ('bob@sql.test', '{stored}')")
    assert await accounts.login("bob@sql.test", b"first")
    postgres.sql("UPDATE users SET password = '{PLAIN}second' WHERE address = 'bob@sql.test'")
    clock.time += 6
    assert await accounts.login("bob@sql.test", b"second") == "bob@sql.test"
    assert await accounts.login("bob@sql.test", b"first") is None


async def test_the_database_stops_mid_run(accounts: Accounts, postgres: Postgres, clock: Clock) -> None:
    """Known users get mail and log in, of others nobody says that they do not exist; all is well afterwards."""
    assert await accounts.login("alice@sql.test", b"wonderland")
    assert await route(accounts, "ghost@sql.test") is Unknown
    await asyncio.to_thread(postgres.stop)
    try:
        clock.time += 3600
        for _ in range(2):
            assert await route(accounts, "alice@sql.test") == ["alice@sql.test"]
            assert await accounts.login("alice@sql.test", b"wonderland") == "alice@sql.test"
        assert await route(accounts, "ghost@sql.test") is Unavailable
        assert await route(accounts, "mute@sql.test") is Unavailable
        for name, password in (("mute", b"x"), ("alice", b"maybe new")):
            with pytest.raises(AccountsUnavailable):
                await accounts.login(f"{name}@sql.test", password)
        clock.time += 2 * 86_400
        assert await route(accounts, "alice@sql.test") is Unavailable
    finally:
        await asyncio.to_thread(postgres.start)
    assert await route(accounts, "alice@sql.test") == ["alice@sql.test"]
    assert await accounts.login("alice@sql.test", b"wonderland") == "alice@sql.test"
    assert await route(accounts, "mute@sql.test") == ["mute@sql.test"]


async def test_a_connection_that_died_is_replaced_unnoticed(accounts: Accounts, postgres: Postgres) -> None:
    assert await accounts.exists("mute@sql.test")
    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mailserver'"
    )
    assert await accounts.exists("alice@sql.test")


async def test_a_query_that_is_wrong_is_no_verdict(postgres: Postgres, tmp_path: Path) -> None:
    from mailserver.accounts.backends.postgresql import PostgreSql

    for query in ("SELECT nothing FROM nowhere", "SELECT 42 WHERE $1 <> ''", "SELECT '", "SELECT 'x'"):
        database = PostgreSql("sql", postgres.url, query, timeout=5.0, at_once=1)
        with pytest.raises(AccountsUnavailable, match=r"^sql: "):
            await database.find("a@sql.test")
        database.close()
    database = PostgreSql("sql", "postgresql://127.0.0.1:1/x", "SELECT 1", timeout=5.0, at_once=1)
    with pytest.raises(AccountsUnavailable):
        await database.find("a@sql.test")
    database.close()


async def test_scram_with_what_the_database_holds(accounts: Accounts) -> None:
    attempt = accounts.authentication("PLAIN", accounts.channel(safe=True), service="pop3", client="")
    assert isinstance(await attempt.step(b"AGFsaWNlQHNxbC50ZXN0AHg="), Refused)
    ring = await accounts.gate.key_ring("alice@sql.test", "SHA-256", "pop3")
    assert ring.keys[0][1] != (await accounts.gate.key_ring("ghost@sql.test", "SHA-256", "pop3")).keys[0][1]
