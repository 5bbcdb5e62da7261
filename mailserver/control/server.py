"""The control socket: our own commands ask the running server, one JSON object per line each way.

``{"command": "user.add", "args": {…}}`` → ``{"result": …}`` or ``{"error": "one sentence"}``. Only our own
user and root get an answer: the socket has mode 0600 before it listens, and the kernel tells who connected
(SO_PEERCRED, unix(7)). One client's requests are answered in order, several clients are served side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.config.faults import ConfigError
from mailserver.control.address import short_name
from mailserver.control.commands import COMMANDS

LINE_MAX = 1 << 20  # octets of one request
GRACE = 5.0  # seconds that requests under way get when the server closes

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
OnError = Callable[[BaseException], None]


class Refused(Exception):  # noqa: N818 - what a handler says, not what went wrong
    """Raised by a handler to say no; the text goes to the client and nowhere else."""


TOLD: tuple[type[Exception], ...] = (Refused, AccountsError, AccountsUnavailable, ConfigError, OSError)


class ControlSocketError(OSError):
    """The socket cannot be made; the text names the path and the reason."""


class Request(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    args: dict[str, Any] = {}


class ControlServer:
    """``commands``: a handler for each name of COMMANDS it shall answer. The text of a TOLD or ``told``
    exception is the client's answer; ``on_error`` gets any other one, the client hears only that the command
    failed. Raises ValueError for a name that is not in the table."""

    def __init__(
        self,
        path: str,
        commands: Mapping[str, Handler],
        *,
        on_error: OnError,
        told: tuple[type[Exception], ...] = (),
    ) -> None:
        if unknown := commands.keys() - COMMANDS.keys():
            raise ValueError(f"not in the table of commands: {sorted(unknown)}")
        self._path = path
        self._commands = commands
        self._on_error = on_error
        self._told: tuple[type[Exception], ...] = (*TOLD, *told)
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._clients: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Replaces what a crashed server left; raises ControlSocketError, also where one still
        answers."""
        try:
            listener, self._inode = _listen(self._path)
        except ControlSocketError:
            raise
        except OSError as error:
            raise ControlSocketError(f"{self._path}: {error.strerror or error}") from error
        self._server = await asyncio.start_unix_server(self._client, sock=listener, limit=LINE_MAX)

    async def close(self) -> None:
        """No new clients, idle ones are hung up on, requests under way get GRACE seconds; the socket file
        goes."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            if os.lstat(self._path).st_ino == self._inode:  # not our successor's
                os.unlink(self._path)
        for task in self._clients - self._busy:
            task.cancel()
        me = asyncio.current_task()
        if pending := {task for task in self._clients if task is not me}:
            _, late = await asyncio.wait(pending, timeout=GRACE)
            for task in late:
                task.cancel()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if not _may(writer):
                writer.write(_error("not permitted: only the server's own user and root"))
                return
            while await self._one(reader, writer, task) and self._server is not None:
                pass
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client left, or we are closing
        finally:
            self._clients.discard(task)
            writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> bool:
        """One request and its answer; whether another may follow."""
        try:
            line = await reader.readline()
        except ValueError:  # longer than the limit
            writer.write(_error(f"the request is longer than {LINE_MAX} octets"))
            return False
        if not line.endswith(b"\n"):
            return False
        self._busy.add(task)
        try:
            writer.write(await self._answer(line))
            await writer.drain()
        finally:
            self._busy.discard(task)
        return True

    async def _answer(self, line: bytes) -> bytes:
        name = "?"
        try:
            request = msgspec.json.decode(line, type=Request)
            name = request.command
            handler = self._commands.get(name)
            if handler is None:
                return _error("no such command")
            arguments = msgspec.structs.asdict(msgspec.convert(request.args, COMMANDS[name]))
        except (msgspec.DecodeError, RecursionError) as error:
            return _error(f"malformed request: {error}")
        try:
            return msgspec.json.encode({"result": await handler(arguments)}) + b"\n"
        except self._told as error:
            return _error(str(error))
        except Exception as error:
            error.add_note(f"in the control command {name}")
            self._on_error(error)
            return _error("the command failed; the server's log says why")


def _error(text: str) -> bytes:
    return msgspec.json.encode({"error": text}) + b"\n"


def _listen(path: str) -> tuple[socket.socket, int]:
    """A listening socket with mode 0600, and its inode."""
    with short_name(path) as name:
        _clear(path, name)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        try:
            listener.bind(name)
            os.chmod(name, 0o600)  # nobody can connect before listen()
            inode = os.lstat(name).st_ino
            listener.listen(16)
        except BaseException:
            listener.close()
            raise
    return listener, inode


def _clear(path: str, name: str) -> None:
    """Remove a socket that nobody listens on."""
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketError(f"{path} is in the way: it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)
        else:
            raise ControlSocketError(f"{path}: another server answers there")


def _may(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer is our own user or root, says the kernel."""
    handle = writer.get_extra_info("socket")
    with socket.socket(fileno=os.dup(handle.fileno())) as peer:  # uvloop's handle cannot be asked
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in {0, os.geteuid()}
