"""Passwords in the forms people bring along: made as argon2id, verified in every form listed here.

Verified: ``$argon2id$`` (also i and d), crypt(3) as the system's libcrypt knows it (``$y$ $gy$ $7$ $6$ $5$
$2b$ $1$``), ``{PLAIN}``, ``{SHA}``, ``{SSHA}``, ``{SSHA256}``, ``{SSHA512}`` (RFC 2307 and its salted kin),
``{SCRAM-SHA-256}`` and ``{SCRAM-SHA-1}`` (RFC 5802, scram_keys.py), and the prefixes of Dovecot's dumps in
front of any of the former (``{CRYPT}``, ``{SHA512-CRYPT}``, ``{ARGON2ID}`` …), with which the DES form of
crypt(3), which looks like a word, is taken, too. Everything here blocks
(10–50 ms); the event loop calls it in a thread, both libraries release the GIL.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hashlib
import hmac
import os
import re
import unicodedata
from collections.abc import Callable
from functools import cache

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from mailserver.accounts import scram_keys
from mailserver.accounts.saslprep import saslprep

MEMORY = 19 << 20  # octets that making or verifying one of our hashes takes
# The least that OWASP recommends: 20 to 30 ms on a core of today. It is the same on every machine, so that a hash moves
# with its user and a name without an account costs what the others do; sized to the machine is how many run at once.
_HASHER = PasswordHasher(time_cost=2, memory_cost=MEMORY >> 10, parallelism=1)
_ARGON2 = ("$argon2id$", "$argon2i$", "$argon2d$")
_ARGON2_MEMORY_MAX = 1 << 20  # KiB; more is a slip or an attack
_CRYPT = ("$y$", "$gy$", "$7$", "$6$", "$5$", "$2a$", "$2b$", "$2y$", "$1$")
_DES = re.compile(r"[./0-9A-Za-z]{13}\Z")  # the oldest crypt(3); believed only where a prefix announces it
_PREFIX = re.compile(r"\{([A-Za-z0-9._-]+)\}(.*)\Z", re.DOTALL)
_DIGESTS = {"SHA": "sha1", "SSHA": "sha1", "SSHA256": "sha256", "SSHA512": "sha512"}
_ANNOUNCING = re.compile(r"(?:CRYPT|[A-Z0-9]+-CRYPT|YESCRYPT|ARGON2(?:ID|I|D))\Z")
_CRYPT_COST = {
    "yescrypt": 0,
    "bcrypt": 12,
    "sha512-crypt": 100_000,
    "sha256-crypt": 100_000,
}  # 0: its default
_SHA_CRYPT_ROUNDS = 5000  # where the setting does not say
_SETTING_MAX = 192  # CRYPT_GENSALT_OUTPUT_SIZE
_CRYPT_DATA = 1 << 18  # octets; struct crypt_data is 32 KiB in libxcrypt, 128 KiB in old glibc


# what hash_password makes → the prefix libcrypt knows it by, "" = not libcrypt's
SCHEMES: dict[str, str] = {
    "argon2id": "",
    "scram-sha-256": "",
    "scram-sha-1": "",
    "yescrypt": "$y$",
    "bcrypt": "$2b$",
    "sha512-crypt": "$6$",
    "sha256-crypt": "$5$",
    "ssha512": "",
    "ssha": "",
    "plain": "",
}


def hash_password(password: str, scheme: str = "argon2id") -> str:
    """``password`` as ``scheme`` of SCHEMES stores it: by default argon2id (19 MiB, 2 passes, 1 lane). Raises
    ValueError for an empty password, an unknown scheme, or one that this system's libcrypt does not have."""
    if not password:
        raise ValueError("an empty password protects nothing")
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme}; known: {', '.join(SCHEMES)}")
    if scheme == "argon2id":
        return _HASHER.hash(_prepare(password))
    if SCHEMES[scheme]:
        return _make_crypt(_prepare(password), scheme)
    if scheme == "plain":
        return "{PLAIN}" + password
    if scheme.startswith("scram-"):
        digest: scram_keys.Digest = "SHA-256" if scheme == "scram-sha-256" else "SHA-1"
        return scram_keys.derive(digest, password, os.urandom(scram_keys.SALT)).form
    salt = os.urandom(16)
    algorithm = _DIGESTS[scheme.upper()]
    made = hashlib.new(algorithm, _prepare(password) + salt, usedforsecurity=False).digest() + salt
    return f"{{{scheme.upper()}}}{base64.b64encode(made).decode()}"


def is_outdated(stored: str) -> bool:
    """Whether a login that shows the password should store it anew: a form that is fast to try out, or
    argon2 with less cost than ours. yescrypt, scrypt and bcrypt (cost 10 or more) are left alone."""
    scheme, rest = _split(stored)
    if scheme:
        return True
    if rest.startswith(_ARGON2):
        try:
            found = extract_parameters(rest)
        except InvalidHashError:
            return True
        weaker = found.memory_cost * found.time_cost < _HASHER.memory_cost * _HASHER.time_cost
        return not rest.startswith("$argon2id$") or weaker
    if bcrypt := re.match(r"\$2[aby]\$(\d\d)\$", rest):
        return int(bcrypt[1]) < 10
    return not rest.startswith(("$y$", "$gy$", "$7$"))


def verify(password: str, stored: str) -> bool:
    """Whether ``password`` is the one ``stored`` was made from. False for whatever cannot be read.

    Raises MemoryError alone, when argon2 gets no memory: the answer is unknown then.
    """
    try:
        secret = _prepare(password)
        scheme, rest = _split(stored)
        if scheme == "PLAIN":
            return bool(rest) and hmac.compare_digest(secret, _prepare(rest))
        if keys := scram_keys.parse(stored):
            return scram_keys.fits(password, keys)
        if scheme in _DIGESTS:
            return _verify_digest(secret, _DIGESTS[scheme], rest, salted=scheme != "SHA")
        if rest.startswith(_ARGON2):
            return _verify_argon2(secret, rest)
        return (scheme == "DES-CRYPT" or rest.startswith(_CRYPT)) and _verify_crypt(
            secret, rest.encode("ascii")
        )
    except (InvalidHashError, UnicodeError, binascii.Error):
        return False


def memory(stored: str) -> int:
    """Octets that verifying takes where that is much, as argon2's does; else 0."""
    rest = _split(stored)[1]
    try:
        return extract_parameters(rest).memory_cost << 10 if rest.startswith(_ARGON2) else 0
    except InvalidHashError:
        return 0


def is_known_scheme(stored: str) -> bool:
    """Whether verify() could ever say yes to this stored value, as far as its beginning tells."""
    scheme, rest = _split(stored)
    if scheme.startswith("SCRAM-"):
        return scram_keys.parse(stored) is not None
    if scheme == "PLAIN" or scheme in _DIGESTS:
        return bool(rest)
    crypt = scheme == "DES-CRYPT" or rest.startswith(_CRYPT)
    return rest.startswith(_ARGON2) or (crypt and _libcrypt() is not None)


def is_plain(stored: str) -> bool:
    """Whether the password itself is what is stored."""
    return _split(stored)[0] == "PLAIN"


def fits_digest(stamp: bytes, digest: bytes, stored: str) -> bool:
    """Whether ``digest`` is APOP's (RFC 1939 section 7: MD5 of the greeting's ``stamp`` and the password, in lower
    case hex). False for what is not kept in clear, after as much work. RFC 6856 2.2: prepared by SASLprep."""
    try:
        secret = saslprep(_split(stored)[1], stored=True).encode()
    except ValueError:
        return False
    made = hashlib.md5(stamp + secret, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(made.encode(), digest) and is_plain(stored) and bool(secret)


def is_fast(stored: str) -> bool:
    """Whether verify() takes so much less than argon2 that a wrong password is told from a wrong name."""
    scheme, rest = _split(stored)
    if scheme == "PLAIN" or scheme in _DIGESTS or scheme.startswith("SCRAM-"):
        return True
    if scheme == "DES-CRYPT" or rest.startswith("$1$"):
        return True
    if sha := re.match(r"\$[56]\$(?:rounds=(\d+)\$)?", rest):
        return int(sha[1] or _SHA_CRYPT_ROUNDS) < _CRYPT_COST["sha512-crypt"] // 2
    if bcrypt := re.match(r"\$2[aby]\$(\d\d)\$", rest):
        return int(bcrypt[1]) < 9
    return not rest.startswith(_CRYPT) and memory(stored) < MEMORY // 2


def _prepare(password: str) -> bytes:
    """One spelling for what looks the same (RFC 8265 section 4.2.2: NFC)."""
    return unicodedata.normalize("NFC", password).encode()


def _split(stored: str) -> tuple[str, str]:
    """``{SCHEME}rest`` → (scheme, rest); prefixes that only announce what follows are dropped; "" = none."""
    if not (match := _PREFIX.match(stored)):
        return "", stored
    scheme = match[1].upper()
    scheme = "PLAIN" if scheme == "CLEARTEXT" else scheme
    if scheme == "PLAIN" or scheme in _DIGESTS or scheme.startswith("SCRAM-"):
        return scheme, match[2]
    if not _ANNOUNCING.match(scheme):
        return scheme, ""
    return ("DES-CRYPT" if _DES.match(match[2]) else ""), match[2]


def _verify_argon2(secret: bytes, stored: str) -> bool:
    if extract_parameters(stored).memory_cost > _ARGON2_MEMORY_MAX:
        return False
    try:
        return _HASHER.verify(stored, secret)
    except VerificationError as error:
        if "emory" in str(error):  # argon2's "Memory allocation error": says nothing about the password
            raise MemoryError(str(error)) from error
        return False


def _verify_digest(secret: bytes, algorithm: str, encoded: str, *, salted: bool) -> bool:
    raw = base64.b64decode(encoded.encode("ascii"), validate=True)
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size
    if len(raw) < size or (not salted and len(raw) != size):
        return False
    digest = hashlib.new(algorithm, secret + raw[size:], usedforsecurity=False).digest()
    return hmac.compare_digest(digest, raw[:size])


def _verify_crypt(secret: bytes, stored: bytes) -> bool:
    crypt_r = _libcrypt()
    if (
        crypt_r is None or b"\0" in secret or b"\0" in stored
    ):  # C would stop at the NUL and compare too little
        return False
    result = crypt_r(secret, stored, ctypes.create_string_buffer(_CRYPT_DATA))
    return result is not None and not result.startswith(b"*") and hmac.compare_digest(result, stored)


def _make_crypt(secret: bytes, scheme: str) -> str:
    crypt_r, gensalt = _libcrypt(), _gensalt()
    if crypt_r is None or gensalt is None or b"\0" in secret:
        raise ValueError(f"{scheme} cannot be made on this system")
    setting = ctypes.create_string_buffer(_SETTING_MAX)
    prefix = SCHEMES[scheme].encode()
    chosen = gensalt(prefix, _CRYPT_COST[scheme], None, 0, setting, _SETTING_MAX)
    made = crypt_r(secret, chosen, ctypes.create_string_buffer(_CRYPT_DATA)) if chosen else None
    if made is None or not made.startswith(prefix):
        raise ValueError(f"this system's libcrypt does not know {scheme}")
    return made.decode("ascii")


@cache
def _libcrypt() -> Callable[[bytes, bytes, object], bytes | None] | None:
    """``crypt_r`` of the system, or None on one without libcrypt."""
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        return function
    return None


@cache
def _gensalt() -> Callable[..., bytes | None] | None:
    """``crypt_gensalt_rn`` of libxcrypt, or None on a system without."""
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            function = ctypes.CDLL(name).crypt_gensalt_rn
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        function.argtypes = [text, ctypes.c_ulong, text, ctypes.c_int, pointer, ctypes.c_int]
        return function
    return None
