"""What passes between a SASL mechanism and whoever runs it: values only.

A mechanism is a generator. It yields Challenge (send it, give back the client's answer) and questions (ask
the accounts, give back what they say), and returns Credentials or an Outcome.
"""

from __future__ import annotations

import binascii
from collections.abc import Generator
from typing import NamedTuple

from mailserver.accounts.scram_keys import Digest, ScramKeys


class SaslError(Exception):
    """The exchange is over without credentials; ``str(error)`` is ours and safe to show to the peer.

    ``cancelled``: the client sent ``*``. SMTP answers 501 5.5.2 to malformed responses and 501 5.7.0 to a
    cancelled exchange, POP3 answers -ERR to both.
    """

    def __init__(self, text: str, *, cancelled: bool = False) -> None:
        super().__init__(text)
        self.cancelled = cancelled


class UnknownMechanism(SaslError):  # noqa: N818 - a kind of SaslError, named for what happened
    """The mechanism is not offered (SMTP: 504 5.5.4)."""


class Challenge(NamedTuple):
    """The server's turn: send ``line`` after "334 " (SMTP) or "+ " (POP3), then step() with the answer."""

    data: bytes

    @property
    def line(self) -> bytes:
        """``data`` in base64, without CRLF."""
        return binascii.b2a_base64(self.data, newline=False)


class LastWord(bytes):
    """A challenge that says why the exchange has failed: whatever the client answers ends it."""

    __slots__ = ()


class Credentials(NamedTuple):
    """What the client claims. ``password`` is never empty and not necessarily UTF-8."""

    authzid: str
    user: str
    password: bytes


class KeysWanted(NamedTuple):
    """Question: the SCRAM keys of ``user``; answered with KeyRing (a decoy's where there is no such
    account)."""

    user: str
    digest: Digest


class KeyRing(NamedTuple):
    """Keys of equal salt and iterations, each with the name of the app password it belongs to ("" = the
    account's own)."""

    keys: tuple[tuple[str, ScramKeys], ...]


class TokenGiven(NamedTuple):
    """Question: whose is this bearer token; answered with the account or None."""

    token: str


class Proven(NamedTuple):
    """The client has shown who it is; ``app_password``: the name of the one it used, or ""."""

    authzid: str
    user: str
    app_password: str = ""


class Refused(NamedTuple):
    """The client has shown nothing, SMTP 535 5.7.8, POP3 -ERR [AUTH]. ``reason`` is for the log."""

    user: str
    reason: str


Question = KeysWanted | TokenGiven
Outcome = Credentials | Proven | Refused
Answer = KeyRing | str | None
Mechanism = Generator[bytes | Question, bytes | Answer, Outcome]


def octets(answer: bytes | Answer) -> bytes:
    """The answer to a challenge."""
    assert isinstance(answer, bytes)
    return answer


def text(data: bytes) -> str:
    """Raises SaslError for what is not UTF-8 or holds a NUL."""
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("the user name is not UTF-8") from None
    if "\0" in decoded:
        raise SaslError("the user name holds a NUL")
    return decoded
