"""What is known of one client and of its open transaction: aiosmtpd's Session and Envelope, with our facts.

Their attributes keep aiosmtpd's names and meaning where both have them. Nothing is introspected or
allocated that an idle connection does not need; defaults live on the classes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpd.smtp import Envelope, Session

from mailserver.message.envelope import Recipient
from mailserver.policy.proxy_protocol import Header
from mailserver.policy.relay import Verdict
from mailserver.receive.parameters import Mail


class ClientSession(Session):
    """One connection. ``number`` is its id in events, ``client`` the peer's IP address, ``opened`` loop
    time."""

    ssl: dict[str, Any] | None = None
    host_name: str | None = None
    extended_smtp = False
    proxy_data = None
    auth_data = None
    authenticated: bool | None = None
    _login_data = None
    tls = ""  # protocol version once TLS is active: "TLSv1.3"
    account: str | None = None  # mailbox key of who logged in
    errors = 0  # refused commands since the last accepted message
    login_failures = 0
    messages = 0  # accepted
    proxied: Header | None = None  # what a proxy said when it connected

    def __init__(  # aiosmtpd's own sets ten attributes that the class gives us
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        peer: tuple[str, int],
        verdict: Verdict,
        opened: float,
    ) -> None:
        self.loop = loop
        self.number = number
        self.client, self.port = peer
        self.verdict = verdict
        self.opened = opened

    @property
    def is_loopback(self) -> bool:
        """The client is this very machine: its passwords cross no wire."""
        if self.proxied is not None and self.proxied.local:
            return False  # a proxy that says nothing of its client
        return self.client.startswith("127.") or self.client == "::1"

    @property
    def peer(self) -> tuple[str, int]:  # type: ignore[override] # says str there, and holds what sockets say
        """aiosmtpd's name for address and port."""
        return self.client, self.port


class Transaction(Envelope):
    """MAIL has been accepted; recipients gather. ``given`` counts accepted RCPTs, ``refused`` the others."""

    content = None
    original_content = None

    def __init__(self, mail: Mail) -> None:
        self.mail = mail
        self.mail_from = "" if mail.sender is None else str(mail.sender)
        self.mail_options = list(mail.options)
        self.smtp_utf8 = mail.smtputf8
        self.rcpt_tos: list[str] = []
        # Stays empty: half a KiB for each RCPT, and who reads them has Recipient.
        self.rcpt_options: list[str] = []
        self.recipients: list[Recipient] = []
        self.targets: set[str] = set()  # mailboxes and addresses reached, so that nobody gets two copies
        self.refused = 0

    @property
    def given(self) -> int:
        """Number of accepted RCPT commands; LMTP answers each (RFC 2033 4.2)."""
        return len(self.rcpt_tos)
