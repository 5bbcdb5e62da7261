"""The commands' side of the control socket. Blocking."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from mailserver.control.address import short_name


class ServerDown(Exception):  # noqa: N818 - the name the team agreed on
    """No server listens there."""


class CommandFailed(Exception):  # noqa: N818 - the name the team agreed on
    """The server said no, or could not be asked although it runs; ``str(error)`` says why."""


class _Reply(msgspec.Struct):
    result: Any = None
    error: str | None = None


def call(path: str, command: str, /, *, timeout: float = 60.0, **args: Any) -> Any:
    """Ask the server at the socket ``path``; its result. ``timeout`` in seconds, for each wait.

    Raises ServerDown, CommandFailed.
    """
    with _connected(path, timeout) as connection:
        return _ask(connection, command, args)


def stop(path: str, *, timeout: float) -> bool:
    """Tell the server to stop and wait ``timeout`` seconds for its end; whether it ended. Raises like
    call()."""
    with _connected(path, timeout) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        try:
            process = os.pidfd_open(pid)
        except OSError as error:  # another PID name space, or it is just gone
            raise CommandFailed(f"cannot watch the server's process: {error.strerror}") from error
        try:
            _ask(connection, "stop", {})
            return bool(select.select([process], [], [], timeout)[0])
        finally:
            os.close(process)


def running_for(configuration: str) -> str | None:
    """The socket of a server of ours that runs with this configuration file, wherever its data_dir was when it
    started. Asks those that the kernel lists (proc_pid_net(5)); a server with a very long data_dir is not seen."""
    wanted = os.path.realpath(configuration)
    for path in _listening():
        try:
            answer = call(path, "status", timeout=5.0)
        except (ServerDown, CommandFailed):  # somebody else's
            continue
        if isinstance(answer, dict) and os.path.realpath(str(answer.get("configuration"))) == wanted:
            return path
    return None


def _listening() -> Iterator[str]:
    """Control sockets, by their name and the lock beside them."""
    with (
        contextlib.suppress(OSError),
        open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table,
    ):
        for line in table:
            *_, path = line.rstrip("\n").split(maxsplit=7)
            folder, name = os.path.split(path)
            if name == "control.sock" and os.path.exists(os.path.join(folder, "lock")):
                yield path


def _ask(connection: socket.socket, command: str, args: dict[str, Any]) -> Any:
    try:
        connection.sendall(msgspec.json.encode({"command": command, "args": args}) + b"\n")
        with connection.makefile("rb") as answer:
            line = answer.readline()
        reply = msgspec.json.decode(line, type=_Reply)
    except TimeoutError:
        raise CommandFailed("the server did not answer in time") from None
    except (OSError, msgspec.DecodeError) as error:
        raise CommandFailed(f"the server hung up without an answer ({error})") from error
    if reply.error is not None:
        raise CommandFailed(reply.error)
    return reply.result


@contextlib.contextmanager
def _connected(path: str, timeout: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            with short_name(path) as name:
                connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise ServerDown(f"no server listens on {path}") from None
        except OSError as error:
            raise CommandFailed(f"{path}: {error.strerror or error}") from error
        yield connection
