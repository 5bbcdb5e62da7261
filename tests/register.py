"""Accounts for tests of conversations: answers from a function, instead of files and hashes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.passwords import fits_digest
from mailserver.accounts.sasl import Channel
from mailserver.accounts.scram_keys import Digest
from mailserver.accounts.steps import KeyRing


class Register:
    """Answers about accounts from a function of name and password; nobody has SCRAM keys, tokens or certificates.

    APOP: the password of alice is kept in clear, that of bob is not.
    """

    def __init__(self, login: Callable[[str, bytes], Awaitable[str | None]]) -> None:
        self._login = login

    async def login(self, name: str, password: bytes, service: str = "", client: str = "") -> str | None:
        return await self._login(name, password)

    async def digest(self, name: str, stamp: bytes, digest: bytes) -> str | None:
        stored = {"alice": "{PLAIN}wonderland", "bob": "{SSHA}wonderland"}.get(name, "")
        return f"{name}@example.test" if fits_digest(stamp, digest, stored) else None

    async def key_ring(self, user: str, digest: Digest, service: str) -> KeyRing:
        raise AccountsUnavailable("no keys here")

    async def owner_of(self, token: str) -> str | None:
        return None

    async def proven(self, user: str, app_password: str, service: str, client: str) -> str | None:
        return None

    def key_of(self, name: str) -> str:
        return name


def passwords_only(*, safe: bool, end_point: bytes = b"", identities: tuple[str, ...] = ()) -> Channel:
    """What such accounts can be offered."""
    return Channel(safe)
