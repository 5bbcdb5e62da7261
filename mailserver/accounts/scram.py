"""SCRAM as the server speaks it (RFC 5802, RFC 7677). Sans-IO.

Names without an account get keys of their own that nothing fits, so they cannot be told from others. What a
client does wrong is said with ``e=`` (RFC 5802 section 7), after which its next line, whatever it is, ends the
exchange. A wrong password ends it at once, as section 5.1 allows: the reply of SMTP or POP3 then says so in
the words that programs act upon (GNU SASL takes ``e=invalid-proof`` for a message it cannot parse).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple

from mailserver.accounts.saslprep import saslprep
from mailserver.accounts.scram_keys import Digest, ScramKeys, hash_octets, hmac_octets
from mailserver.accounts.steps import (
    Answer,
    KeyRing,
    KeysWanted,
    LastWord,
    Mechanism,
    Proven,
    Question,
    Refused,
    octets,
)

_HEADER = re.compile(rb"(?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=([^,\0]+))?,(.*)\Z", re.DOTALL)
_BARE = re.compile(rb"n=([^,\0]*),r=([\x21-\x2b\x2d-\x7e]+)((?:,[A-Za-z]=[^,\0]+)*)\Z")
_FINAL = re.compile(
    rb"(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*),p=([A-Za-z0-9+/=]+)\Z"
)
NONCE_MAX = 1024  # octets of the client's


def fresh_nonce() -> str:
    return secrets.token_urlsafe(24)


class _Fault(Exception):  # noqa: N818 - what e= says, not an error of ours
    """Ends the exchange with ``e=error``; ``reason`` is for the log."""

    def __init__(self, error: str, reason: str = "") -> None:
        super().__init__(error)
        self.error, self.reason = error, reason or error


class _First(NamedTuple):
    """client-first-message, taken apart."""

    header: bytes
    authzid: str
    user: str
    nonce: bytes
    bare: bytes
    binding: bytes


def scram(
    digest: Digest, *, plus: bool, bindings: Mapping[str, bytes], nonce: Callable[[], str] = fresh_nonce
) -> Mechanism:
    """One exchange. ``plus``: the client chose the -PLUS variant. ``bindings``: the channel's binding data by
    type (``tls-server-end-point``, RFC 5929), empty where -PLUS is not offered. ``nonce``: the server's part,
    printable, without commas."""
    user = ""
    try:
        first = _client_first(octets((yield b"")), plus=plus, bindings=bindings)
        user = first.user
        return (yield from _prove(digest, first, nonce()))
    except _Fault as fault:
        yield LastWord(b"e=" + fault.error.encode())
        return Refused(user, fault.reason)


def _prove(
    digest: Digest, first: _First, nonce: str
) -> Generator[bytes | Question, bytes | Answer, Proven | Refused]:
    ring = yield KeysWanted(first.user, digest)
    assert isinstance(ring, KeyRing)
    whole = first.nonce + nonce.encode()
    salt, iterations = ring.keys[0][1].salt, ring.keys[0][1].iterations
    server_first = b"r=%s,s=%s,i=%d" % (whole, base64.b64encode(salt), iterations)
    without_proof, proof = _client_final(octets((yield server_first)), first, whole)
    said = b",".join((first.bare, server_first, without_proof))
    found = _whose(digest, ring, said, proof)
    if found is None:
        return Refused(first.user, "wrong user or password")
    app_password, keys = found
    yield b"v=" + base64.b64encode(hmac_octets(digest, keys.server, said))
    return Proven(first.authzid, first.user, app_password)


def _whose(digest: Digest, ring: KeyRing, said: bytes, proof: bytes) -> tuple[str, ScramKeys] | None:
    """The keys that the proof fits (RFC 5802 section 3). All are tried, so time tells nothing."""
    found = None
    for name, keys in ring.keys:
        signature = hmac_octets(digest, keys.stored, said)
        if len(proof) != len(signature):
            return None
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if hmac.compare_digest(hash_octets(digest, client_key), keys.stored):
            found = name, keys
    return found


def _client_first(message: bytes, *, plus: bool, bindings: Mapping[str, bytes]) -> _First:
    match = _HEADER.match(message)
    if match is None:
        raise _Fault("invalid-encoding", "malformed first message")
    flag, kind, authzid, bare = match.groups()
    binding = _check_flag(flag, kind, plus=plus, bindings=bindings)
    if bare.startswith(b"m="):
        raise _Fault("extensions-not-supported")
    parts = _BARE.match(bare)
    if parts is None or len(parts[2]) > NONCE_MAX:
        raise _Fault("invalid-encoding", "malformed first message")
    name = _sasl_name(parts[1])
    if not name:
        raise _Fault("invalid-username-encoding", "empty user name")
    header = message[: len(message) - len(bare)]
    return _First(header, _sasl_name(authzid or b""), name, parts[2], bare, binding)


def _check_flag(
    flag: bytes | None, kind: bytes | None, *, plus: bool, bindings: Mapping[str, bytes]
) -> bytes:
    """The binding data the client must show; b"" = none. RFC 5802 section 6: somebody between us may have
    struck the -PLUS variant from the list."""
    if kind is not None:
        if not plus or not bindings:
            raise _Fault("channel-binding-not-supported")
        if kind.decode() not in bindings:
            raise _Fault("unsupported-channel-binding-type")
        return bindings[kind.decode()]
    if plus:
        raise _Fault("invalid-encoding", "-PLUS without channel binding")
    if flag == b"y" and bindings:
        raise _Fault("server-does-support-channel-binding", "somebody took -PLUS out of our list")
    return b""


def _client_final(message: bytes, first: _First, nonce: bytes) -> tuple[bytes, bytes]:
    """client-final-message-without-proof, and the proof."""
    match = _FINAL.match(message)
    if match is None:
        raise _Fault("invalid-encoding", "malformed final message")
    without_proof, bound, said, proof = match.groups()
    if not hmac.compare_digest(_octets(bound), first.header + first.binding):
        raise _Fault("channel-bindings-dont-match")
    if not hmac.compare_digest(said, nonce):
        raise _Fault("other-error", "the nonce is not ours")
    return without_proof, _octets(proof)


def _octets(encoded: bytes) -> bytes:
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        raise _Fault("invalid-encoding", "not base64") from None


def _sasl_name(encoded: bytes) -> str:
    """saslname (RFC 5802 section 5.1): ``,`` is =2C, ``=`` is =3D, nothing else is escaped."""
    if re.search(rb"=(?!2C|3D)", encoded):
        raise _Fault("invalid-username-encoding")
    try:
        return saslprep(encoded.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8"))
    except ValueError:
        raise _Fault("invalid-username-encoding") from None
