"""One authentication attempt with any mechanism, as SMTP and POP3 run it: lines in, challenges and a verdict
out.

The mechanisms (sasl.py) ask, Accounts answers; here the two meet. Whoever the mechanism has proven must be
an account of ours, and may act for nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from mailserver.accounts.sasl import Channel, Dialogue
from mailserver.accounts.scram_keys import Digest
from mailserver.accounts.steps import (
    Challenge,
    Credentials,
    KeyRing,
    KeysWanted,
    Proven,
    Question,
    Refused,
    TokenGiven,
)

ANOTHER = "asked to act as somebody else"
WRONG = "wrong user or password"


class LoggedIn(NamedTuple):
    """``account``: the mailbox key."""

    account: str


class Answers(Protocol):
    """What Accounts can tell. All raise AccountsUnavailable."""

    def login(
        self, name: str, password: bytes, service: str = "", client: str = ""
    ) -> Awaitable[str | None]: ...

    def digest(self, name: str, stamp: bytes, digest: bytes) -> Awaitable[str | None]: ...

    def key_ring(self, user: str, digest: Digest, service: str) -> Awaitable[KeyRing]: ...

    def owner_of(self, token: str) -> Awaitable[str | None]: ...

    def proven(self, user: str, app_password: str, service: str, client: str) -> Awaitable[str | None]: ...

    def key_of(self, name: str) -> str: ...


class Authentication:
    """``mechanism`` as the client spelt it; raises UnknownMechanism. ``service``: "smtp", "submission" or
    "pop3"; ``client``: its address. One line after the other: the next one is given when step() is done."""

    def __init__(
        self, answers: Answers, mechanism: str, channel: Channel, *, service: str, client: str
    ) -> None:
        self._answers, self._service, self._client = answers, service, client
        self._dialogue = Dialogue(mechanism, channel)
        self.user = ""  # whom the client claims to be, as far as it has said so

    @property
    def mechanism(self) -> str:
        """In capitals, for the log."""
        return self._dialogue.mechanism

    @property
    def failed(self) -> bool:
        """Whether a client that leaves now has been told that its login failed: count it."""
        return self._dialogue.failed

    async def step(self, line: bytes | None) -> Challenge | LoggedIn | Refused:
        """The first ``line`` is the initial response (None or b"": there is none), without CRLF like the rest.

        Raises SaslError (malformed or cancelled), AccountsUnavailable (nobody can say now); the attempt is
        over then, as after LoggedIn and Refused.
        """
        said = self._dialogue.step(line)
        while isinstance(said, KeysWanted | TokenGiven):
            said = self._dialogue.answer(await self._answer(said))
        if isinstance(said, Credentials):
            return await self._password(said)
        if isinstance(said, Proven):
            return await self._proven(said)
        if isinstance(said, Refused):
            self.user = said.user or self.user
        return said

    async def _answer(self, question: Question) -> KeyRing | str | None:
        if isinstance(question, TokenGiven):
            return await self._answers.owner_of(question.token)
        self.user = question.user
        return await self._answers.key_ring(question.user, question.digest, self._service)

    async def _password(self, said: Credentials) -> LoggedIn | Refused:
        self.user = said.user
        if not self._is_self(said.authzid, said.user):
            return Refused(said.user, ANOTHER)
        account = await self._answers.login(said.user, said.password, self._service, self._client)
        return Refused(said.user, WRONG) if account is None else LoggedIn(account)

    async def _proven(self, said: Proven) -> LoggedIn | Refused:
        self.user = said.user
        if not self._is_self(said.authzid, said.user):
            return Refused(said.user, ANOTHER)
        account = await self._answers.proven(said.user, said.app_password, self._service, self._client)
        return Refused(said.user, "no such account") if account is None else LoggedIn(account)

    def _is_self(self, authzid: str, user: str) -> bool:
        """An authorization identity, if given, must name the account itself."""
        return not authzid or authzid == user or self._answers.key_of(authzid) == self._answers.key_of(user)
