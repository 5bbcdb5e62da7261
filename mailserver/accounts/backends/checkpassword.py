"""A checkpassword program (cr.yp.to/checkpwd/interface.html) and one that says who exists.

The program reads ``user NUL password NUL timestamp NUL`` from descriptor 3 and ends with 0 (right), 1
(wrong), 111 (cannot say now); 2 and everything else is its fault or ours, which is no verdict on a password
either. It runs without our environment, in a process group of its own that is killed when it takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Sequence

from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.errors import AccountsUnavailable

INPUT_MAX = 512  # octets on descriptor 3, says the interface
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Descriptor 3 must be that very number, which no portable way of starting a child can promise but a shell.
_SHELL = ("/bin/sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh")


class Checkpassword:
    """``program``: the checkpassword command with what it runs on success (``/bin/true``). ``exists``: a
    command that ends with 0 where $ADDRESS is an account, 1 where it is none, 111 when it cannot say.
    ``local_only``: the program wants the part before the @. ``timeout`` in seconds, ``at_once`` programs."""

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        exists: Sequence[str],
        *,
        local_only: bool,
        timeout: float,
        at_once: int,
        now: Callable[[], float],
    ) -> None:
        self.name = name
        self._program, self._exists, self._local_only = tuple(program), tuple(exists), local_only
        self._timeout, self._now = timeout, now
        self._turn = asyncio.Semaphore(at_once)

    async def find(self, address: str) -> Secret | None:
        if "\0" in address:
            return None
        found = await self._run(self._exists, b"", {"ADDRESS": address})
        return functools.partial(self.opens, address) if found else None

    async def opens(self, address: str, password: bytes) -> bool:
        """Whether the program says so. Raises AccountsUnavailable."""
        user = (address.rpartition("@")[0] if self._local_only else address).encode()
        said = b"%b\0%b\0%d\0" % (user, password, int(self._now()))
        if b"\0" in password or b"\0" in user or len(said) > INPUT_MAX:
            return False
        return await self._run(self._program, said, {})

    def close(self) -> None:
        """Nothing is kept open."""

    async def _run(self, command: tuple[str, ...], said: bytes, more: dict[str, str]) -> bool:
        async with self._turn:
            try:
                process = await asyncio.create_subprocess_exec(
                    *_SHELL, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL, env={"PATH": _PATH} | more, cwd="/",
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise AccountsUnavailable(f"{self.name}: {error}") from error
            code = await self._code(process, said)
        if code in {0, 1}:
            return code == 0
        raise AccountsUnavailable(f"{self.name}: {command[0]} ended with {code}")

    async def _code(self, process: asyncio.subprocess.Process, said: bytes) -> int:
        """Its exit code. Whatever happens to us, nothing of it stays behind."""
        try:
            async with asyncio.timeout(self._timeout):
                await process.communicate(said)
        except TimeoutError:
            raise AccountsUnavailable(f"{self.name}: no answer after {self._timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                await asyncio.shield(process.wait())
        assert process.returncode is not None
        return process.returncode
