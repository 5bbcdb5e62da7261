"""OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's older one) as the server speaks them. Sans-IO.

Who the token belongs to is a question for the verifier. A token that is refused gets a JSON challenge; the
client's next line, whatever it is, ends the exchange (RFC 7628 section 3.2.3).
"""

from __future__ import annotations

import re
from collections.abc import Generator

import msgspec

from mailserver.accounts.steps import (
    Answer,
    LastWord,
    Mechanism,
    Proven,
    Question,
    Refused,
    SaslError,
    TokenGiven,
    octets,
    text,
)

_GS2 = re.compile(rb"[ny],(?:a=([^,\0]+))?,\x01")
_PAIR = re.compile(rb"([A-Za-z]+)=([\x20-\x7e\t\r\n]*)\Z")
_TOKEN = re.compile(rb"bearer ([A-Za-z0-9._~+/-]+=*)\Z", re.IGNORECASE)  # b64token, RFC 6750 section 2.1


def oauthbearer(scope: str, configuration: str) -> Mechanism:
    """``scope`` and ``configuration`` (a discovery document's address) are told to clients whose token is
    refused; "" = not told."""
    message = octets((yield b""))
    header = _GS2.match(message)
    if header is None:
        raise SaslError("malformed OAUTHBEARER message")
    authzid = text((header[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"="))
    pairs = _pairs(message[header.end() :])
    token = _token(pairs.get(b"auth", b""))
    details = {"scope": scope, "openid-configuration": configuration}
    told = {name: value for name, value in details.items() if value}
    if token is None:
        return (yield from _refuse({"status": "invalid_request"} | told, authzid, "no bearer token"))
    return (yield from _ask(authzid, token, {"status": "invalid_token"} | told))


def xoauth2(scope: str) -> Mechanism:
    """``user=name ^A auth=Bearer token ^A ^A``."""
    message = octets((yield b""))
    user, mark, rest = message.partition(b"\x01")
    if not mark or not user.startswith(b"user=") or len(user) == 5:
        raise SaslError("malformed XOAUTH2 message")
    name = text(user[5:])
    refusal = {"status": "401", "schemes": "bearer", "scope": scope}
    token = _token(_pairs(rest).get(b"auth", b""))
    if token is None:
        return (yield from _refuse(refusal | {"status": "400"}, name, "no bearer token"))
    return (yield from _ask(name, token, refusal))


def _ask(
    authzid: str, token: str, refusal: dict[str, str]
) -> Generator[bytes | Question, bytes | Answer, Proven | Refused]:
    account = yield TokenGiven(token)
    if not isinstance(account, str):
        return (yield from _refuse(refusal, authzid, "the token is not valid"))
    return Proven(authzid, account)


def _refuse(
    challenge: dict[str, str], user: str, reason: str
) -> Generator[bytes | Question, bytes | Answer, Refused]:
    yield LastWord(msgspec.json.encode(challenge))
    return Refused(user, reason)


def _pairs(data: bytes) -> dict[bytes, bytes]:
    """``*(key=value ^A) ^A``. Raises SaslError."""
    if data == b"\x01":
        return {}
    *fields, end, more = data.split(b"\x01") if data.endswith(b"\x01\x01") else [b"x"] * 2
    if end or more or not fields:
        raise SaslError("malformed token message")
    matches = [_PAIR.match(field) for field in fields]
    return {m[1].lower(): m[2] for m in matches if m is not None}


def _token(value: bytes) -> str | None:
    match = _TOKEN.match(value)
    return match[1].decode() if match else None
