"""Programs of the administrator's that are asked about accounts: told on descriptor 3, judged by how they end.

0 is yes, 1 is no, 111 "cannot say now" (cr.yp.to/checkpwd/interface.html); 2 and everything else is the program's fault
or ours, which is no verdict either. It runs without our environment, in a process group of its own that is killed when
it takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from typing import cast

from mailserver.accounts.errors import AccountsUnavailable

OUTPUT_MAX = 4096  # octets kept of what a program prints
WAITING_MAX = 1000  # questions asked or waiting for their turn
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Descriptor 3 must be that very number, which no portable way of starting a child can promise but a shell.
_SHELL = ("/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh")


class Program:
    """``name`` is for the log. ``at_once`` processes at a time, each for ``timeout`` seconds. ``prints``: its output is
    waited for. Belongs to one event loop."""

    def __init__(self, name: str, *, timeout: float, at_once: int, prints: bool = False) -> None:
        self.name, self._timeout, self._prints = name, timeout, prints
        self._turn = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def ask(self, command: Sequence[str], said: bytes, environment: Mapping[str, str]) -> bytes | None:
        """What ``command``, told ``said``, printed when it said yes, None for no. Raises AccountsUnavailable."""
        if self._waiting >= WAITING_MAX:
            raise AccountsUnavailable(f"{self.name}: too many questions at once")
        self._waiting += 1
        try:
            async with self._turn:
                code, output = await self._run(command, said, environment)
        finally:
            self._waiting -= 1
        if code in {0, 1}:
            return None if code else output
        raise AccountsUnavailable(f"{self.name}: {command[0]} ended with {code}")

    async def _run(
        self, command: Sequence[str], said: bytes, environment: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Exit code and output. Whatever happens to us, nothing of it stays behind."""
        loop = asyncio.get_running_loop()
        child = _Child(loop)
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: child, *_SHELL, *command, stdin=PIPE, stdout=PIPE if self._prints else DEVNULL,
                stderr=DEVNULL, env={"PATH": PATH, **environment}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise AccountsUnavailable(f"{self.name}: {error}") from error
        told = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        try:
            async with asyncio.timeout(self._timeout):
                if not told.is_closing():  # one that reads nothing may be gone already
                    told.write(said)
                    told.close()
                await asyncio.shield(child.exited)
                if self._prints:
                    await asyncio.shield(child.silent)
            return cast(int, transport.get_returncode()), bytes(child.output)
        except TimeoutError:
            raise AccountsUnavailable(f"{self.name}: no answer after {self._timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            await asyncio.shield(child.exited)
            transport.close()


class _Child(asyncio.SubprocessProtocol):
    """``exited``: the process is gone; ``silent``: whoever had its standard output is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.output = bytearray()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.silent: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - there is one pipe to read
        self.output += data[: OUTPUT_MAX - len(self.output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        if fd == 1 and not self.silent.done():
            self.silent.set_result(None)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)
