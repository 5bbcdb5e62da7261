"""Whose a bearer token is: a program of the administrator's says so ([bearer] program, see program.py).

It reads the token, and nothing else, from descriptor 3 to the end of it, prints the account's full address, and ends
with 0; with 1 where the token is no good. Nothing is remembered: how long a token is good is the program's to know.
"""

from __future__ import annotations

from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.program import Program
from mailserver.config.accounts import Bearer
from mailserver.message.address import AddressError, parse


class TokenProgram:
    """``settings`` with a program. Belongs to one event loop."""

    def __init__(self, settings: Bearer) -> None:
        self.settings = settings
        self._program = Program("bearer", timeout=settings.timeout, at_once=settings.concurrency, prints=True)

    async def owner_of(self, token: str) -> str | None:
        """The account's address; None: the token is no good. Raises AccountsUnavailable, also where the program says
        yes and names nobody."""
        said = await self._program.ask(self.settings.program, token.encode(), {})
        if said is None:
            return None
        try:
            return str(parse(said.decode().strip()))
        except (UnicodeDecodeError, AddressError):
            raise AccountsUnavailable(
                f"bearer: {self.settings.program[0]} ended with 0 and printed no address"
            ) from None
