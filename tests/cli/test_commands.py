"""The commands as people and scripts run them: own processes, real sockets, a real database."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailserver import __version__
from mailserver.accounts.accounts import Accounts
from mailserver.accounts.database import Database
from mailserver.cli.failure import explained
from mailserver.cli.output import escaped
from mailserver.config.load import load
from mailserver.control.account_commands import account_commands
from mailserver.control.server import ControlServer, Refused
from mailserver.message.envelope import Envelope, Recipient, Remote
from mailserver.queue.spool import Spool
from mailserver.store.durable import Durable, Job

CONFIG = """\
hostname = "mail.example.test"
[domains."example.test".aliases]
info = "alice"
[users."alice@example.test"]
password = "{PLAIN}wonderland"
[[relay]]
from = "10.0.0.0/8"
action = "relay"
"""


ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


async def _smtp_greeting(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.test ESMTP\r\n")
    writer.close()
    await writer.wait_closed()


async def _pop3_refusal(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"-ERR too many\r\n")
    writer.close()
    await writer.wait_closed()


class Running:
    """A control socket with real accounts behind it, and listeners that answer well and badly, in a
    thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listeners: list[dict[str, Any]] = []
        self.retried: list[Any] = []
        self.errors: list[BaseException] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        assert self.errors == []

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        data = self.folder / "data"
        await asyncio.to_thread(data.mkdir, exist_ok=True)
        database = Database(str(data / "accounts.sqlite"))
        with ThreadPoolExecutor(2) as executor:
            config = load(self.folder / "config.toml").config
            self.accounts = Accounts(config, database, executor=executor, now=lambda: 1.0)
            commands = {"status": self._status, "health": self._health, "queue.list": self._queue}
            commands |= {"queue.retry": self._retry, **account_commands(self.accounts)}
            control = ControlServer(str(data / "control.sock"), commands, on_error=self.errors.append)
            await control.start()
            good = await asyncio.start_server(_smtp_greeting, "127.0.0.1", 0)
            bad = await asyncio.start_server(_pop3_refusal, "127.0.0.1", 0)
            self.ports = [s.sockets[0].getsockname()[1] for s in (good, bad)]
            self._ready.set()
            await self._end.wait()
            await control.close()
            here = asyncio.current_task()
            while greeters := asyncio.all_tasks() - {here}:  # one may be about to begin another
                await asyncio.gather(*greeters, return_exceptions=True)  # a client may reset its connection
            good.close()  # only now: asyncio drops a connection that was accepted before and is not made yet
            bad.close()
        database.close()

    async def _status(self, _: dict[str, Any]) -> Any:
        return {"pid": 1, "queue": {"queued": 2, "loading": True}, "listeners": ["smtp 127.0.0.1:25\x1b[31m"]}

    async def _health(self, _: dict[str, Any]) -> Any:
        return self.listeners

    async def _queue(self, _: dict[str, Any]) -> Any:
        waiting = {"address": "x@remote.test", "state": "pending", "last_reply": "450 \x1b]0;later\x07"}
        done = {"address": "y@remote.test", "state": "delivered", "last_reply": "250 ok"}
        message = {"id": "1K5Q3ZB8W0QJ4", "sender": None, "recipients": [done, waiting], "size": 100}
        return [message | {"accepted": 1.0, "next_attempt": 2.0, "attempts": 1, "held": False}]

    async def _retry(self, args: dict[str, Any]) -> Any:
        if args["ids"] == ["nope"]:
            raise Refused("not in the queue: nope")
        self.retried.append(args["ids"])
        return {"count": 1}


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with Running(folder) as server:
        yield server


def test_users_domains_and_aliases_without_a_server(run: Run, folder: Path) -> None:
    done = run("domain", "add", "Second.test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "added second.test (the server is not running; in effect when it starts)\n"
    assert run("user", "add", "bob@second.test", "--password-stdin", stdin="builder\n").returncode == 0
    assert run("alias", "set", "team@second.test", "bob", "x@Remote.test").returncode == 0
    users = json.loads(run("user", "list", "--json").stdout)
    assert [(u["address"], u["source"]) for u in users] == [
        ("alice@example.test", "config"),
        ("bob@second.test", "database"),
    ]
    aliases = json.loads(run("alias", "list", "second.test", "--json").stdout)
    assert [(a["address"], a["targets"]) for a in aliases] == [
        ("team@second.test", ["bob@second.test", "x@remote.test"])
    ]
    refused = run("domain", "remove", "second.test")
    assert refused.returncode == 1
    assert "still has 1 accounts" in refused.stderr
    assert (
        run("alias", "set", "only@second.test", "team2@second.test", "bob").returncode == 1
    )  # nobody has team2
    assert run("alias", "set", "only@second.test", "bob").returncode == 0
    orphan = run("user", "remove", "bob@second.test")  # team@ still leads to x@remote.test
    assert (orphan.returncode, orphan.stderr) == (
        1, "mailserver: mail for only@second.test would lead nowhere: remove or change that first, or say --force\n",
    )  # fmt: skip
    removed = run("user", "remove", "bob@second.test", "--force")
    nowhere = run("explain", "--from", "a@b.test", "--to", "only@second.test", "--client", "192.0.2.1")
    assert "reply: 550 5.1.1" in nowhere.stdout
    assert "its mail stays" in removed.stdout
    assert (folder / "data" / "accounts.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_same_through_the_running_server(run: Run, running: Running) -> None:
    done = run("user", "add", "bob@example.test", "--password-stdin", stdin="builder\n")
    assert done.stdout == "added bob@example.test (in effect now)\n"
    assert "bob" in running.accounts.directory.domains["example.test"].mailboxes
    assert run("user", "passwd", "bob@example.test", "--password-stdin", stdin="other\n").returncode == 0
    again = run("user", "add", "bob@example.test", "--password-stdin", stdin="x\n")
    assert (again.returncode, again.stderr) == (
        1,
        "mailserver: the account bob@example.test exists already\n",
    )
    table = run("user", "list").stdout.splitlines()
    assert table[0].split() == ["ADDRESS", "KEPT", "IN", "CREATED"]
    assert [line.split()[0] for line in table[1:]] == ["alice@example.test", "bob@example.test"]


def test_wrong_usage_and_wrong_configuration_are_2(run: Run, folder: Path) -> None:
    assert run("user", "frobnicate").returncode == 2
    assert run("user", "add", "bob@example.test", stdin="x").returncode == 2  # no terminal to ask on
    assert run("explain", "--from", "a@b.test", "--to", "c@d.test", "--client", "nonsense").returncode == 2
    assert run("check").returncode == 0
    (folder / "config.toml").write_text(CONFIG + 'actoin = "relay"\n[limits]\nmessage_size = "big"\n')
    for command in (("check",), ("user", "list")):
        done = run(*command)
        assert done.returncode == 2
        faults = done.stderr.splitlines()
        assert faults[0].startswith("config.toml:9: ")
        assert faults[1].startswith("config.toml:11: ")
        assert "Traceback" not in done.stderr
    missing = run("check", "-c", "elsewhere.toml")
    assert missing.returncode == 2
    assert missing.stderr.startswith("elsewhere.toml:1: ")


def test_a_spoilt_configuration_does_not_lock_us_out(run: Run, running: Running, folder: Path) -> None:
    (folder / "config.toml").write_text("nonsense = 1\n" + CONFIG)
    listed = run("queue", "list")
    assert listed.returncode == 0
    assert listed.stderr == "the queue is still being loaded: there is more of it\n"
    assert run("status").returncode == 0
    assert run("reload").returncode == 2


def test_the_configuration_is_found_by_its_variable(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "config.toml").rename(folder / "other.toml")
    assert run("user", "list").returncode == 2
    assert run("user", "list", "-c", "other.toml").returncode == 0
    monkeypatch.setenv("MAILSERVER_CONFIG", "other.toml")
    assert run("user", "list").returncode == 0


def test_a_damaged_database_is_told_and_left(run: Run, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "accounts.sqlite").write_bytes(b"garbage")
    for command in (("user", "list"), ("domain", "add", "x.test"), ("check",)):
        done = run(*command)
        assert done.returncode == 1
        assert "accounts.sqlite is damaged" in done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "data" / "accounts.sqlite").read_bytes() == b"garbage"


def test_when_no_server_runs(run: Run) -> None:
    assert run("status").returncode == 1
    assert json.loads(run("status", "--json").stdout) == {"running": False}
    for command in (("health",), ("stop",), ("reload",), ("queue", "retry")):
        done = run(*command)
        assert done.returncode == 1
        assert re.fullmatch(
            r"mailserver: the server is not running \(no server listens on .*/control\.sock\)\n", done.stderr
        )
    assert json.loads(run("queue", "list", "--json").stdout) == []


def test_explain_needs_no_server(run: Run) -> None:
    told = run("explain", "--from", "x@remote.test", "--to", "info@example.test", "--client", "203.0.113.9")
    assert told.returncode == 0
    assert "info@example.test is an alias of alice@example.test" in told.stdout
    relayed = run("explain", "--from", "", "--to", "x@remote.test", "--client", "10.1.1.1", "--json")
    answer = json.loads(relayed.stdout)
    assert answer["permitted"] is True
    assert answer["rule"] == "config.toml:6 [[relay]] 10.0.0.0/8"


def test_the_postmaster_may_be_elsewhere(run: Run, folder: Path) -> None:
    """RFC 5321 4.5.1: the mail is accepted; who reads it is the administrator's choice, and is told what it means."""
    (folder / "config.toml").write_text('postmaster = "boss@remote.test"\n' + CONFIG)
    told = json.loads(run("explain", "--from", "", "--to", "abuse@example.test", "--json").stdout)
    assert [leaf["address"] for leaf in told["leaves"]] == ["boss@remote.test"]
    checked = run("check")
    assert checked.returncode == 0
    assert "config.toml:1: postmaster: not in a domain of ours" in checked.stderr


def test_health_looks_at_every_listener(run: Run, running: Running) -> None:
    good, bad = running.ports
    smtp = {"service": "smtp", "host": "127.0.0.1", "port": good, "tls": False, "begins_with": "nothing"}
    running.listeners = [smtp, smtp | {"host": "0.0.0.0"}]
    assert run("health").returncode == 0
    running.listeners = [smtp, smtp | {"service": "pop3", "port": bad}]
    done = run("health", "--json")
    assert done.returncode == 1
    assert [answer["healthy"] for answer in json.loads(done.stdout)] == [True, False]
    running.listeners = [smtp | {"tls": True}]
    assert run("health").returncode == 1
    running.listeners = [smtp | {"begins_with": "refused", "port": bad}]
    assert run("health").stdout.endswith("for proxies only\n")


def test_nothing_from_outside_reaches_the_terminal_raw(run: Run, running: Running) -> None:
    for command in (("status",), ("status", "--json"), ("queue", "list"), ("queue", "list", "--json")):
        done = run(*command)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
    row = run("queue", "list").stdout.splitlines()[1]
    assert row.split()[0] == "1K5Q3ZB8W0QJ4"
    assert "x@remote.test" in row
    assert escaped("a\tb\u202ec\n") == "a\\tb\\u202ec\\n"


def test_queue_verbs(run: Run, running: Running) -> None:
    assert run("queue", "retry").stdout == "1 message tried now\n"
    assert run("queue", "retry", "A", "B").returncode == 0
    assert running.retried == [None, ["A", "B"]]
    assert run("queue", "retry", "nope").stderr == "mailserver: not in the queue: nope\n"
    assert run("queue", "hold").returncode == 2


async def lay_into_spool(root: str, *ids: str) -> None:
    durable, spool = Durable(asyncio.get_running_loop()), Spool(root, emit=lambda _: None)
    assert list(spool.load()) == []
    for number, name in enumerate(ids):
        waiting = Recipient(1, "x@remote.test", Remote("remote.test"), last_reply="450 later")
        envelope = Envelope(name, None, [waiting], accepted=float(-number), size=5)
        await durable.commit(Job(files=(spool.new_file(envelope, (b"text\n",)),)))
    durable.close()


def test_the_queue_on_disk_is_shown_and_not_touched(run: Run, folder: Path) -> None:
    root = folder / "data" / "queue"
    root.mkdir(parents=True)
    asyncio.run(lay_into_spool(str(root), "1K5Q3ZB8W0QJ4", "1K5Q3ZB8W0QJ5"))
    (root / "msg" / "damaged").write_bytes(b"garbage")
    before = sorted(root.rglob("*"))
    done = run("queue", "list", "--json")
    assert "not running" in done.stderr
    messages = json.loads(done.stdout)
    assert [message["id"] for message in messages] == ["1K5Q3ZB8W0QJ5", "1K5Q3ZB8W0QJ4"]
    expected = {"address": "x@remote.test", "state": "pending", "last_reply": "450 later"}
    assert messages[0]["recipients"] == [expected]
    assert sorted(root.rglob("*")) == before
    assert run("queue", "show", "1K5Q3ZB8W0QJ4").returncode == 1


def test_small_tools(run: Run, folder: Path) -> None:
    assert run("maildirmake", "Mail dir").returncode == 0
    assert sorted(p.name for p in (folder / "Mail dir").iterdir()) == ["cur", "new", "tmp"]
    assert run("maildirmake", "Mail dir").returncode == 0  # it is one already
    refused = run("maildirmake", "config.toml")
    assert (refused.returncode, refused.stderr) == (
        1, "mailserver: cannot make a Maildir in config.toml: config.toml is a file, not a folder\n"
    )  # fmt: skip
    assert run("maildirmake", "").returncode == 2
    hashed = run("user", "hash", "--password-stdin", stdin="secret\n").stdout.strip()
    assert hashed.startswith("$argon2id$")
    done = run("user", "add", "eve@example.test", "--hashed", "--password-stdin", stdin=hashed + "\n")
    assert done.returncode == 0
    assert run("config", "describe", "limits.nonsense").returncode == 2


def test_a_dump_of_another_server_is_imported(run: Run, folder: Path) -> None:
    """vpopmail's vpasswd; what cannot be taken is named, the rest is."""
    (folder / "vpasswd").write_text(
        "# vpopmail\n"
        "carol:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1:1:0:Carol:/home/vpopmail/domains/b.test/carol:NOQUOTA\n"
        "dave:abNANd1rDfiNc:1:0:Dave:/home/vpopmail/domains/b.test/dave:NOQUOTA:secret\n"
        "\n"
        "eve:!:1:0:::\n"
        "fred@nowhere.test:{SSHA}dGFuc3RhYWY=::::\n"
    )
    done = run("user", "import", "vpasswd", "--domain", "example.test")
    assert (done.returncode, done.stdout.split(" (")[0]) == (1, "added 2 accounts")
    assert done.stderr.splitlines()[0].startswith("eve@example.test: this is no password hash")
    assert done.stderr.splitlines()[1].startswith("fred@nowhere.test: nowhere.test is not a domain of ours")
    for name in ("carol", "dave"):
        change = ("user", "passwd", f"{name}@example.test", "--old-password", "--password-stdin")
        assert run(*change, stdin="secret\nnew\n").returncode == 0  # which the old one opens
    again = run("user", "import", "-", stdin="carol@example.test:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\n")
    assert "the account carol@example.test exists already" in again.stderr
    assert run("user", "import", "nowhere").returncode == 1


def test_hashes_in_every_form(run: Run) -> None:
    for scheme, beginning in (
        ("scram-sha-256", "{SCRAM-SHA-256}4096,"),
        ("yescrypt", "$y$"),
        ("ssha", "{SSHA}"),
    ):
        done = run("user", "hash", "--scheme", scheme, "--password-stdin", stdin="secret\n")
        assert done.stdout.startswith(beginning)
    unknown = run("user", "hash", "--scheme", "rot13", "--password-stdin", stdin="secret\n")
    assert unknown.returncode == 2
    assert "sha512-crypt" in unknown.stderr


def test_app_passwords_are_shown_once(run: Run, running: Running) -> None:
    made = run("user", "app-password", "add", "alice@example.test", "phone", "--scope", "pop3")
    assert made.stdout.startswith("made phone of alice@example.test for pop3 (in effect now)\n")
    password = made.stdout.splitlines()[2].strip()
    login = running.accounts.login("alice", password.encode(), "pop3", "192.0.2.7")
    assert asyncio.run_coroutine_threadsafe(login, running._loop).result(10) == "alice@example.test"
    table = run("user", "app-password", "list", "alice@example.test").stdout
    assert password not in table
    assert table.splitlines()[0].split() == ["NAME", "FOR", "CREATED", "LAST", "USED", "BY"]
    (one,) = json.loads(run("user", "app-password", "list", "alice@example.test", "--json").stdout)
    assert (one["name"], one["scopes"]) == ("phone", ["pop3"])
    assert run("user", "app-password", "add", "alice@example.test", "x", "--scope", "imap").returncode == 1
    assert run("user", "app-password", "remove", "alice@example.test", "phone").returncode == 0
    assert run("user", "app-password", "remove", "alice@example.test", "phone").returncode == 1
    assert run("user", "app-password", "list", "alice@example.test").stdout == "(none)\n"


def test_a_new_password_for_who_knows_the_old_one(run: Run, folder: Path) -> None:
    run("user", "add", "bob@example.test", "--password-stdin", stdin="builder\n")
    change = ("user", "passwd", "bob@example.test", "--old-password", "--password-stdin")
    wrong = run(*change, stdin="bilder\nnew\n")
    assert (wrong.returncode, wrong.stderr) == (1, "mailserver: the old password is wrong\n")
    assert run(*change, stdin="builder\nnew\n").returncode == 0
    assert run(*change, stdin="new\nbuilder\n").returncode == 0


def test_help_teaches_and_starts_lean(run: Run) -> None:
    for command in ((), ("user",), ("user", "add"), ("queue",), ("alias", "set"), ("sendmail",)):
        told = run(*command, "--help")
        assert told.returncode == 0
        assert "mailserver" in told.stdout
    heavy = (
        "import sys; from typer.testing import CliRunner; from mailserver.cli.program import app;"
        "CliRunner().invoke(app, ['user', 'add', '--help']); CliRunner().invoke(app, ['frobnicate']);"
        "print([m for m in ('rich', 'sqlite3', 'argon2', 'uvloop') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout == "[]\n"


def test_what_is_not_utf8_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        b"\xff".decode("utf-8", "surrogateescape").encode()  # as an argument or a line of input comes
    assert explained(caught.value) == 2
    assert capsys.readouterr().err == "mailserver: what you gave is not UTF-8 text\n"


def test_an_alias_must_lead_to_somebody(run: Run) -> None:
    run("domain", "add", "second.test")
    run("user", "add", "bob@second.test", "--password-stdin", stdin="x\n")
    refused = run("alias", "set", "team@second.test", "bob", "bobb", "x@remote.test")
    assert refused.returncode == 1
    assert "nobody has the address bobb@second.test" in refused.stderr
    assert "mailserver user add bobb@second.test" in refused.stderr
    assert run("alias", "list", "second.test").stdout == "(none)\n"
    assert (
        run("alias", "set", "bob@second.test", "bob", "x@remote.test").returncode == 0
    )  # a copy, and her own
    assert run("alias", "set", "self@second.test", "self").returncode == 1
    assert run("alias", "set", "role@second.test", "postmaster", "info@example.test").returncode == 0


def test_an_alias_must_not_lead_back_to_itself(run: Run) -> None:
    run("domain", "add", "second.test")
    assert run("alias", "set", "a@second.test", "alice@example.test").returncode == 0
    assert run("alias", "set", "b@second.test", "a", "x@remote.test").returncode == 0
    assert run("alias", "set", "start@second.test", "b").returncode == 0
    refused = run("alias", "set", "a@second.test", "start")
    assert refused.returncode == 1
    loop = "a@second.test → start@second.test → b@second.test → a@second.test"
    assert refused.stderr == f"mailserver: a loop: {loop}: let one of them end at a mailbox\n"
    (row,) = [a for a in json.loads(run("alias", "list", "--json").stdout) if a["address"] == "a@second.test"]
    assert row["targets"] == ["alice@example.test"]


def test_an_alias_is_no_program(run: Run) -> None:
    done = run("alias", "set", "l@example.test", "|/bin/sh")
    assert done.returncode == 1
    assert "a program or a file" in done.stderr


def test_the_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
