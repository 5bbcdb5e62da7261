"""What a server keeps for SCRAM (RFC 5802 section 3, RFC 7677): keys that prove a password without being it.

Stored as Dovecot writes them, so accounts may move: ``{SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey``
(all but the number in base64). All of an account's passwords share one salt, so a SCRAM login may use any of
them: the client is told the salt before it has shown which one it knows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import unicodedata
from typing import Literal, NamedTuple

from mailserver.accounts.saslprep import saslprep

Digest = Literal["SHA-256", "SHA-1"]
ITERATIONS = 4096  # of new keys: RFC 7677 section 4's minimum, 1-2 ms; clients on small devices pay it, too
ITERATIONS_MAX = 1_000_000  # more is a slip: one login would take a second
SALT = 16  # octets
_FORM = re.compile(r"\{SCRAM-(SHA-256|SHA-1)\}(\d{1,7}),([^,]+),([^,]+),([^,]+)\Z", re.IGNORECASE)
_HASHLIB: dict[Digest, str] = {"SHA-256": "sha256", "SHA-1": "sha1"}


class ScramKeys(NamedTuple):
    digest: Digest
    salt: bytes
    iterations: int
    stored: bytes
    server: bytes

    @property
    def form(self) -> str:
        """What the database and the configuration hold."""
        octets = (base64.b64encode(part).decode() for part in (self.salt, self.stored, self.server))
        return f"{{SCRAM-{self.digest}}}{self.iterations}," + ",".join(octets)


def hash_octets(digest: Digest, data: bytes) -> bytes:
    return hashlib.new(_HASHLIB[digest], data, usedforsecurity=False).digest()


def hmac_octets(digest: Digest, key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, _HASHLIB[digest])


def derive(digest: Digest, password: str, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
    """The keys of ``password``. Blocking, 1-2 ms for 4096 iterations."""
    salted = hashlib.pbkdf2_hmac(_HASHLIB[digest], _prepared(password), salt, iterations)
    client, server = hmac_octets(digest, salted, b"Client Key"), hmac_octets(digest, salted, b"Server Key")
    return ScramKeys(digest, salt, iterations, hash_octets(digest, client), server)


def parse(form: str) -> ScramKeys | None:
    """None for what is no such form."""
    match = _FORM.match(form)
    if match is None or not 1 <= int(match[2]) <= ITERATIONS_MAX:
        return None
    digest: Digest = "SHA-256" if match[1].upper() == "SHA-256" else "SHA-1"
    try:
        salt, stored, server = (base64.b64decode(match[n].encode("ascii"), validate=True) for n in (3, 4, 5))
    except (binascii.Error, UnicodeError):
        return None
    size = len(hash_octets(digest, b""))
    if len(stored) != size or len(server) != size or not salt:
        return None
    return ScramKeys(digest, salt, int(match[2]), stored, server)


def fits(password: str, keys: ScramKeys) -> bool:
    """Whether these are the keys of ``password``. Blocking."""
    return hmac.compare_digest(derive(keys.digest, password, keys.salt, keys.iterations).stored, keys.stored)


def salt_for(name: str, secret: bytes) -> bytes:
    """The salt of a name that has none yet: it is the same before there is such an account and after, and
    nobody without the ``secret`` of this installation can tell it beforehand."""
    return hmac.digest(secret, b"salt\0" + name.encode("utf-8", "replace"), "sha256")[:SALT]


def decoy(digest: Digest, name: str, secret: bytes) -> ScramKeys:
    """Keys nobody has the password of, the same ones each time a name without an account is asked for
    (RFC 5802 section 9: no telling who exists). ``secret``: of this installation."""
    salt = salt_for(name, secret)
    unknown = hash_octets(digest, secret + salt)
    return ScramKeys(digest, salt, ITERATIONS, unknown, unknown)


def _prepared(password: str) -> bytes:
    """Passwords that SASLprep forbids are taken as they are, as PostgreSQL and its clients do: refusing to
    derive keys would only send their owners to weaker mechanisms."""
    try:
        return saslprep(password).encode()
    except ValueError:
        return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
