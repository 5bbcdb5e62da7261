"""What every place outside that keeps accounts can do: say whether an address exists, and what opens it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

Ask = Callable[
    [bytes], Awaitable[bool]
]  # whether this password opens the account; raises AccountsUnavailable
Secret = str | Ask  # a stored form passwords.py verifies ("" = nothing opens it), or somebody to ask


class Backend(Protocol):
    """``name`` is for the log."""

    name: str

    async def find(self, address: str) -> Secret | None:
        """What opens the account ``user@domain``, or None: there is none. Raises AccountsUnavailable, and
        nothing else, when there is no telling."""

    def stand_in(self, address: str) -> Secret | None:
        """What an address that does not exist is tried against, so that it costs what others cost; None: a hash
        of ours. It never opens anything."""

    def close(self) -> None:
        """Let go of connections; on the loop's thread."""
