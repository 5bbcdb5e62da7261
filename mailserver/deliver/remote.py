"""Delivery by network: one attempt, one destination, as many hosts as it takes (RFC 5321 5.1).

A kept session is used when there is one; if it turns out dead, that counts for nothing. Then the hosts are
tried in order. Only what concerns a host (no connection, greeting, EHLO, 421, connection lost before the
final dot) moves the remaining recipients on to the next one: an answer to MAIL, RCPT or DATA is an answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from mailserver.config import schema
from mailserver.deliver import outcome
from mailserver.deliver.attempt import Attempt
from mailserver.deliver.downgrade import CannotConvert
from mailserver.deliver.mx import Finder
from mailserver.deliver.outcome import HostTrouble
from mailserver.deliver.payload import Payload, load
from mailserver.deliver.pool import Pool
from mailserver.deliver.route import Destination, parse
from mailserver.deliver.session import Opener, Session
from mailserver.deliver.timeouts import Timeouts
from mailserver.deliver.transaction import Transaction
from mailserver.dns.hosts import HostsFile
from mailserver.dns.resolver import Resolver
from mailserver.events import Emit
from mailserver.message.envelope import Deferred, Envelope, Outcome, Recipient

SMTP_PORT = 25


class RemoteDelivery:
    """Delivers as ``hostname``; ``own(address, port)`` says whether that is one of our own listeners.

    ``port`` is where mail exchangers listen; other than 25 only in tests.
    """

    def __init__(
        self,
        settings: schema.Queue,
        resolver: Resolver,
        hostname: str,
        own: Callable[[str, int], bool],
        emit: Emit,
        *,
        timeouts: Timeouts | None = None,
        hosts: HostsFile | None = None,
        rng: random.Random | None = None,
        port: int = SMTP_PORT,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._recipients_max = settings.recipients_per_transaction
        self._finder = Finder(resolver, hostname, own, hosts=hosts, rng=rng)
        self._opener = Opener(hostname, settings.connect_timeout, self._timeouts, emit)
        self._pool = Pool(settings.keep_connection, settings.concurrency_per_destination, self._timeouts.quit)
        self._port = port

    async def __call__(self, attempt: Attempt) -> dict[int, Outcome]:
        """An outcome for every recipient. Raises OSError only when our own content cannot be read."""
        try:
            destination = parse(attempt.destination, self._port)
        except ValueError:
            return dict.fromkeys(
                (r.id for r in attempt.recipients), outcome.bad_destination(attempt.destination)
            )
        payload = await load(attempt.content, attempt.envelope)
        work = _Work(attempt, payload)
        session = self._pool.take(attempt.destination)
        if session is not None:
            with suppress(HostTrouble):  # the peer had tired of waiting: begin afresh
                await self._converse(session, work)
        if work.pending():
            await self._try_hosts(destination, work)
        return work.outcomes

    def reconfigure(self, settings: schema.Queue) -> None:
        """Other settings, from the next attempt on; kept connections stay."""
        self._recipients_max = settings.recipients_per_transaction
        self._opener.connect_timeout = settings.connect_timeout
        self._pool.keep = settings.keep_connection
        self._pool.idle_max = settings.concurrency_per_destination

    async def close(self) -> None:
        """Say goodbye on every idle connection; running attempts end theirs by themselves."""
        await self._pool.close()

    def status(self) -> dict[str, int]:
        """Counts for people."""
        return {"idle_connections": len(self._pool)}

    async def _try_hosts(self, destination: Destination, work: _Work) -> None:
        hosts = await self._finder.hosts(destination)
        if not isinstance(hosts, list):
            work.settle(hosts)
            return
        last: Outcome = Deferred("no host could be tried", "4.4.1", unreachable=True)
        for host in hosts:
            try:
                while work.pending():  # again only when the peer limits what one connection may carry
                    session = await self._opener.open(host, destination)
                    await self._converse(session, work)
            except HostTrouble as trouble:
                last = trouble.outcome
            else:
                return
        work.settle(last)

    async def _converse(self, session: Session, work: _Work) -> None:
        """What is pending, in as many transactions as the peer needs and allows. Raises HostTrouble.

        Each transaction settles at least one recipient.
        """
        try:
            todo, payload, utf8 = await _fit(session, work)
            limit = min(self._recipients_max, session.rcpt_max)
            while todo and session.messages_left > 0:
                transaction = Transaction(session, self._timeouts, work.outcomes)
                await transaction.run(work.envelope, todo[:limit], payload, utf8=utf8)
                todo = transaction.full + todo[limit:]
        except BaseException:
            session.connection.abort()
            raise
        self._pool.give(work.destination, session)


class _Work:
    """What is left to do of an attempt."""

    __slots__ = ("destination", "envelope", "outcomes", "payload", "recipients")

    def __init__(self, attempt: Attempt, payload: Payload) -> None:
        self.envelope: Envelope = attempt.envelope
        self.destination: str = attempt.destination
        self.recipients: tuple[Recipient, ...] = tuple(attempt.recipients)
        self.payload = payload
        self.outcomes: dict[int, Outcome] = {}

    def pending(self) -> list[Recipient]:
        return [r for r in self.recipients if r.id not in self.outcomes]

    def settle(self, result: Outcome) -> None:
        for recipient in self.pending():
            self.outcomes[recipient.id] = result


async def _fit(session: Session, work: _Work) -> tuple[list[Recipient], Payload, bool]:
    """Whether this message can go to this peer: who may be sent, in which form, with SMTPUTF8 or without."""
    offered, remote, payload, envelope = session.offered, session.remote, work.payload, work.envelope
    limit = offered.get("SIZE", "")
    # At most twenty digits (RFC 1870 6); Python refuses to convert thousands.
    if limit.isdecimal() and len(limit) <= 20 and 0 < int(limit) < payload.size:
        work.settle(outcome.too_large(payload.size, int(limit), remote))
        return [], payload, False
    todo = work.pending()
    ascii_message = envelope.sender is None or envelope.sender.isascii()
    ascii_message = ascii_message and not (envelope.smtputf8 and payload.utf8_headers)
    utf8 = not ascii_message or not all(r.address.isascii() for r in todo)
    if utf8 and "SMTPUTF8" not in offered:
        for recipient in todo:
            if not ascii_message or not recipient.address.isascii():
                work.outcomes[recipient.id] = outcome.needs_smtputf8(remote)
        todo, utf8 = work.pending(), False
    if todo and payload.eight_bit and "8BITMIME" not in offered:
        try:
            payload = await payload.seven_bit()
        except CannotConvert as reason:
            work.settle(outcome.needs_8bitmime(remote, str(reason)))
            return [], payload, False
    return todo, payload, utf8
