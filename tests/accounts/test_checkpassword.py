"""Domains kept by programs: qmail's checkpassword interface, a program for who exists, and their failures."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailserver.accounts import login
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.backends.checkpassword import Checkpassword
from mailserver.accounts.backends.postgresql import PostgreSql
from mailserver.accounts.backends.remembered import RETRY, Remembered
from mailserver.accounts.database import Database
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.config.schema import Config
from mailserver.message.address import parse
from mailserver.policy.admission import Unavailable
from mailserver.routing.resolve import Leaves, Unknown

# What a checkpassword program is: reads descriptor 3, runs its arguments when the password is right.
PROGRAM = """#!/bin/sh
[ -e "$0.down" ] && exit 111
[ -e "$0.slow" ] && sleep 60
env >"$0.env"
tr '\\0' '\\n' <&3 >"$0.read"
{ read -r user; read -r password; read -r stamp; } <"$0.read"
[ "$user" = alice@prog.test ] && [ "$password" = secret ] || exit 1
exec "$@"
"""
EXISTS = """#!/bin/sh
[ -e "${0%exists}check.down" ] && exit 111
case $ADDRESS in alice@prog.test|bob@prog.test) exit 0;; *) exit 1;; esac
"""


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


class Site:
    """Accounts whose domain prog.test is kept by two programs."""

    def __init__(self, folder: Path, executor: ThreadPoolExecutor, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        for name, text in (("check", PROGRAM), ("exists", EXISTS)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        backend = {
            "type": "checkpassword", "domains": ["prog.test"], "exists": [str(folder / "exists")],
            "program": [str(folder / "check"), "/bin/true"], "timeout": "5s",
        }  # fmt: skip
        aliases = {"team": ["alice@prog.test", "ghost@prog.test"], "info": "ghost@prog.test"}
        self.config = Config.model_validate(
            {
                "hostname": "mail.example.test",
                "domains": {"example.test": {"aliases": aliases}, "prog.test": {"catch_all": "bob"}},
                "users": {"local@prog.test": {"password": "{PLAIN}mine"}},
                "backends": {"programs": backend},
            }
        )
        database = Database(str(folder / "accounts.sqlite"))
        self.accounts = Accounts(self.config, database, executor=executor, now=clock)

    def switch(self, name: str, *, on: bool = True) -> None:
        file = self.folder / f"check.{name}"
        file.touch() if on else file.unlink()

    async def route(self, address: str) -> object:
        """Mailbox keys, or the word for where mail goes instead."""
        found = self.accounts.resolve(parse(address))
        if not isinstance(found, Leaves | Unknown):
            found = await found  # type: ignore[misc]  # neither foreign nor a loop here
        if isinstance(found, Leaves):
            return sorted(leaf.address for leaf in found.leaves)
        return type(found)


@pytest.fixture
async def site(tmp_path: Path) -> Iterator[Site]:  # type: ignore[misc]  # pytest-asyncio drives it
    with ThreadPoolExecutor(2) as executor:
        site = Site(tmp_path, executor, Clock())
        yield site
        site.accounts.close()


async def test_a_login_by_a_program(site: Site) -> None:
    assert await site.accounts.login("Alice@prog.test", b"secret", "pop3") == "alice@prog.test"
    assert (site.folder / "check.read").read_bytes() == b"alice@prog.test\nsecret\n1000\n"
    environment = (site.folder / "check.env").read_text()
    assert {line.partition("=")[0] for line in environment.splitlines()} <= {
        "PATH",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    }
    for wrong in (b"Secret", b"sec\0ret", b"x" * 600):
        assert await site.accounts.login("alice@prog.test", wrong) is None
    assert await site.accounts.login("ghost@prog.test", b"secret") is None
    asked = (site.folder / "check.read").read_bytes()  # no name is told from others by what is done for it
    assert asked == b"ghost@prog.test\nsecret\n1000\n"
    assert await site.accounts.login("local@prog.test", b"mine") == "local@prog.test"


async def test_who_does_not_exist_cannot_log_in_whatever_the_program_says(site: Site) -> None:
    """`exists` decides; and a good login is not remembered beyond the account."""
    assert await site.accounts.login("alice@prog.test", b"secret")
    (site.folder / "exists").write_text("#!/bin/sh\nexit 1\n")
    site.clock.time += 301.0  # fresh
    assert await site.accounts.login("alice@prog.test", b"secret") is None


async def test_a_program_that_cannot_say_is_no_wrong_password(site: Site) -> None:
    assert await site.accounts.login("alice@prog.test", b"secret")
    site.switch("down")
    for user, password in (("alice@prog.test", b"wrong"), ("bob@prog.test", b"x"), ("ghost@prog.test", b"x")):
        with pytest.raises(AccountsUnavailable):
            await site.accounts.login(user, password)
    assert await site.accounts.login("alice@prog.test", b"secret")
    site.clock.time += login.REMEMBER + 1  # not fresh any more, but nobody says otherwise
    assert await site.accounts.login("alice@prog.test", b"secret")
    site.clock.time += 86_400
    with pytest.raises(AccountsUnavailable):
        await site.accounts.login("alice@prog.test", b"secret")
    site.switch("down", on=False)
    assert await site.accounts.login("alice@prog.test", b"secret")


async def test_who_gets_mail(site: Site) -> None:
    """Mailbox before catch-all, aliases through, as everywhere; and no answer is not "no such user"."""
    assert await site.route("alice@prog.test") == ["alice@prog.test"]
    assert await site.route("local@prog.test") == ["local@prog.test"]
    assert await site.route("anybody@prog.test") == ["bob@prog.test"]
    assert await site.route("team@example.test") == ["alice@prog.test", "bob@prog.test"]
    assert await site.route("nobody@example.test") is Unknown
    site.switch("down")
    assert await site.route("alice@prog.test") == ["alice@prog.test"]
    assert await site.route("somebody@prog.test") is Unavailable
    site.clock.time += 3600
    assert await site.route("alice@prog.test") == ["alice@prog.test"]
    assert await site.route("anybody@prog.test") is Unavailable


async def test_app_passwords_work_there_too(site: Site) -> None:
    made, password = await site.accounts.add_app_password("alice@prog.test", "phone")
    assert made.address == "alice@prog.test"
    assert await site.accounts.login("alice@prog.test", password.encode(), "pop3") == "alice@prog.test"
    with pytest.raises(AccountsError, match="no account"):
        await site.accounts.add_app_password("ghost@prog.test", "phone")
    assert not site.accounts.offers_scram


async def test_a_slow_program_is_killed_with_its_children(site: Site) -> None:
    site.switch("slow")
    program = Checkpassword(
        "p", [str(site.folder / "check"), "/bin/true"], ["/bin/true"],
        local_only=True, timeout=0.2, at_once=2, now=time.time,
    )  # fmt: skip
    before = time.monotonic()
    answers = await asyncio.gather(
        *(program.opens("a@prog.test", b"x") for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(answer, AccountsUnavailable) for answer in answers)
    assert 0.4 <= time.monotonic() - before < 5  # two at once
    mine = str(site.folder / "check").encode()
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and mine in _command_line(pid)]
    assert left == []


def _command_line(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("command", ["/nonexistent", "/bin/sh -c kill\\ -9\\ $$", "/bin/sh -c exit\\ 2"])
async def test_a_broken_program_is_no_verdict(command: str) -> None:
    words = command.replace("\\ ", "\0").split(" ")
    program = Checkpassword(
        "p", [word.replace("\0", " ") for word in words], ["/bin/false"],
        local_only=True, timeout=5.0, at_once=1, now=time.time,
    )  # fmt: skip
    with pytest.raises(AccountsUnavailable):
        await program.opens("a@prog.test", b"x")
    assert await program.find("a@prog.test") is None


class Scripted:
    """A backend that answers as told."""

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.holds: dict[str, Secret] = {}
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, address: str) -> Secret | None:
        self.asked.append(address)
        await self.gate.wait()
        if self.down:
            raise AccountsUnavailable("down")
        return self.holds.get(address)

    def stand_in(self, address: str) -> None:
        return None

    def close(self) -> None:
        pass


async def test_what_is_remembered_and_for_how_long() -> None:
    clock, backend = Clock(), Scripted()
    backend.holds["a@x.test"] = "hash"
    remembered = Remembered(backend, fresh=60.0, stale=1000.0, size=3, now=clock)
    assert remembered.peek("a@x.test") is None
    backend.gate.clear()
    several = [asyncio.ensure_future(remembered.find("a@x.test")) for _ in range(10)]
    await asyncio.sleep(0)
    several[0].cancel()
    backend.gate.set()
    assert await asyncio.gather(*several[1:]) == ["hash"] * 9
    assert await remembered.find("b@x.test") is None
    assert backend.asked == ["a@x.test", "b@x.test"]
    assert (remembered.peek("a@x.test"), remembered.peek("b@x.test")) == (True, False)
    clock.time += 60
    assert remembered.peek("a@x.test") is None
    backend.down = True
    assert await remembered.find("a@x.test") == "hash"
    assert await remembered.find("a@x.test") == "hash"
    assert backend.asked.count("a@x.test") == 2  # not again within RETRY seconds
    with pytest.raises(AccountsUnavailable):
        await remembered.find("b@x.test")
    with pytest.raises(AccountsUnavailable):
        await remembered.find("a@x.test", latest=True)
    clock.time += RETRY
    backend.down = False
    del backend.holds["a@x.test"]
    assert await remembered.find("a@x.test") is None
    for name in "cdef":
        await remembered.find(f"{name}@x.test")
    assert remembered.peek("a@x.test") is None  # the least recently used have left
    assert remembered.peek("f@x.test") is False


def test_a_driver_that_is_there_but_cannot_be_loaded_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asyncpg.py").write_text('raise PermissionError(13, "Permission denied", "protocol.so")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "asyncpg", raising=False)
    with pytest.raises(
        AccountsError, match=r"^backends\.db: .* cannot be loaded: .*Permission denied.*protocol"
    ):
        PostgreSql("db", "postgresql://nowhere", "", timeout=1.0, at_once=1)
