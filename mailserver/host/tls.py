"""TLS contexts: the server's, with its certificate files kept current, and that of opportunistic delivery.

Without a configured certificate a self-signed pair is used: STARTTLS between servers does not look at names
(RFC 7435), and a mail program can be told to trust it. Which of several certificates a client sees is decided by the
name it asks for (SNI, RFC 6066 3): an exact name first, then a wildcard, else the first certificate.

A handshake begins in the listeners' one context and goes on in that of the certificate, made anew when files change.
So a renewal shows with the next handshake, all of it or nothing, and an RSA certificate does not stay behind an
ECDSA one, as it would in a context that is loaded twice.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from mailserver.config import schema
from mailserver.host.certificate import make_self_signed
from mailserver.host.heap import Holes
from mailserver.host.pem import pair_faults
from mailserver.host.x509 import Leaf, read_leaf

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1:!AESCCM"  # of TLS 1.2; all of TLS 1.3's are good


class TlsError(Exception):
    """The certificate or key cannot be used; ``str(error)`` names the file and the reason."""


class CertifiedContext(ssl.SSLContext):
    """The context of one certificate; ``ssl_object.context`` is one once a client has said its name."""

    leaf: Leaf


class _Shown(NamedTuple):
    """What clients are shown, swapped whole. ``stamps``: files and states it was made from."""

    first: CertifiedContext
    by_name: dict[str, CertifiedContext]
    stamps: tuple[tuple[str | int, ...], ...]


class ServerContext(ssl.SSLContext):
    """A listener's context; ``asks``: clients may show a certificate of [tls].client_ca (SASL EXTERNAL).

    Only listeners for users should ask: other servers answer with certificates of any authority, and fail.
    """

    asks = False
    _shown: _Shown | None = None
    _holes: Holes

    def wrap_bio(self, *arguments: Any, **more: Any) -> ssl.SSLObject:
        """A handshake begins."""
        self._holes.will_be_filled()
        return super().wrap_bio(*arguments, **more)

    def refresh(self, settings: schema.Tls, data_dir: str) -> bool:
        """Load the files if they are others, or have changed; True if so. New connections use them.

        Looks at each file (stat), reads only what changed. Raises TlsError (unreadable, or certificate and key
        do not fit); the old ones stay in use then.
        """
        pairs = list(_pairs(settings, data_dir))
        authority = str(settings.client_ca) if self.asks and settings.client_ca else ""
        files = [*(path for pair in pairs for path in pair), *([authority] if authority else [])]
        stamps = tuple(_stamp(path) for path in files)
        if self._shown is not None and stamps == self._shown.stamps:
            return False
        contexts = [_certified(certificate, key, authority) for certificate, key in pairs]
        by_name: dict[str, CertifiedContext] = {}
        for context in contexts:
            for name in context.leaf.names:
                by_name.setdefault(name, context)
        self.verify_mode = ssl.CERT_OPTIONAL if authority else ssl.CERT_NONE
        self._shown = _Shown(contexts[0], by_name, stamps)
        return True

    def certificate_for(self, name: str | None) -> CertifiedContext:
        """The context for a client that asks for ``name`` (None: for nothing)."""
        shown = self._shown
        assert shown is not None, "server_context() has refreshed it"
        wanted = (name or "").lower().rstrip(".")
        wildcard = "*." + wanted.partition(".")[2]  # for one label, never more (RFC 9525 6.3)
        return shown.by_name.get(wanted) or shown.by_name.get(wildcard) or shown.first

    def described(self) -> list[dict[str, str]]:
        """Names and end of each certificate, for `status`."""
        shown = self._shown
        contexts = {id(c): c for c in (shown.first, *shown.by_name.values())} if shown else {}
        return [
            {"names": ", ".join(c.leaf.names), "not_after": c.leaf.not_after.isoformat()}
            for c in contexts.values()
        ]

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.certificate_for(name)


def server_context(
    settings: schema.Tls, data_dir: str, hostname: str, *, asks: bool = False
) -> ServerContext:
    """TLS 1.2 and 1.3 for listeners. Makes the self-signed pair in ``data_dir/tls`` when none is configured.

    Raises TlsError when the configured files cannot be used, OSError when the pair cannot be written.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _modern(context)
    context.asks, context._holes = asks, Holes()
    if settings.certificate is None:
        certificate, key = next(_pairs(settings, data_dir))
        if not _usable(certificate, key):
            make_self_signed(certificate, key, hostname)
    context.refresh(settings, data_dir)
    context.sni_callback = context._choose
    return context


def end_point(connection: ssl.SSLObject) -> bytes:
    """tls-server-end-point of the certificate this client was shown (RFC 5929 4), for SCRAM-…-PLUS.

    Empty: there is none, so no -PLUS mechanism may be offered.
    """
    context = connection.context
    return context.leaf.end_point if isinstance(context, CertifiedContext) else b""


def certified_addresses(connection: ssl.SSLObject) -> tuple[str, ...]:
    """Mail addresses (rfc822Name) in the client's verified certificate; empty without one. For EXTERNAL."""
    certificate = connection.getpeercert() or {}
    pairs = cast(tuple[tuple[str, str], ...], certificate.get("subjectAltName", ()))
    return tuple(name for kind, name in pairs if kind == "email")


def _modern(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    context.num_tickets = 1  # of OpenSSL's two, one is always thrown away by mail clients


def _certified(certificate: str, key: str, authority: str = "") -> CertifiedContext:
    """Raises TlsError."""
    context = CertifiedContext(ssl.PROTOCOL_TLS_SERVER)
    _modern(context)
    try:
        _load(context, certificate, key)
        context.leaf = read_leaf(certificate)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TlsError(f"tls: {_explained(certificate, key) or _reason(error)}") from error
    if authority:
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            raise TlsError(f"tls: cannot use client_ca {authority}: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


def _explained(certificate: str, key: str) -> str:
    """Which file it is, and what would be right."""
    faults = pair_faults(certificate, key, datetime.datetime.now(datetime.UTC))
    return "; ".join(f"{fault.wrong}, {fault.right}" for fault in faults if not fault.warning)


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    context.load_cert_chain(certificate, key, password="")  # or OpenSSL asks the terminal for one


def _pairs(settings: schema.Tls, data_dir: str) -> Iterator[tuple[str, str]]:
    """Certificate and key, the first certificate first."""
    if settings.certificate is None:
        yield os.path.join(data_dir, "tls", "certificate.pem"), os.path.join(data_dir, "tls", "key.pem")
    else:
        yield str(settings.certificate), str(settings.key or settings.certificate)
    for pair in settings.certificates:
        yield str(pair.certificate), str(pair.key or pair.certificate)


def _stamp(path: str) -> tuple[str | int, ...]:
    """Raises TlsError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise TlsError(f"tls: cannot use {path}: {error.strerror}") from error
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _usable(certificate: str, key: str) -> bool:
    """Whether our own pair is complete: the machine may have stopped while it was being written."""
    try:
        _certified(certificate, key)
    except TlsError:
        return False
    return True
