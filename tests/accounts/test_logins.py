"""Logins with every mechanism against real accounts: app passwords, SCRAM keys, rehash, tokens,
certificates."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import scramp
from accounts_office import Clock

from mailserver.accounts import passwords
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.authenticate import ANOTHER, WRONG, LoggedIn
from mailserver.accounts.database import NO_KEYS, Database, StoredUser
from mailserver.accounts.door import Door
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.sasl import Channel, offered
from mailserver.accounts.steps import Challenge, Refused, SaslError
from mailserver.config.accounts import Bearer
from mailserver.config.schema import Config
from mailserver.config.trust import Guard as Guarding
from mailserver.policy.guard import Guard

END_POINT = b"\x17" * 32
CONFIG = Config.model_validate(
    {
        "hostname": "mail.example.test",
        "domains": {"example.test": {}},
        "users": {"alice@example.test": {"password": "{PLAIN}wonderland"}},
        "accounts": {"channel_binding": True},
    }
)


# What a program that verifies tokens is: reads descriptor 3, prints an address.
TOKENS = """#!/bin/sh
case $(cat <&3) in
good) echo alice@example.test;; gone) printf ghost@example.test;; down) exit 111;; mute) ;; babble) yes;;
odd) echo nobody;; slow) sleep 60;; *) exit 1;;
esac
"""


@pytest.fixture
async def accounts(
    database: Database, executor: ThreadPoolExecutor, clock: Clock, tmp_path: Path
) -> Accounts:
    (tmp_path / "tokens").write_text(TOKENS)
    (tmp_path / "tokens").chmod(0o755)
    settings = {
        "program": str(tmp_path / "tokens"),
        "timeout": "1s",
        "scope": "mail",
        "discovery": "https://id.test/",
    }
    config = CONFIG.model_copy(update={"bearer": Bearer.model_validate(settings)})
    return Accounts(config, database, executor=executor, now=clock)


def b64(data: bytes | str) -> bytes:
    return base64.b64encode(data.encode() if isinstance(data, str) else data)


def tls(accounts: Accounts, **more: object) -> Channel:
    return accounts.channel(safe=True, end_point=END_POINT, **more)  # type: ignore[arg-type]  # only identities


async def log_in(
    accounts: Accounts, mechanism: str, user: str, password: str, service: str = "smtp"
) -> LoggedIn | Refused:
    """A SCRAM login by an independent client."""
    channel = tls(accounts) if mechanism.endswith("PLUS") else accounts.channel(safe=False)
    attempt = accounts.authentication(mechanism, channel, service=service, client="192.0.2.7")
    binding = ("tls-server-end-point", END_POINT) if channel.bindings else None
    client = scramp.ScramClient([mechanism], user, password, channel_binding=binding)
    said = await attempt.step(b64(client.get_client_first()))
    assert isinstance(said, Challenge)
    client.set_server_first(said.data.decode())
    said = await attempt.step(b64(client.get_client_final()))
    if isinstance(said, Refused):
        return said
    assert isinstance(said, Challenge)
    client.set_server_final(said.data.decode())
    end = await attempt.step(b"")
    assert isinstance(end, LoggedIn | Refused)
    return end


async def settled(accounts: Accounts) -> None:
    """What a login has set going is done."""
    while accounts.gate._tasks:
        await asyncio.gather(*accounts.gate._tasks)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"])
async def test_scram_for_every_kind_of_account(accounts: Accounts, mechanism: str) -> None:
    await accounts.add_user("bob@example.test", "builder")
    await accounts.add_user(
        "carol@example.test", passwords.hash_password("sing", "scram-sha-256"), hashed=True
    )
    for user, password in (("alice", "wonderland"), ("Bob@Example.test", "builder")):
        done = await log_in(accounts, mechanism, user, password)
        assert done == LoggedIn(f"{user.lower().partition('@')[0]}@example.test")
        assert isinstance(await log_in(accounts, mechanism, user, password + "!"), Refused)
    if mechanism != "SCRAM-SHA-1":
        assert await log_in(accounts, mechanism, "carol", "sing") == LoggedIn("carol@example.test")
    assert await log_in(accounts, mechanism, "nobody", "x") == Refused("nobody", WRONG)


async def test_a_digest_opens_what_is_kept_in_clear(accounts: Accounts) -> None:
    """RFC 1939 section 7, with its own example; RFC 6856 section 2.2: SASLprep."""
    await accounts.add_user("bob@example.test", "tanstaaf")
    await accounts.add_user("carol@example.test", "{SSHA}dGFuc3RhYWY=", hashed=True)
    for name, password in (("mrose", "tanstaaf"), ("dodo", "I\u00adX"), ("none", "")):
        await accounts.add_user(f"{name}@example.test", "{PLAIN}" + (password or " "), hashed=True)
    stamp = b"<1896.697170952@dbc.mtview.ca.us>"
    digest = b"c4c9334bac560ecc979e58001b3e22fb"
    gate = accounts.gate
    assert await gate.digest("Mrose@Example.test", stamp, digest) == "mrose@example.test"
    assert await gate.digest("mrose", stamp, digest) == "mrose@example.test"
    mapped = hashlib.md5(stamp + b"IX").hexdigest().encode()
    assert await gate.digest("dodo", stamp, mapped) == "dodo@example.test"
    stored = hashlib.md5(stamp + b"dGFuc3RhYWY=").hexdigest().encode()  # a hash is no password
    assert await gate.digest("carol", stamp, stored) is None
    for name in ("mrose", "bob", "carol", "alice", "nobody", "not an address", ""):
        for wrong in (b"", b"\xff", digest[:-1] + b"0", hashlib.md5(stamp).hexdigest().encode()):
            assert await gate.digest(name, stamp, wrong) is None
        assert name == "mrose" or await gate.digest(name, stamp, digest) is None
        assert await gate.digest(name, b"<another@stamp.test>", digest) is None


async def test_the_decoy_survives_a_restart(
    accounts: Accounts, database: Database, executor: ThreadPoolExecutor, clock: Clock
) -> None:
    ring = await accounts.gate.key_ring("nobody", "SHA-256", "smtp")
    again = Accounts(CONFIG, Database(database.path), executor=executor, now=clock)
    assert await again.gate.key_ring("nobody@example.test", "SHA-256", "smtp") == ring
    await again.add_user("nobody@example.test", "now somebody")
    made = await again.gate.key_ring("nobody", "SHA-256", "smtp")
    assert made.keys[0][1].salt == ring.keys[0][1].salt
    assert made != ring


async def test_scram_is_offered_when_it_works_for_everybody(accounts: Accounts) -> None:
    assert accounts.offers_scram
    await accounts.add_user("old@example.test", passwords.hash_password("secret"), hashed=True)
    assert not accounts.offers_scram
    assert offered(accounts.channel(safe=True)) == ("OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")
    assert await accounts.login("old", b"secret")
    await settled(accounts)
    assert accounts.offers_scram
    assert await log_in(accounts, "SCRAM-SHA-256", "old", "secret") == LoggedIn("old@example.test")


@pytest.mark.parametrize("scheme", ["ssha", "sha512-crypt", "plain", "scram-sha-1"])
async def test_weak_forms_are_replaced_at_login(accounts: Accounts, database: Database, scheme: str) -> None:
    await accounts.add_user("old@example.test", passwords.hash_password("secret", scheme), hashed=True)
    before = accounts.directory
    assert await accounts.login("old", b"wrong") is None
    assert not accounts.gate._tasks
    assert await accounts.login("old", b"secret")
    await settled(accounts)
    (stored,) = Database(database.path).users()
    assert stored.password.startswith("$argon2id$")
    assert stored.keys.sha256
    assert accounts.directory is before
    assert await accounts.login("old", b"secret")
    assert not accounts.gate._tasks


async def test_a_strong_hash_is_kept_and_only_gets_keys(accounts: Accounts, database: Database) -> None:
    strong = passwords.hash_password("secret", "yescrypt")
    await accounts.add_user("old@example.test", strong, hashed=True)
    assert await accounts.login("old", b"secret")
    await settled(accounts)
    (stored,) = Database(database.path).users()
    assert stored.password == strong
    assert stored.keys != NO_KEYS


async def test_rehash_may_be_forbidden_and_never_overwrites(accounts: Accounts, database: Database) -> None:
    await accounts.add_user("old@example.test", "{PLAIN}secret", hashed=True)
    account = accounts.merged.accounts["old@example.test"]
    await accounts.set_password("old@example.test", "changed meanwhile")
    await accounts._renew(account, "secret")
    assert await accounts.login("old", b"secret") is None
    await accounts.set_password("old@example.test", "{PLAIN}secret", hashed=True)
    accounts.gate.rehash = False
    assert await accounts.login("old", b"secret")
    assert not accounts.gate._tasks


async def test_app_passwords_open_what_they_are_for(accounts: Accounts, clock: Clock) -> None:
    made, password = await accounts.add_app_password("alice", "phone", ["pop3"])
    assert made.scopes == ("pop3",)
    both = (await accounts.add_app_password("alice", "laptop"))[1]
    assert await accounts.login("alice", password.encode(), "pop3", "192.0.2.7") == "alice@example.test"
    assert await accounts.login("alice", password.encode(), "smtp") is None
    assert await accounts.login("alice", password.encode()) is None
    for service in ("smtp", "submission", "pop3"):
        assert await accounts.login("alice", both.encode(), service) == "alice@example.test"
        assert await log_in(accounts, "SCRAM-SHA-256", "alice", both, service) == LoggedIn(
            "alice@example.test"
        )
    assert isinstance(await log_in(accounts, "SCRAM-SHA-1", "alice", password, "smtp"), Refused)
    assert await accounts.login("alice", b"wonderland", "pop3")
    await accounts.remove_app_password("alice", "phone")
    assert await accounts.login("alice", password.encode(), "pop3") is None
    for wrong in (
        ("alice", "laptop", ()),
        ("alice", " x", ()),
        ("alice", "x", ["imap"]),
        ("nobody", "x", ()),
    ):
        with pytest.raises(AccountsError):
            await accounts.add_app_password(*wrong)  # type: ignore[arg-type]  # three of them


async def test_app_passwords_need_no_key_of_the_account(accounts: Accounts) -> None:
    """The account has an argon2 hash alone; its app passwords still log in by SCRAM, all of them."""
    always = CONFIG.accounts.model_copy(update={"scram": "always"})
    await accounts.refresh(CONFIG.model_copy(update={"accounts": always}))
    await accounts.add_user("old@example.test", passwords.hash_password("secret"), hashed=True)
    first, second = [(await accounts.add_app_password("old", name))[1] for name in ("a", "b")]
    for password in (first, second):
        assert await log_in(accounts, "SCRAM-SHA-256", "old", password) == LoggedIn("old@example.test")
    assert await accounts.login("old", b"secret")
    await settled(accounts)
    for password in (first, second, "secret"):
        assert await log_in(accounts, "SCRAM-SHA-256", "old", password) == LoggedIn("old@example.test")


async def test_last_use_is_written_once_a_minute(
    accounts: Accounts, clock: Clock, database: Database
) -> None:
    password = (await accounts.add_app_password("alice", "phone"))[1].encode()
    assert (await accounts.list_app_passwords("alice"))[0].used is None

    async def used(client: str) -> tuple[float | None, str | None]:
        assert await accounts.login("alice", password, "pop3", client)
        await settled(accounts)
        (one,) = await accounts.list_app_passwords("alice")
        return one.used, one.used_by

    assert await used("192.0.2.7") == (1000.0, "pop3 192.0.2.7")
    clock.time += 59
    assert await used("192.0.2.8") == (1000.0, "pop3 192.0.2.7")
    clock.time += 1
    assert await used("192.0.2.8") == (1060.0, "pop3 192.0.2.8")


async def test_app_passwords_die_with_their_account(accounts: Accounts, database: Database) -> None:
    await accounts.add_user("bob@example.test", "builder")
    password = (await accounts.add_app_password("bob", "phone"))[1].encode()
    await accounts.set_password("bob", "other")
    assert await accounts.login("bob", password, "pop3")
    await accounts.remove_user("bob")
    await accounts.add_user("bob@example.test", "another bob")
    assert await accounts.login("bob", password, "pop3") is None
    assert Database(database.path).app_passwords() == []


async def test_changing_a_password_by_showing_the_old_one(accounts: Accounts) -> None:
    await accounts.add_user("bob@example.test", "builder")
    app_password = (await accounts.add_app_password("bob", "phone"))[1]
    for wrong in ("x", app_password, ""):
        with pytest.raises(AccountsError, match="old password is wrong"):
            await accounts.set_password("bob", "new", old=wrong)
    with pytest.raises(AccountsError, match="old password is wrong"):
        await accounts.set_password("nobody", "new", old="x")
    await accounts.set_password("bob", "new", old="builder")
    assert await accounts.login("bob", b"new")
    assert await log_in(accounts, "SCRAM-SHA-256", "bob", "new") == LoggedIn("bob@example.test")


@pytest.mark.parametrize(
    ("mechanism", "lines", "expected"),
    [
        ("PLAIN", ["\0alice\0wonderland"], LoggedIn("alice@example.test")),
        ("PLAIN", ["Alice@EXAMPLE.test\0alice\0wonderland"], LoggedIn("alice@example.test")),
        ("PLAIN", ["bob\0alice\0wonderland"], Refused("alice", ANOTHER)),
        ("PLAIN", ["\0alice\0x"], Refused("alice", WRONG)),
        ("LOGIN", ["alice", "wonderland"], LoggedIn("alice@example.test")),
        ("EXTERNAL", ["alice@example.test"], LoggedIn("alice@example.test")),
        ("EXTERNAL", ["ghost@example.test"], Refused("ghost@example.test", "no such account")),
        ("EXTERNAL", ["bob"], Refused("bob", "the certificate does not name this account")),
        ("OAUTHBEARER", ["n,,\x01auth=Bearer good\x01\x01"], LoggedIn("alice@example.test")),
        ("OAUTHBEARER", ["n,a=bob@x,\x01auth=Bearer good\x01\x01"], Refused("alice@example.test", ANOTHER)),
        ("OAUTHBEARER", ["n,,\x01auth=Bearer gone\x01\x01"], Refused("ghost@example.test", "no such account")),
        ("XOAUTH2", ["user=alice\x01auth=Bearer good\x01\x01"], LoggedIn("alice@example.test")),
        ("XOAUTH2", ["user=alice\x01auth=Bearer bad\x01\x01", ""], Refused("alice", "the token is not valid")),
    ],
)  # fmt: skip
async def test_the_other_mechanisms(
    accounts: Accounts, mechanism: str, lines: list[str], expected: object
) -> None:
    channel = tls(accounts, identities=("alice@example.test", "ghost@example.test"))
    attempt = accounts.authentication(mechanism.lower(), channel, service="smtp", client="192.0.2.7")
    answers = [await attempt.step(b64(line)) for line in lines]
    assert answers[-1] == expected
    assert attempt.mechanism == mechanism


@pytest.mark.parametrize(
    ("token", "why"),
    [("down", "111"), ("mute", "no address"), ("babble", "1 s"), ("odd", "no address"), ("slow", "1 s")],
)
async def test_a_program_that_cannot_say_whose_a_token_is(accounts: Accounts, token: str, why: str) -> None:
    attempt = accounts.authentication("XOAUTH2", tls(accounts), service="smtp", client="")
    with pytest.raises(AccountsUnavailable, match=why):
        await attempt.step(b64(f"user=alice\x01auth=Bearer {token}\x01\x01"))


async def test_cancelled(accounts: Accounts) -> None:
    attempt = accounts.authentication("SCRAM-SHA-256", tls(accounts), service="smtp", client="")
    await attempt.step(b64("n,,n=alice,r=abc"))
    with pytest.raises(SaslError) as caught:
        await attempt.step(b"*")
    assert caught.value.cancelled
    assert not attempt.failed
    assert attempt.user == "alice"


async def test_leaving_after_an_error_is_a_failed_login(accounts: Accounts) -> None:
    """A client that has been told why may cancel or hang up; both are to be counted."""
    attempt = accounts.authentication("SCRAM-SHA-256", tls(accounts), service="smtp", client="")
    assert await attempt.step(b64("y,,n=alice,r=abc")) == Challenge(b"e=server-does-support-channel-binding")
    assert attempt.failed
    assert isinstance(await attempt.step(b"*"), Refused)


def test_a_file_of_the_first_version_is_brought_up_to_date(database: Database) -> None:
    from mailserver.accounts.database import MIGRATIONS

    with sqlite3.connect(database.path) as old:
        old.executescript(MIGRATIONS[0])
        old.execute("INSERT INTO users VALUES ('a@b.test', '{PLAIN}x', 1.0)")
        old.execute(f"PRAGMA application_id = {0x6D61696C}")
        old.execute("PRAGMA user_version = 1")
    old.close()
    assert database.users() == [StoredUser("a@b.test", "{PLAIN}x", 1.0)]
    database.set_password("a@b.test", "{PLAIN}y", instead_of="{PLAIN}x")
    with pytest.raises(AccountsError):
        database.set_password("a@b.test", "{PLAIN}z", instead_of="{PLAIN}x")
    assert database.secret("s") == Database(database.path).secret("s")


async def test_other_spellings_of_an_account_are_no_other_account_to_the_guard(accounts: Accounts) -> None:
    guard = Guard(Guarding())
    door = Door(accounts.gate, accounts.channel, guard, now=Clock())
    for name in (
        "alice@example.test",
        "alice",
        "ALICE@Example.test",
        '"alice"@example.test',
        '"a\\lice"@example.test',
    ):
        said = await door.password(name, b"wrong", service="pop3", client="192.0.2.1")
        assert isinstance(said, Refused)
    assert [(row.account, row.failures) for row in guard.list(1000.0)][:1] == [("alice@example.test", 5)]
    assert guard.ask("192.0.2.1", "alice@example.test", 1000.0).wait > 0
