"""The one way in, for SMTP and POP3 alike: accounts say who somebody is, the guard says when they may be asked.

The guard is asked as soon as a name is known and before anything is checked: a login waits for its turn here, or is
put off unchecked. Good and bad ends are counted; accounts that cannot be asked count as neither.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from mailserver.accounts.authenticate import WRONG, Answers, Authentication, LoggedIn
from mailserver.accounts.errors import AccountsUnavailable
from mailserver.accounts.sasl import Channel
from mailserver.accounts.scram_keys import Digest
from mailserver.accounts.steps import Challenge, KeyRing, Refused
from mailserver.host.tls import certified_addresses, end_point
from mailserver.policy.guard import Guard


class PutOff(AccountsUnavailable):
    """Too many logins failed before this one: nothing was checked."""


class MakeChannel(Protocol):
    """Accounts.channel."""

    def __call__(
        self, *, safe: bool, end_point: bytes = b"", identities: tuple[str, ...] = ()
    ) -> Channel: ...


class Door:
    """``answers`` knows the accounts, ``channel`` what is offered; ``now``: Unix seconds, the guard's clock."""

    def __init__(
        self, answers: Answers, channel: MakeChannel, guard: Guard, *, now: Callable[[], float]
    ) -> None:
        self._answers, self._channel = answers, channel
        self.guard, self.now = guard, now

    def channel(self, connection: ssl.SSLObject | None, *, safe: bool) -> Channel:
        """What a connection allows; ``connection``: its TLS, ``safe``: a password may travel on it."""
        if connection is None:
            return self._channel(safe=safe)
        return self._channel(
            safe=safe, end_point=end_point(connection), identities=certified_addresses(connection)
        )

    def attempt(self, mechanism: str, channel: Channel, *, service: str, client: str) -> Attempt:
        """One exchange with a SASL mechanism. Raises UnknownMechanism for what the channel does not offer."""
        answers = _Guarded(self, self._answers, client)
        return Attempt(
            self, Authentication(answers, mechanism, channel, service=service, client=client), client
        )

    async def password(self, name: str, password: bytes, *, service: str, client: str) -> LoggedIn | Refused:
        """A name and a password without SASL. Raises AccountsUnavailable."""
        account = await _Guarded(self, self._answers, client).login(name, password, service, client)
        return self.judged(Refused(name, WRONG) if account is None else LoggedIn(account), client)

    async def digest(self, name: str, stamp: bytes, digest: bytes, *, client: str) -> LoggedIn | Refused:
        """A name and what APOP makes of its password (RFC 1939 section 7). Raises AccountsUnavailable."""
        account = await _Guarded(self, self._answers, client).digest(name, stamp, digest)
        return self.judged(Refused(name, WRONG) if account is None else LoggedIn(account), client)

    def judged(self, said: LoggedIn | Refused, client: str) -> LoggedIn | Refused:
        """Counted; a reason is completed with what the guard has to add."""
        if isinstance(said, LoggedIn):
            self.guard.succeeded(client, said.account, self.now())
            return said
        more = self.guard.failed(client, self.counted_as(said.user), self.now()).reason
        return said._replace(reason=f"{said.reason}; {more}") if more else said

    def counted_as(self, user: str) -> str:
        """The account a name means, so that other spellings of it are no other account to the guard."""
        return self._answers.key_of(user) or user


class Attempt:
    """An exchange under way; see Authentication."""

    def __init__(self, door: Door, authentication: Authentication, client: str) -> None:
        self._door, self._authentication, self._client = door, authentication, client

    @property
    def mechanism(self) -> str:
        return self._authentication.mechanism

    @property
    def user(self) -> str:
        """Whom the client claims to be, as far as it has said so."""
        return self._authentication.user

    async def step(self, line: bytes | None) -> Challenge | LoggedIn | Refused:
        """Raises SaslError, AccountsUnavailable; over then, as after LoggedIn and Refused."""
        said = await self._authentication.step(line)
        return said if isinstance(said, Challenge) else self._door.judged(said, self._client)

    def left(self) -> Refused | None:
        """The client has gone. What that was, if it had been told already that its login failed."""
        if not self._authentication.failed:
            return None
        refused = self._door.judged(Refused(self.user, WRONG), self._client)
        assert isinstance(refused, Refused)
        return refused


class _Guarded:
    """Answers to one client, each in its turn."""

    def __init__(self, door: Door, answers: Answers, client: str) -> None:
        self._door, self._answers, self._client = door, answers, client

    async def _turn(self, user: str) -> None:
        verdict = self._door.guard.ask(self._client, self._door.counted_as(user), self._door.now())
        if verdict.refuse:
            raise PutOff(verdict.reason)
        if verdict.wait:
            await asyncio.sleep(verdict.wait)

    async def login(self, name: str, password: bytes, service: str = "", client: str = "") -> str | None:
        await self._turn(name)
        return await self._answers.login(name, password, service, client)

    async def digest(self, name: str, stamp: bytes, digest: bytes) -> str | None:
        await self._turn(name)
        return await self._answers.digest(name, stamp, digest)

    async def key_ring(self, user: str, digest: Digest, service: str) -> KeyRing:
        await self._turn(user)
        return await self._answers.key_ring(user, digest, service)

    async def owner_of(self, token: str) -> str | None:
        await self._turn("")
        return await self._answers.owner_of(token)

    async def proven(self, user: str, app_password: str, service: str, client: str) -> str | None:
        return await self._answers.proven(user, app_password, service, client)

    def key_of(self, name: str) -> str:
        return self._answers.key_of(name)
