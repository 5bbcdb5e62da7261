"""The two TLS contexts of a server: one for other servers, one for users, who may show a certificate."""

from __future__ import annotations

from typing import NamedTuple

from mailserver.config import schema
from mailserver.host.tls import ServerContext, server_context


class TlsContexts(NamedTuple):
    """``servers``: smtp, lmtp. ``users``: submission, pop3; it asks for a certificate of [tls] client_ca."""

    servers: ServerContext
    users: ServerContext

    def refresh(self, settings: schema.Tls, data_dir: str) -> None:
        """Both take over what the files hold now. Raises TlsError."""
        for context in self:
            context.refresh(settings, data_dir)

    def of(self, service: str) -> ServerContext:
        """The context for a service's listeners."""
        return self.users if service in ("submission", "pop3") else self.servers


def tls_contexts(settings: schema.Tls, data_dir: str, hostname: str) -> TlsContexts:
    """See server_context. Raises TlsError, OSError."""
    return TlsContexts(
        server_context(settings, data_dir, hostname),
        server_context(settings, data_dir, hostname, asks=True),
    )
