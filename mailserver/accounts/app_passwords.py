"""App passwords: random ones for single programs, so a lost telephone does not cost the account its password.

They are kept as SCRAM keys alone: with 98 random bits nothing slower protects them any better, and one
derivation tries all of an account's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from mailserver.accounts.database import Database, Keys, StoredAppPassword
from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.scram_keys import derive

SCOPES = ("smtp", "pop3")
_SCOPE_OF = {"submission": "smtp"}  # what a service's logins are counted to
PER_ACCOUNT = 50
NOTED_EVERY = 60.0  # seconds between two notes of one password's use
READABLE = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing to misread: no i l o 0 1
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}\Z")


def readable_password() -> str:
    """Four groups of five: 99 bits."""
    return "-".join("".join(secrets.choice(READABLE) for _ in range(5)) for _ in range(4))


def opens(scopes: Sequence[str], service: str) -> bool:
    """Whether an app password with these scopes is for this service; "" is no service."""
    return _SCOPE_OF.get(service, service) in scopes


def checked(name: str, scopes: Sequence[str], existing: Sequence[StoredAppPassword]) -> tuple[str, ...]:
    """The scopes in their order. Raises AccountsError for what cannot be."""
    if not _NAME.match(name) or name != name.strip():
        raise AccountsError("the name of an app password is 1 to 64 printable characters")
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise AccountsError(f"unknown scope {unknown[0]}; known: {', '.join(SCOPES)}")
    if len(existing) >= PER_ACCOUNT:
        raise AccountsError(f"no account has more than {PER_ACCOUNT} app passwords; remove one first")
    return tuple(scope for scope in SCOPES if scope in scopes) or SCOPES


def make_keys(password: str, salt: bytes) -> Keys:
    """Both kinds. Blocking, 2-4 ms."""
    return Keys(derive("SHA-256", password, salt).form, derive("SHA-1", password, salt).form)


class LastUse:
    """When which app password was used last, written at most once a minute each. ``now``: Unix seconds."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now
        self._noted: dict[tuple[str, str], float] = {}

    def due(self, address: str, name: str) -> bool:
        """Whether this use is to be noted; the next one within a minute is not."""
        last, now = self._noted.get((address, name)), self._now()
        if last is not None and 0 <= now - last < NOTED_EVERY:
            return False
        self._noted[address, name] = now
        return True

    def note(self, address: str, name: str, service: str, client: str) -> None:
        """Blocking. A database that cannot be written stops no login, and the next use is noted."""
        try:
            self._database.app_password_used(address, name, self._now(), f"{service} {client}".strip())
        except AccountsUnavailable:
            self._noted.pop((address, name), None)
