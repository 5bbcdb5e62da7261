"""mailserver guard, against a real control socket."""

import asyncio
import json
import threading

import pytest

from mailserver.cli import main
from mailserver.config.trust import Guard as Settings
from mailserver.control.guard_commands import guard_commands
from mailserver.control.server import ControlServer
from mailserver.policy.guard import Guard

NOW = 1_795_000_000.0


@pytest.fixture
def guard(tmp_path):
    """A guard behind a control socket that runs in a loop of its own, as the server's would."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text('hostname = "mail.example.test"\n')
    guard, ready, ends, errors = Guard(Settings()), threading.Event(), [], []

    async def serve():
        done = asyncio.Event()
        ends.append((asyncio.get_running_loop(), done))
        path = str(tmp_path / "data" / "control.sock")
        server = ControlServer(path, guard_commands(guard, lambda: NOW), on_error=errors.append)
        await server.start()
        ready.set()
        await done.wait()
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield guard
    ((loop, done),) = ends
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    assert errors == []


def run(capsys, monkeypatch, tmp_path, *words):
    monkeypatch.setattr("sys.argv", ["mailserver", "guard", *words, "-c", str(tmp_path / "config.toml")])
    try:
        main()
    except SystemExit as end:
        assert not end.code
    return capsys.readouterr().out


def test_list_and_clear(guard, capsys, monkeypatch, tmp_path):
    for _ in range(5):
        guard.failed("192.0.2.7", "alice\x1b[31m@example.test", NOW)
    out = run(capsys, monkeypatch, tmp_path, "list")
    assert "192.0.2.7  alice\\x1b[31m@example.test  5" in out
    assert "5 failed logins at this account" in out
    rows = json.loads(run(capsys, monkeypatch, tmp_path, "list", "--json"))
    assert {row["account"] for row in rows} == {"alice\x1b[31m@example.test", ""}
    assert run(capsys, monkeypatch, tmp_path, "clear", "192.0.2.7") == "2 forgotten\n"
    assert run(capsys, monkeypatch, tmp_path, "clear") == "nothing to forget\n"
    assert run(capsys, monkeypatch, tmp_path, "list") == "(none)\n"
