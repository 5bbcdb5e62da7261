"""Sans-IO SASL exchanges as a server sees them: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login),
EXTERNAL (RFC 4422 appendix A), SCRAM (scram.py), OAUTHBEARER and XOAUTH2 (bearer.py).

The framing is the one SMTP (RFC 4954 section 4) and POP3 (RFC 5034 section 4) share: base64 lines, ``=`` for
an empty initial response, ``*`` to cancel. Nothing is verified here: ``authenticate.Authentication`` answers
the questions.
"""

from __future__ import annotations

import binascii
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mailserver.accounts.bearer import oauthbearer, xoauth2
from mailserver.accounts.scram import fresh_nonce, scram
from mailserver.accounts.steps import (
    Answer,
    Challenge,
    Credentials,
    KeysWanted,
    LastWord,
    Mechanism,
    Outcome,
    Proven,
    Question,
    Refused,
    SaslError,
    TokenGiven,
    UnknownMechanism,
    octets,
    text,
)

__all__ = [
    "LINE_MAX", "PASSWORDS", "Challenge", "Channel", "Credentials", "Dialogue", "KeysWanted",
    "Outcome", "Proven", "Question", "Refused", "SaslError", "TokenGiven", "UnknownMechanism", "known", "offered",
]  # fmt: skip

LINE_MAX = 12288  # octets of one response without CRLF, RFC 4954 section 4
_IDENTITIES_MAX = 100
_NONE: Mapping[str, bytes] = MappingProxyType({})


class Channel(NamedTuple):
    """What is known about the connection and what the server is set up for.

    ``safe``: a password may travel (TLS, loopback). ``bindings``: the TLS connection's channel binding data
    by type (``tls-server-end-point``: the hash of the certificate it was shown, RFC 5929 section 4).
    ``identities``: the addresses a verified client certificate names. ``scram``: accounts have keys for it.
    ``bearer``: somebody verifies tokens; ``scope`` and ``configuration``: what clients with a refused one are
    told.
    """

    safe: bool = True
    bindings: Mapping[str, bytes] = _NONE
    identities: tuple[str, ...] = ()
    scram: bool = False
    bearer: bool = False
    scope: str = ""
    configuration: str = ""
    nonce: Callable[[], str] = fresh_nonce


Make = Callable[[Channel], Mechanism]


def _plain(_: Channel) -> Mechanism:
    """``[authzid] NUL authcid NUL passwd`` in one message (RFC 4616 section 2)."""
    message = octets((yield b""))
    parts = message.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslError("malformed PLAIN message")
    return Credentials(text(parts[0]), text(parts[1]), parts[2])


def _login(_: Channel) -> Mechanism:
    """Two prompts, spelt as every client expects them. An initial response answers the first."""
    user = octets((yield b"Username:"))
    password = octets((yield b"Password:"))
    if not user or not password or b"\0" in user or b"\0" in password:
        raise SaslError("empty or malformed LOGIN response")
    return Credentials("", text(user), password)


def _external(channel: Channel) -> Mechanism:
    """The certificate has said who it is; the client may pick one of its names."""
    authzid = text(octets((yield b"")))
    names = {name.casefold(): name for name in channel.identities[:_IDENTITIES_MAX]}
    if authzid:
        if authzid.casefold() in names:
            return Proven(authzid, names[authzid.casefold()])
        return Refused(authzid, "the certificate does not name this account")
    if len(names) != 1:
        return Refused("", "the certificate names several accounts, the client none")
    return Proven("", next(iter(names.values())))


def _plus(channel: Channel) -> Mechanism:
    return scram("SHA-256", plus=True, bindings=channel.bindings, nonce=channel.nonce)


def _sha256(channel: Channel) -> Mechanism:
    return scram("SHA-256", plus=False, bindings=channel.bindings, nonce=channel.nonce)


def _sha1(channel: Channel) -> Mechanism:
    return scram("SHA-1", plus=False, bindings=_NONE, nonce=channel.nonce)


PASSWORDS: Mapping[str, Make] = MappingProxyType({"PLAIN": _plain, "LOGIN": _login})
_ALL: Mapping[str, Make] = MappingProxyType(
    {
        "SCRAM-SHA-256-PLUS": _plus,
        "SCRAM-SHA-256": _sha256,
        "SCRAM-SHA-1": _sha1,
        "EXTERNAL": _external,
        "OAUTHBEARER": lambda channel: oauthbearer(channel.scope, channel.configuration),
        "XOAUTH2": lambda channel: xoauth2(channel.scope),
        **PASSWORDS,
    }
)


def offered(channel: Channel) -> tuple[str, ...]:
    """The mechanisms for this channel, the strongest first: for EHLO, CAPA and bare AUTH. Passwords and
    tokens travel under TLS or on loopback only; SCRAM anywhere."""
    return _offered(
        channel.safe, channel.scram, bool(channel.bindings), bool(channel.identities), channel.bearer
    )


def known(name: str) -> bool:
    """Whether some channel has this mechanism (any case)."""
    return name.upper() in _ALL


@functools.lru_cache(maxsize=32)
def _offered(safe: bool, scram: bool, bound: bool, certified: bool, bearer: bool) -> tuple[str, ...]:
    """Remembered, as every EHLO asks."""
    condition = {
        "SCRAM-SHA-256-PLUS": scram and bound,
        "SCRAM-SHA-256": scram,
        "SCRAM-SHA-1": scram,
        "EXTERNAL": certified,
        "OAUTHBEARER": bearer and safe,
        "XOAUTH2": bearer and safe,
    }
    return tuple(name for name in _ALL if condition.get(name, safe))


def _decode(line: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 4): no foreign characters, right padding, no stray bits."""
    try:
        data = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise SaslError("not base64") from None
    if binascii.b2a_base64(data, newline=False) != line:
        raise SaslError("not base64")
    return data


class Dialogue:
    """One authentication attempt with the mechanism ``name`` (any case). Raises UnknownMechanism for what
    ``offered(channel)`` does not list.

    The first ``step`` takes the initial response (``b""`` or None: there is none, ``b"="``: it is empty),
    each further one the client's next line without CRLF. A Question is answered with ``answer``. After
    Credentials, Proven, Refused or SaslError the exchange is over.
    """

    __slots__ = ("_run", "_started", "failed", "mechanism")

    def __init__(self, name: str, channel: Channel) -> None:
        self.mechanism = name.upper()
        if self.mechanism not in offered(channel):
            raise UnknownMechanism("unknown authentication mechanism")
        self._run = _ALL[self.mechanism](channel)
        self._started = False
        self.failed = False  # the client has been told so; its next line, or its leaving, is the end

    def step(self, line: bytes | None) -> Challenge | Credentials | Question | Proven | Refused:
        """The next challenge or question, or the end. Raises SaslError. ``line``: at most LINE_MAX
        octets."""
        if line is not None and len(line) > LINE_MAX:
            raise SaslError("response too long")
        if not self._started:
            self._started = True
            challenge = next(self._run)
            assert isinstance(challenge, bytes)
            if not line:
                return Challenge(challenge)
            line = b"" if line == b"=" else line
        if self.failed:
            return self.answer(b"")
        if line == b"*":
            raise SaslError("authentication cancelled", cancelled=True)
        return self.answer(_decode(line or b""))

    def answer(self, answer: bytes | Answer) -> Challenge | Credentials | Question | Proven | Refused:
        """What follows from the answer to a question. Raises SaslError."""
        try:
            said = self._run.send(answer)
        except StopIteration as finished:
            outcome: Outcome = finished.value
            return outcome
        self.failed = isinstance(said, LastWord)
        return Challenge(said) if isinstance(said, bytes) else said
