"""The control socket between real processes' ends: who may, what is answered, what a crash leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.accounts.errors import AccountsError
from mailserver.control.address import short_name
from mailserver.control.client import CommandFailed, ServerDown, call, stop
from mailserver.control.commands import COMMANDS
from mailserver.control.server import LINE_MAX, ControlServer, ControlSocketError


class Handlers:
    """What a server behind the socket does here."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.gate = asyncio.Event()

    async def status(self, args: dict[str, Any]) -> Any:
        return {"args": args, "text": "Grüße\n"}

    async def health(self, _: dict[str, Any]) -> Any:
        await self.gate.wait()
        return []

    async def user_add(self, args: dict[str, Any]) -> Any:
        if args["address"] == "bug":
            raise KeyError("secret detail")
        if args["address"] == "no":
            raise AccountsError("not here")
        return args

    def table(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {"status": self.status, "health": self.health, "user.add": self.user_add}


@pytest.fixture
async def handlers() -> Handlers:
    return Handlers()


@pytest.fixture(params=["short", "long" * 40])
async def server(
    tmp_path: Path, handlers: Handlers, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[ControlServer, str]]:
    folder = tmp_path / request.param
    folder.mkdir()
    path = str(folder / "control.sock")
    control = ControlServer(path, handlers.table(), on_error=handlers.errors.append)
    await control.start()
    yield control, path
    await control.close()


async def test_asking_and_being_answered(server: tuple[ControlServer, str]) -> None:
    _, path = server
    assert await asyncio.to_thread(call, path, "status") == {"args": {}, "text": "Grüße\n"}
    answer = await asyncio.to_thread(call, path, "user.add", address="a@b.test", password="x")
    assert answer == {"address": "a@b.test", "password": "x", "hashed": False}  # defaults come from the table


async def test_errors_are_sentences_and_bugs_stay_inside(
    server: tuple[ControlServer, str], handlers: Handlers
) -> None:
    _, path = server
    with pytest.raises(CommandFailed, match=r"^not here$"):
        await asyncio.to_thread(call, path, "user.add", address="no", password="x")
    assert handlers.errors == []
    with pytest.raises(CommandFailed, match="log says why") as caught:
        await asyncio.to_thread(call, path, "user.add", address="bug", password="x")
    assert "secret" not in str(caught.value)
    assert isinstance(handlers.errors[0], KeyError)
    requests = [("nonsense", {}), ("user.add", {"address": 1, "password": "x"}), ("status", {"x": 1})]
    for command, args in requests:
        with pytest.raises(CommandFailed):
            await asyncio.to_thread(call, path, command, **args)


async def test_several_clients_at_once(server: tuple[ControlServer, str], handlers: Handlers) -> None:
    _, path = server
    waiting = asyncio.ensure_future(asyncio.to_thread(call, path, "health"))
    for _ in range(3):
        await asyncio.to_thread(call, path, "status")
    handlers.gate.set()
    assert await waiting == []


async def test_only_our_user_may_even_connect(server: tuple[ControlServer, str]) -> None:
    _, path = server
    mode = os.lstat(path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
async def test_another_user_gets_no_answer(handlers: Handlers) -> None:
    path = f"/tmp/control-{os.getpid()}.sock"
    control = ControlServer(path, handlers.table(), on_error=handlers.errors.append)
    await control.start()
    os.chmod(path, 0o777)  # as if somebody had loosened it: the kernel's word must still count
    script = (
        f"import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect({path!r});"
        'print(s.makefile("r").readline())'
    )
    process = await asyncio.create_subprocess_exec("python3", "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    await control.close()
    assert "not permitted" in json.loads(out)["error"]


async def test_too_long_a_request_is_refused(server: tuple[ControlServer, str]) -> None:
    _, path = server
    with pytest.raises(CommandFailed):
        await asyncio.to_thread(call, path, "user.add", address="a" * (LINE_MAX + 10), password="x")
    assert await asyncio.to_thread(call, path, "user.add", address="a" * (LINE_MAX - 200), password="x")


async def test_stale_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path, handlers: Handlers) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(path)
    with pytest.raises(ServerDown):
        call(path, "status")
    first = ControlServer(path, handlers.table(), on_error=handlers.errors.append)
    await first.start()
    second = ControlServer(path, handlers.table(), on_error=handlers.errors.append)
    with pytest.raises(ControlSocketError, match="another server"):
        await second.start()
    assert await asyncio.to_thread(call, path, "status")
    await first.close()
    assert os.listdir(tmp_path) == []
    with pytest.raises(ServerDown):
        call(path, "status")


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path, handlers: Handlers) -> None:
    file = tmp_path / "control.sock"
    file.write_text("mine")
    with pytest.raises(ControlSocketError, match="not a socket"):
        await ControlServer(str(file), handlers.table(), on_error=handlers.errors.append).start()
    assert file.read_text() == "mine"


async def test_closing_lets_a_request_finish_and_hangs_up_on_the_idle(
    server: tuple[ControlServer, str], handlers: Handlers
) -> None:
    control, path = server
    busy = asyncio.ensure_future(asyncio.to_thread(call, path, "health"))
    with short_name(path) as name:
        idle_reader, idle_writer = await asyncio.open_unix_connection(name)
    await asyncio.to_thread(call, path, "status")  # by now both are connected
    closing = asyncio.ensure_future(control.close())
    assert await idle_reader.read() == b""
    handlers.gate.set()
    assert await busy == []
    await closing
    idle_writer.close()


async def test_names_outside_the_table_are_a_mistake_of_ours(tmp_path: Path, handlers: Handlers) -> None:
    with pytest.raises(ValueError, match="frobnicate"):
        ControlServer(str(tmp_path / "s"), {"frobnicate": handlers.status}, on_error=handlers.errors.append)
    assert "user.add" in COMMANDS


_JSON = st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
_LINES = st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode())


@settings(max_examples=50)
@given(_LINES)
def test_any_line_gets_one_answer(line: bytes) -> None:
    errors: list[BaseException] = []

    async def status(args: dict[str, Any]) -> Any:
        return args

    control = ControlServer("unused", {"status": status}, on_error=errors.append)
    with pytest.raises(StopIteration) as end:  # nothing here waits: no loop is needed
        control._answer(line + b"\n").send(None)
    answer = end.value.value
    assert set(json.loads(answer)) <= {"error", "result"}
    assert errors == []


SERVER = """
import asyncio, sys
from mailserver.control.server import ControlServer

async def main():
    end = asyncio.Event()
    async def stop(args):
        end.set()
        return "draining"
    control = ControlServer(sys.argv[1], {"stop": stop}, on_error=print)
    await control.start()
    print("ready", flush=True)
    await end.wait()
    if len(sys.argv) > 2:
        await asyncio.Event().wait()
    await control.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("stuck", [False, True])
def test_stop_waits_for_the_end_of_the_process(tmp_path: Path, stuck: bool) -> None:
    path = str(tmp_path / "control.sock")
    command = [sys.executable, "-c", SERVER, path, *(["stuck"] if stuck else [])]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert stop(path, timeout=0.3 if stuck else 20) is not stuck
        process.kill()


def test_it_works_on_uvloop(tmp_path: Path) -> None:
    import uvloop

    path = str(tmp_path / "control.sock")

    async def main() -> Any:
        handlers = Handlers()
        control = ControlServer(path, handlers.table(), on_error=handlers.errors.append)
        await control.start()
        answer = await asyncio.to_thread(call, path, "status")
        await control.close()
        return answer

    assert uvloop.run(main())["args"] == {}
