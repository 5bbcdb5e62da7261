"""What the listener answers and why: limits, policy and routing joined for EHLO, MAIL, RCPT and content.

Hooks keep aiosmtpd's names and arguments (``server, session, envelope, …``) and are synchronous; only a
look-up of the sender's domain makes MAIL wait. Who every recipient stands for is decided here, once.
"""

# ruff: noqa: N802, ARG002, PLR0911 - a decision returns its reply; verbs and hooks keep the names and arguments of aiosmtpd and asyncio

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mailserver import reply
from mailserver.accounts.sasl import offered
from mailserver.config.schema import Config
from mailserver.message import trace
from mailserver.message.address import Address
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope, Local, Recipient
from mailserver.policy.admission import Permit, Unavailable, recipient
from mailserver.policy.open_relay import BEHIND_GATEWAY
from mailserver.policy.submission import Senders, sender_answer
from mailserver.receive import harvest
from mailserver.receive.binary import to_text
from mailserver.receive.collector import HEADER_MAX, Collector
from mailserver.receive.naming import literal, note
from mailserver.receive.parameters import Rcpt
from mailserver.receive.session import ClientSession, Transaction
from mailserver.receive.spill import MEMORY_MAX, SpillFile
from mailserver.receive.submission import Additions
from mailserver.receive.transfer import Transfer
from mailserver.reply import Reply
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Foreign, Leaf, Leaves, Resolution, resolve

if TYPE_CHECKING:
    from mailserver.receive.server import SmtpService
    from mailserver.receive.wire import Wire

Found = Resolution | Unavailable
SenderCheck = Callable[[str], Awaitable[Reply]]

_RESOLVED_MAX = 20_000  # places that remembered addresses lead to: about 300 octets each
_WIDE = 20  # places: enough work for one turn of the loop
# A value of LIMITS has six digits at most (RFC 9422 4): a higher limit is kept, not announced.
_SAYABLE = 999_999


class Handler:
    """Decisions of one service. ``configure`` swaps the settings while sessions go on."""

    def __init__(
        self,
        service: SmtpService,
        directory: Callable[[], Directory],
        new_id: Callable[[], str],
        storage_ok: Callable[[], bool],
        sender_check: SenderCheck | None,
    ) -> None:
        self._service = service
        self._directory, self._new_id, self._storage_ok = directory, new_id, storage_ok
        self._sender_check = sender_check
        self._date = trace.DateLine()
        self._resolved_in: Directory | None = None
        self._resolved: dict[Address, Resolution] = {}
        self._places = 0
        self.offers_login = service.name != "lmtp"
        self.configure(service.config)

    def configure(self, config: Config) -> None:
        """Everything that depends on the configuration, computed once."""
        self._hostname, self._limits = config.hostname, config.limits
        self._spill_path = os.path.join(config.data_dir, "tmp", "")
        self._senders = Senders(config.submission.senders)
        checks = config.smtp.check_sender_domain and self._service.name == "smtp"
        self._checks_sender = self._sender_check if checks else None
        self._helo = reply.lines(250, [config.hostname])
        self._ehlo: dict[tuple[bool, tuple[str, ...]], Reply] = {}

    def _extensions(self, tls: bool, login: tuple[str, ...]) -> list[str]:
        limits = self._limits
        return [
            self._hostname,
            "PIPELINING",
            f"SIZE {limits.message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "BINARYMIME",
            "DSN",
            "HELP",  # a command that nobody must have is announced, RFC 5321 4.1.1.1
            f"LIMITS MAILMAX={min(limits.messages_per_session, _SAYABLE)} RCPTMAX={min(limits.recipients, _SAYABLE)}",
            *(["STARTTLS"] if tls else []),
            *([f"AUTH {' '.join(login)}"] if login else []),
        ]

    # ---- greetings -------------------------------------------------------------------------------
    def handle_EHLO(
        self, server: Wire, session: ClientSession, envelope: Transaction | None, hostname: str
    ) -> Reply:
        """RFC 5321 4.1.1.1; AUTH offers what is safe here, STARTTLS is offered until it has been used."""
        if refusal := note(session, hostname, extended=True, ours=self._service.names_of_ours(server)):
            return refusal
        offers_login = self.offers_login and session.account is None
        login = offered(server.channel()) if offers_login else ()
        key = not session.tls and self._service.tls is not None, login
        answer = self._ehlo.get(key)
        if answer is None:
            answer = self._ehlo[key] = reply.lines(250, self._extensions(*key))
        return answer

    def handle_HELO(
        self, server: Wire, session: ClientSession, envelope: Transaction | None, hostname: str
    ) -> Reply:
        """RFC 5321 4.1.1.1."""
        ours = self._service.names_of_ours(server)
        return note(session, hostname, extended=False, ours=ours) or self._helo

    # ---- the envelope ----------------------------------------------------------------------------
    def handle_MAIL(
        self, server: Wire, session: ClientSession, envelope: Transaction
    ) -> Reply | Awaitable[Reply]:
        """RFC 5321 4.1.1.2. The transaction opens when the answer is 250."""
        mail = envelope.mail
        if session.account is None and self._service.requires_login:
            return reply.LOGIN_REQUIRED
        if session.messages >= self._limits.messages_per_session:
            return reply.TOO_MANY_MESSAGES
        if mail.international and not mail.smtputf8:
            return reply.NOT_ASCII_WITHOUT_SMTPUTF8
        if mail.size > self._limits.message_size:
            return reply.TOO_LARGE
        if not self._storage_ok():
            return reply.NO_STORAGE
        if mail.sender is not None:
            if session.account is not None:
                return self._sender_owned(server, session.account, mail.sender)
            if self._checks_sender is not None and mail.sender.domain not in self._directory().domains:
                return self._checks_sender(mail.sender.domain)
        return reply.SENDER_OK

    def _sender_owned(self, server: Wire, account: str, sender: Address) -> Reply | Awaitable[Reply]:
        """RFC 6409 6.1, wherever the login took place: else port 25 would be the way around it."""
        if self._senders.names(account, sender):
            return reply.SENDER_OK
        found = self._resolve(self._directory(), sender, server)
        if type(found) is not Leaves and isinstance(found, Awaitable):
            return self._sender_looked_up(found, server, account)
        server.rule, answer = sender_answer(found, account)
        return answer

    async def _sender_looked_up(self, found: Awaitable[Found], server: Wire, account: str) -> Reply:
        server.rule, answer = sender_answer(await found, account)
        return answer

    def handle_RCPT(
        self, server: Wire, session: ClientSession, envelope: Transaction, rcpt: Rcpt
    ) -> Reply | Awaitable[Reply]:
        """RFC 5321 4.1.1.3: unknown recipients are refused here, through aliases too."""
        if envelope.given >= self._limits.recipients:
            return reply.TOO_MANY_RECIPIENTS
        if rcpt.international and not envelope.smtp_utf8:
            return reply.NOT_ASCII_WITHOUT_SMTPUTF8
        if answer := harvest.put_off(self._service, server, session):
            return answer
        directory = self._directory()
        address = self._at_home(rcpt.address, server, directory.default_domain)
        found = self._resolve(directory, address, server)
        if type(found) is not Leaves and isinstance(found, Awaitable):
            return self._looked_up(found, address, server, session, envelope, rcpt)
        return self._decided(found, address, server, session, envelope, rcpt)

    @staticmethod
    def _at_home(address: Address | None, server: Wire, domain: str) -> Address:
        """The bare postmaster, and what was sent to the very address of this listener, are of our first domain
        (RFC 5321 4.1.1.3, RFC 1123 5.2.17)."""
        if address is None:
            return Address("postmaster", domain)
        if address.domain[0] == "[" and address.domain.lower() == literal(server.local_address):
            return Address(address.local, domain)
        return address

    async def _looked_up(
        self, found: Awaitable[Found], address: Address, server: Wire, session: ClientSession,
        envelope: Transaction, rcpt: Rcpt,
    ) -> Reply:  # fmt: skip
        return self._decided(await found, address, server, session, envelope, rcpt)

    def _decided(
        self, found: Found, address: Address, server: Wire, session: ClientSession, envelope: Transaction,
        rcpt: Rcpt,
    ) -> Reply:  # fmt: skip
        harvest.count(self._service, session, found)
        verdict = session.verdict
        if type(found) is Foreign:
            verdict = self._service.gateway.verdict(session.client, verdict)
        decision = recipient(verdict, session.account is not None, found)
        if not isinstance(decision, Permit):
            server.rule = decision.reason
            return decision.reply if verdict is session.verdict else BEHIND_GATEWAY
        envelope.rcpt_tos.append(str(address))
        for leaf in decision.leaves:
            self._add(envelope, leaf, rcpt)
        return reply.RECIPIENT_OK

    def _resolve(self, directory: Directory, address: Address, server: Wire) -> Resolution | Awaitable[Found]:
        """Remembered while the directory stays the same object: it never changes, it is replaced. What somebody
        else has to be asked for is not: who asks remembers. One alias has as many spellings as its letters have cases,
        and thousands of places in each of them."""
        if directory is not self._resolved_in or self._places > _RESOLVED_MAX:
            self._resolved_in, self._resolved, self._places = directory, {}, 0
        resolution = self._resolved.get(address)
        if resolution is None:
            asked = self._service.lookup(address)
            if asked is not None:
                return asked
            resolution = self._resolved[address] = resolve(directory, address)
            self._places += len(resolution.leaves) if type(resolution) is Leaves else 1
        if type(resolution) is Leaves and len(resolution.leaves) > _WIDE:
            server.give_way()
        return resolution

    def _add(self, envelope: Transaction, leaf: Leaf, rcpt: Rcpt) -> None:
        """One copy for each mailbox or address, whichever of several RCPTs led there first."""
        route = leaf.route
        target = route.mailbox if type(route) is Local else leaf.address
        if target in envelope.targets:
            return
        envelope.targets.add(target)
        orcpt = rcpt.orcpt
        if orcpt is None and leaf.alias is not None and leaf.alias.isascii():
            orcpt = "rfc822;" + reply.xtext(leaf.alias)
        envelope.recipients.append(
            Recipient(len(envelope.recipients), leaf.address, route, orcpt, rcpt.notify, leaf.alias)
        )

    # ---- the content -----------------------------------------------------------------------------
    def handle_DATA(
        self, server: Wire, session: ClientSession, envelope: Transaction, *, chunked: bool
    ) -> Transfer:
        """The content begins: recipients are complete, so the trace headers can be written."""
        mail, now = envelope.mail, self._service.now()
        binary = mail.body == "BINARYMIME"
        message = Envelope(
            self._new_id(),
            envelope.mail_from or None,
            envelope.recipients,
            now,
            body="7BIT" if binary else mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
            account=session.account,
            client=session.client,
        )
        received = trace.received(
            helo=session.host_name or "",
            peer=f"IPv6:{session.client}" if ":" in session.client else session.client,
            by=self._hostname,
            protocol=self._protocol(session, mail.smtputf8),
            id=message.id,
            recipient=envelope.rcpt_tos[0] if len(envelope.rcpt_tos) == 1 else None,
            date=self._date.at(now),
        )
        collector = Collector(self._limits.message_size, chunked=chunked, raw=binary)
        path = self._spill_path + message.id
        head = trace.head(message, received)
        transfer = Transfer(
            message, head, collector, budget=self._service.budget, path=path, squeeze=server.squeeze
        )
        if self._service.requires_login:
            transfer.additions = Additions(message, self._date.at(now), self._hostname)
        return transfer

    def _protocol(self, session: ClientSession, smtputf8: bool) -> str:
        """The ``with`` clause: RFC 3848, RFC 6531 4.3."""
        if self._service.is_lmtp:
            name = "UTF8LMTP" if smtputf8 else "LMTP"
        elif smtputf8:
            name = "UTF8SMTP"
        else:
            name = "ESMTP" if session.extended_smtp else "SMTP"
        if session.tls:
            name += "S"
        return name if session.account is None else name + "A"

    def content_refusal(self, transfer: Transfer) -> Reply | None:
        """Faults of the octets themselves."""
        collector = transfer.collector
        if not collector.refusing:
            return None
        if collector.too_large:
            return reply.TOO_LARGE
        return reply.BARE_LINE_END_IN_MESSAGE if collector.bare else None

    def rate_refusal(self, server: Wire, message: Envelope, recipients: int) -> Reply | None:
        """Too much in a while: what an account sends is taken and will be held, anybody else comes again."""
        excess = self._service.rates.message(message.account, message.client, recipients, self._service.now())
        if excess is None:
            return None
        if message.account is not None:
            message.hold = excess.rule
            return None
        server.rule = excess.rule
        return reply.TOO_MUCH_MAIL

    def loop_refusal(self, message: Envelope, header: bytes) -> Reply | None:
        """The message has been here before: too many hops (RFC 5321 6.3), or a Delivered-To of its
        recipient."""
        lower = header.lower()
        if lower.count(b"received:") > self._limits.received_hops:  # the cheap count is never too small
            hops = lower.count(b"\nreceived:") + lower.startswith(b"received:")
            if hops > self._limits.received_hops:
                return reply.LOOP
        if b"delivered-to:" not in lower:
            return None
        seen = {line[13:].strip() for line in lower.split(b"\n") if line.startswith(b"delivered-to:")}
        ours = (r for r in message.recipients if type(r.route) is Local)
        return reply.LOOP if any(r.address.lower().encode() in seen for r in ours) else None

    def to_text(self, transfer: Transfer) -> Body | Reply:
        """BINARYMIME content as a body of text, or why not. Blocking."""
        text = to_text(transfer.raw())
        if text is None:
            return reply.CANNOT_CONVERT
        end = 0 if text.startswith(b"\n") else text.find(b"\n\n", 0, HEADER_MAX)
        header = text[: end if end >= 0 else HEADER_MAX]
        if refusal := self.loop_refusal(transfer.message, header):
            return refusal
        head = transfer.head
        if transfer.additions is not None and len(header) < HEADER_MAX:
            head += transfer.additions.to(header)
        lines = text.count(b"\n") + head.count(b"\n")
        size, eight_bit = len(head) + len(text), not text.isascii()
        if len(text) <= MEMORY_MAX:
            return Body(head, size, lines, (text,), None, eight_bit)
        file = SpillFile(transfer.path + ".text")
        try:
            file.write([head, text])
        except BaseException:
            file.remove()  # else a full disk stays full, and every such message costs a descriptor
            raise
        file.close()
        return Body(head, size, lines, (), file.path, eight_bit)
