"""A checkpassword program (cr.yp.to/checkpwd/interface.html) and one that says who exists.

The program reads ``user NUL password NUL timestamp NUL`` from descriptor 3; how it ends is its answer (program.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from mailserver.accounts.backends.backend import Secret
from mailserver.accounts.program import Program

INPUT_MAX = 512  # octets on descriptor 3, says the interface


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
        self._check, self._exists, self._local_only = tuple(program), tuple(exists), local_only
        self._now = now
        self._program = Program(name, timeout=timeout, at_once=at_once)

    async def find(self, address: str) -> Secret | None:
        if "\0" in address:
            return None
        found = await self._program.ask(self._exists, b"", {"ADDRESS": address})
        return None if found is None else functools.partial(self.opens, address)

    def stand_in(self, address: str) -> Secret:
        """The program is asked for every name; how long it takes for one it does not know is its own affair."""
        return functools.partial(self.opens, address)

    async def opens(self, address: str, password: bytes) -> bool:
        """Whether the program says so. Raises AccountsUnavailable."""
        user = (address.rpartition("@")[0] if self._local_only else address).encode()
        said = b"%b\0%b\0%d\0" % (user, password, int(self._now()))
        if b"\0" in password or b"\0" in user or len(said) > INPUT_MAX:
            return False
        return await self._program.ask(self._check, said, {}) is not None

    def close(self) -> None:
        """Nothing is kept open."""
