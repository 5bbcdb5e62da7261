"""Sans-IO SASL exchanges as a server sees them: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

The framing is the one SMTP (RFC 4954 section 4) and POP3 (RFC 5034 section 4) share: base64 lines, ``=`` for
an empty initial response, ``*`` to cancel. A mechanism is a generator of challenges that returns
Credentials, so one with several rounds (SCRAM) is one more function here. Nothing is verified:
``Accounts.login`` does that.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import NamedTuple

LINE_MAX = 12288  # octets of one response without CRLF, RFC 4954 section 4


class SaslError(Exception):
    """The exchange is over without credentials; ``str(error)`` is ours and safe to show to the peer.

    ``cancelled``: the client sent ``*``. SMTP answers 501 5.5.2 to malformed responses and 501 5.7.0 to a
    cancelled exchange, POP3 answers -ERR to both.
    """

    def __init__(self, text: str, *, cancelled: bool = False) -> None:
        super().__init__(text)
        self.cancelled = cancelled


class UnknownMechanism(SaslError):  # noqa: N818 - a kind of SaslError, named for what happened
    """The mechanism is not in MECHANISMS (SMTP: 504 5.5.4)."""


class Challenge(NamedTuple):
    """The server's turn: send ``line`` after "334 " (SMTP) or "+ " (POP3), then step() with the answer."""

    data: bytes

    @property
    def line(self) -> bytes:
        """``data`` in base64, without CRLF."""
        return binascii.b2a_base64(self.data, newline=False)


class Credentials(NamedTuple):
    """What the client claims. ``password`` is never empty and not necessarily UTF-8."""

    authzid: str
    user: str
    password: bytes

    @property
    def for_another(self) -> bool:
        """The client asks to act as somebody else (RFC 4616 section 2); we grant that to nobody: 535
        5.7.8."""
        return bool(self.authzid) and self.authzid != self.user


Mechanism = Callable[[], Generator[bytes, bytes, Credentials]]


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("the user name is not UTF-8") from None


def _plain() -> Generator[bytes, bytes, Credentials]:
    """``[authzid] NUL authcid NUL passwd`` in one message (RFC 4616 section 2)."""
    message = yield b""
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslError("malformed PLAIN message")
    return Credentials(_text(parts[0]), _text(parts[1]), parts[2])


def _login() -> Generator[bytes, bytes, Credentials]:
    """Two prompts, spelt as every client expects them. An initial response answers the first."""
    user = yield b"Username:"
    password = yield b"Password:"
    if not user or not password or b"\0" in user or b"\0" in password:
        raise SaslError("empty or malformed LOGIN response")
    return Credentials("", _text(user), password)


MECHANISMS: Mapping[str, Mechanism] = MappingProxyType({"PLAIN": _plain, "LOGIN": _login})


def _decode(line: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 4): no foreign characters, right padding, no stray bits."""
    try:
        data = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise SaslError("not base64") from None
    if binascii.b2a_base64(data, newline=False) != line:
        raise SaslError("not base64")
    return data


class Exchange:
    """One authentication attempt with the mechanism ``name`` (any case). Raises UnknownMechanism.

    The first ``step`` takes the initial response (``b""`` or None: there is none, ``b"="``: it is empty),
    each further one the client's next line without CRLF. After Credentials or SaslError the exchange is
    over.
    """

    __slots__ = ("_run", "_started", "mechanism")

    def __init__(self, name: str) -> None:
        self.mechanism = name.upper()
        mechanism = MECHANISMS.get(self.mechanism)
        if mechanism is None:
            raise UnknownMechanism("unknown authentication mechanism")
        self._run = mechanism()
        self._started = False

    def step(self, line: bytes | None) -> Challenge | Credentials:
        """The next challenge, or what the client claims. Raises SaslError. ``line``: at most LINE_MAX
        octets."""
        if line is not None and len(line) > LINE_MAX:
            raise SaslError("response too long")
        if not self._started:
            self._started = True
            challenge = Challenge(next(self._run))
            if not line:
                return challenge
            line = b"" if line == b"=" else line
        if line == b"*":
            raise SaslError("authentication cancelled", cancelled=True)
        try:
            return Challenge(self._run.send(_decode(line or b"")))
        except StopIteration as finished:
            credentials: Credentials = finished.value
            return credentials
