"""TLS contexts: the server's, with its certificate files kept current, and that of opportunistic delivery.

Without a configured certificate a self-signed pair is used: STARTTLS between servers does not look at names
(RFC 7435), and a mail program can be told to trust it.
"""

from __future__ import annotations

import os
import ssl

from mailserver.config import schema
from mailserver.host.certificate import make_self_signed


class TlsError(Exception):
    """The certificate or key cannot be used; ``str(error)`` names the file and the reason."""


class ServerContext(ssl.SSLContext):
    """A server's context that can take over renewed certificate files while connections are open."""

    files: tuple[str, str] = ("", "")
    stamps: tuple[tuple[int, ...], ...] = ()

    def refresh(self, settings: schema.Tls, data_dir: str) -> bool:
        """Load the files if they are others, or have changed; True if so. New connections use them.

        Raises TlsError (unreadable, or certificate and key do not fit); the old pair stays in use then.
        """
        files = _files(settings, data_dir)
        try:
            stamps = tuple(_stamp(path) for path in files)
            if (files, stamps) == (self.files, self.stamps):
                return False
            _load(_modern(), *files)  # first into another context: half a change must not reach the live one
            _load(self, *files)
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror or getattr(error, "reason", None) or str(error)
            raise TlsError(f"tls: cannot use certificate {files[0]} with key {files[1]}: {reason}") from error
        self.files, self.stamps = files, stamps
        return True


def server_context(settings: schema.Tls, data_dir: str, hostname: str) -> ServerContext:
    """TLS 1.2 and 1.3 for listeners. Makes the self-signed pair in ``data_dir/tls`` when none is configured.

    Raises TlsError when the configured files cannot be used, OSError when the pair cannot be written.
    """
    context = _modern()
    if settings.certificate is None:
        certificate, key = _files(settings, data_dir)
        if not _usable(certificate, key):
            make_self_signed(certificate, key, hostname)
    context.refresh(settings, data_dir)
    return context


def client_context() -> ssl.SSLContext:
    """For opportunistic TLS to other servers: any certificate will do, the alternative is no encryption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _modern() -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # of OpenSSL's two, one is always thrown away by mail clients
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    context.load_cert_chain(certificate, key, password="")  # or OpenSSL asks the terminal for one


def _files(settings: schema.Tls, data_dir: str) -> tuple[str, str]:
    if settings.certificate is None:
        return os.path.join(data_dir, "tls", "certificate.pem"), os.path.join(data_dir, "tls", "key.pem")
    return str(settings.certificate), str(settings.key or settings.certificate)


def _stamp(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _usable(certificate: str, key: str) -> bool:
    """Whether our own pair is complete: the machine may have stopped while it was being written."""
    try:
        _load(_modern(), certificate, key)
    except OSError:
        return False
    return True
