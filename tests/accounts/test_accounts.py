"""Accounts as the rest of the server sees them: one directory, one login."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from accounts_office import Clock, Counting

from mailserver.accounts import login
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.database import Database
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.login import REMEMBER
from mailserver.config.schema import Config

CONFIG = Config.model_validate(
    {
        "hostname": "mail.example.test",
        "domains": {
            "Example.Test": {
                "catch_all": "alice",
                "aliases": {"Team": ["alice", "Bob@remote.TEST"], "info": ["alice"]},
            },
            "second.test": {},
        },
        "users": {"Alice@example.test": {"password": "{PLAIN}wonderland"}},
        "routes": {"Remote.TEST": "smtp://127.0.0.1:2526", "*": "smtp://relay.test"},
    }
)


def make(config: Config, database: Database, executor: Counting, clock: Clock) -> Accounts:
    return Accounts(config, database, executor=executor, now=clock)


@pytest.fixture
def accounts(database: Database, executor: Counting, clock: Clock) -> Accounts:
    return make(CONFIG, database, executor, clock)


async def test_the_directory_is_normalised_and_complete(accounts: Accounts) -> None:
    directory = accounts.directory
    entry = directory.domains["example.test"]
    assert entry.mailboxes == {"alice"}
    assert entry.aliases["team"] == ("alice@example.test", "Bob@remote.test")
    assert entry.catch_all == "alice@example.test"
    assert directory.domains["second.test"].mailboxes == frozenset()
    assert directory.postmaster == "alice@example.test"
    assert directory.default_domain == "example.test"
    assert directory.static_routes == {"remote.test": "smtp://127.0.0.1:2526", "*": "smtp://relay.test"}


async def test_changes_take_effect_at_once_and_stay(
    accounts: Accounts, database: Database, executor: Counting, clock: Clock
) -> None:
    before = accounts.directory
    assert await accounts.add_domain("Third.Test") == "third.test"
    assert await accounts.add_user("Carol@third.test", "s3cret") == "carol@third.test"
    await accounts.set_alias("sales@third.test", ["carol", "x@Elsewhere.test"])
    assert "third.test" not in before.domains
    after = make(CONFIG, Database(database.path), executor, clock)
    for directory in (accounts.directory, after.directory):
        entry = directory.domains["third.test"]
        assert entry.mailboxes == {"carol"}
        assert entry.aliases == {"sales": ("carol@third.test", "x@elsewhere.test")}
    assert await after.login("CAROL@third.test", b"s3cret") == "carol@third.test"
    await accounts.set_password("carol@third.test", "other")
    assert await accounts.login("carol@third.test", b"s3cret") is None
    assert await accounts.login("carol@third.test", b"other") == "carol@third.test"
    await accounts.remove_user("carol@third.test")
    assert await accounts.login("carol@third.test", b"other") is None


async def test_the_configuration_wins_and_says_so(
    database: Database, executor: Counting, clock: Clock
) -> None:
    database.add_user("alice@example.test", "{PLAIN}other", 1.0)
    database.add_user("old@gone.test", "{PLAIN}x", 1.0)
    database.set_alias("info@example.test", ["x@remote.test"], 1.0)
    accounts = make(CONFIG, database, executor, clock)
    assert await accounts.login("alice", b"wonderland") == "alice@example.test"
    assert await accounts.login("alice", b"other") is None
    assert accounts.directory.domains["example.test"].aliases["info"] == ("alice@example.test",)
    assert len(accounts.merged.conflicts) == 3
    for change in (
        accounts.set_password("alice", "x"),
        accounts.remove_user("alice"),
        accounts.set_alias("info@example.test", ["alice"]),
        accounts.remove_domain("second.test"),
    ):
        with pytest.raises(AccountsError, match="configuration file"):
            await change


@pytest.mark.parametrize("address", ["carol@nobody.test", "a b@example.test", "", "@example.test"])
async def test_addresses_that_cannot_be(accounts: Accounts, address: str) -> None:
    with pytest.raises(AccountsError):
        await accounts.add_user(address, "x")


async def test_hashes_from_elsewhere(accounts: Accounts) -> None:
    await accounts.add_user("bob@example.test", "{PLAIN}builder", hashed=True)
    assert await accounts.login("bob", b"builder") == "bob@example.test"
    with pytest.raises(AccountsError, match="known form"):
        await accounts.add_user("eve@example.test", "builder", hashed=True)


async def test_success_is_remembered_for_ten_minutes(
    accounts: Accounts, executor: Counting, clock: Clock
) -> None:
    assert await accounts.login("alice", b"wonderland")
    executor.calls = 0
    clock.time += REMEMBER - 1
    assert await accounts.login("alice@EXAMPLE.test", b"wonderland")
    assert executor.calls == 0
    clock.time += 1
    assert await accounts.login("alice", b"wonderland")
    assert executor.calls == 1


async def test_failure_is_never_remembered(accounts: Accounts, executor: Counting) -> None:
    for _ in range(2):
        assert await accounts.login("alice", b"wrong") is None
        assert await accounts.login("nobody", b"wrong") is None
        assert await accounts.login("alice", b"") is None
        assert await accounts.login("not an address", b"\xff") is None
    assert executor.calls == 6  # every name that fails costs a verification, known or not


async def test_equal_logins_share_one_verification(accounts: Accounts, executor: Counting) -> None:
    await accounts.add_user("bob@example.test", "builder")
    executor.calls = 0
    impatient = asyncio.ensure_future(accounts.login("bob", b"builder"))
    others = [asyncio.ensure_future(accounts.login("bob", b"builder")) for _ in range(20)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert set(await asyncio.gather(*others)) == {"bob@example.test"}
    assert executor.calls == 1


async def test_a_storm_is_put_off_not_refused(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "WAITING_MAX", 10)
    storm = [asyncio.ensure_future(accounts.login("alice", b"%d" % n)) for n in range(15)]
    answers = await asyncio.gather(*storm, return_exceptions=True)
    assert sum(isinstance(a, AccountsUnavailable) for a in answers) == 5
    assert await accounts.login("alice", b"wonderland")


def spoil(database: Database) -> None:
    database.close()
    Path(database.path).write_bytes(b"garbage")


async def test_a_sick_database_changes_nothing(accounts: Accounts, database: Database) -> None:
    await accounts.add_user("bob@example.test", "builder")
    spoil(database)
    before = accounts.directory
    with pytest.raises(AccountsUnavailable):
        await accounts.add_user("carol@example.test", "x")
    with pytest.raises(AccountsUnavailable):
        await accounts.refresh(CONFIG)
    assert accounts.directory is before
    assert await accounts.login("bob", b"builder")


async def test_role_mail_always_has_a_mailbox(database: Database, executor: Counting, clock: Clock) -> None:
    empty = Config.model_validate({"hostname": "h.test", "domains": {"example.test": {}}})
    accounts = make(empty, database, executor, clock)
    assert accounts.directory.postmaster == "postmaster@example.test"
    assert accounts.directory.domains["example.test"].mailboxes == {"postmaster"}
    await accounts.add_user("zoe@example.test", "x")
    clock.time += 1
    await accounts.add_user("adam@example.test", "x")
    assert accounts.directory.postmaster == "zoe@example.test"
    await accounts.refresh(empty.model_copy(update={"postmaster": "Adam"}))
    assert accounts.directory.postmaster == "adam@example.test"
    await accounts.refresh(empty.model_copy(update={"postmaster": "ghost"}))
    assert accounts.directory.postmaster == "zoe@example.test"
    assert "ghost@example.test" in accounts.merged.conflicts[0]
    await accounts.refresh(empty.model_copy(update={"postmaster": "The.Boss@Elsewhere.test"}))
    assert (
        accounts.directory.postmaster == "The.Boss@elsewhere.test"
    )  # other people's local parts keep their case
    assert accounts.merged.conflicts == ()


async def test_the_first_account_is_made_once(database: Database, executor: Counting, clock: Clock) -> None:
    nothing = make(Config(hostname="h.test"), database, executor, clock)
    assert await nothing.first_account() is None
    accounts = make(
        Config.model_validate({"hostname": "h.test", "domains": {"example.test": {}}}),
        database,
        executor,
        clock,
    )
    made = await accounts.first_account()
    assert made is not None
    assert made[0] == "alice@example.test"
    assert await accounts.login("alice", made[1].encode()) == "alice@example.test"
    assert await accounts.first_account() is None
