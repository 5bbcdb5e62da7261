"""What is wrong with a certificate or a key, in words that name the file: for `mailserver check`, a start, a reload.

OpenSSL says little (``[SSL] PEM lib``) and never which of two files it means, so each is looked at alone first.
"""

from __future__ import annotations

import datetime
import re
import ssl
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mailserver.host.x509 import Leaf, read_leaf

_KEY = re.compile(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----(.*?)-----END", re.DOTALL)


class PemFault(NamedTuple):
    """``part``: which of the two files. ``warning``: it can be used and still serves nobody well."""

    part: Literal["certificate", "key"]
    wrong: str
    right: str
    warning: bool = False


def pair_faults(certificate: str, key: str, now: datetime.datetime) -> Iterator[PemFault]:
    """All that is wrong with a certificate and its key; ``now`` with its zone. Blocking, raises nothing."""
    bad = _certificate_fault(certificate)
    leaf: Leaf | None = None
    if isinstance(bad, Leaf):
        leaf = bad
        if leaf.not_after < now:
            wrong = f"{certificate}: ended on {leaf.not_after:%Y-%m-%d}, clients refuse it"
            yield PemFault("certificate", wrong, "renew it", warning=True)
    else:
        yield bad
        if certificate == key and "cannot be read" in bad.wrong:
            return
    if (fault := _key_fault(key) or (_misfit(certificate, key) if leaf else None)) is not None:
        yield fault


def authority_fault(path: str) -> tuple[str, str] | None:
    """What is wrong with a file of authorities (client_ca) and what would be right; None: nothing."""
    return _unloadable(path)


def _certificate_fault(path: str) -> PemFault | Leaf:
    """The certificate, or its fault."""
    if (fault := _unloadable(path)) is not None:
        return PemFault("certificate", *fault)
    try:
        return read_leaf(path)
    except (OSError, ValueError) as error:
        return PemFault("certificate", f"{path}: {error}", "name a PEM file with the certificate chain")


def _unloadable(path: str) -> tuple[str, str] | None:
    """Why the certificates of a file cannot be loaded, and what would be right."""
    text = _read(path)
    if isinstance(text, OSError):
        return _unreadable(path, text)
    if "-----BEGIN CERTIFICATE-----" not in text and "-----BEGIN TRUSTED CERTIFICATE-----" not in text:
        return f"{path}: there is no PEM certificate in it", "name the file with -----BEGIN CERTIFICATE-----"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        return (
            f"{path}: a certificate in it is damaged ({_reason(error)})",
            "copy it again from who issued it",
        )
    return None


def _key_fault(path: str) -> PemFault | None:
    text = _read(path)
    if isinstance(text, OSError):
        return PemFault("key", *_unreadable(path, text))
    found = _KEY.search(text)
    if found is None:
        right = "name the file with -----BEGIN PRIVATE KEY-----"
        return PemFault("key", f"{path}: there is no PEM private key in it", right)
    if "ENCRYPTED" in found[1] or "ENCRYPTED" in found[2]:
        right = f"take it off with `openssl pkey -in {path} -out …`: nobody types it when the server starts"
        return PemFault("key", f"{path}: the key has a passphrase", right)
    return None


def _misfit(certificate: str, key: str) -> PemFault | None:
    """The two together, each of which looks right."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        reason = _reason(error)
        if "mismatch" in reason:
            wrong = f"{key}: the key does not belong to the certificate {certificate}"
            return PemFault("key", wrong, "name the key that the certificate was made with")
        if "too small" in reason or "too weak" in reason:
            return PemFault(
                "certificate", f"{certificate}: OpenSSL refuses it ({reason})", "get a stronger one"
            )
        return PemFault(
            "key", f"{key}: the key is damaged ({reason})", "copy it again from where it was made"
        )
    return None


def _read(path: str) -> str | OSError:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        return error


def _unreadable(path: str, error: OSError) -> tuple[str, str]:
    reason = (error.strerror or "unknown error").lower()
    return f"{path}: cannot be read ({reason})", "name a PEM file that the server's user may read"


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")
