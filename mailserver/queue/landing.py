"""One message on its way to disk: who gets it into a Maildir at once, who waits in the spool.

Recipients with a mailbox share one file by hard links, whatever their number. A message for mailboxes only
brings its Return-Path in its head already (message.trace.head); local copies of a message that also travels
on get theirs in front. A content that was streamed to a file is adopted, not copied, where it can be.
"""

from __future__ import annotations

import asyncio
import errno

from mailserver.message import trace
from mailserver.message.body import Body
from mailserver.message.envelope import Envelope, Local, Recipient, State
from mailserver.queue.spool import Spool
from mailserver.store.durable import FileSlice, Job, NewFile
from mailserver.store.index import Mailboxes

MACHINE_SICK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)  # writing it to the spool instead of a mailbox would not help: the client is asked to come back


class Landing:
    """``places``: mailbox → its directory. ``spooled``: recipients that stay pending. ``crc``: of a streamed
    content, when it is needed. ``head``: the beginning of the message, when a success report will want it."""

    __slots__ = (
        "body", "crc", "envelope", "head", "name", "places", "result", "rule", "session", "spooled", "wire"
    )  # fmt: skip

    def __init__(
        self, envelope: Envelope, body: Body, session: int, rule: str, result: asyncio.Future[str]
    ) -> None:
        self.envelope, self.body, self.session, self.rule, self.result = envelope, body, session, rule, result
        self.places: dict[str, str] = {}
        self.spooled: list[Recipient] = []
        self.name, self.wire, self.crc, self.head = "", 0, 0, b""

    def sort(self, mailboxes: Mailboxes) -> list[str]:
        """Fill ``places`` and ``spooled``; returns the mailboxes whose directory is not known yet."""
        unknown: list[str] = []
        if self.envelope.hold:
            self._hold_all(f"held: {self.envelope.hold}")
            return unknown
        for recipient in self.envelope.recipients:
            route = recipient.route
            if type(route) is Local:
                if (directory := mailboxes.ready(route.mailbox)) is None:
                    unknown.append(route.mailbox)
                else:
                    self.places[route.mailbox] = directory
            else:
                self.spooled.append(recipient)
        return unknown

    def _hold_all(self, reason: str) -> None:
        """Nobody gets it now, our own mailboxes neither."""
        self.spooled = self.envelope.recipients[:]
        for recipient in self.spooled:
            recipient.last_reply, recipient.status = reason, "4.7.1"

    def spool_all(self, reply: str) -> None:
        """No Maildir could be written: the local recipients wait in the spool like everybody else."""
        self.spool_mailboxes(dict.fromkeys(self.places, reply))

    def spool_mailboxes(self, replies: dict[str, str]) -> None:
        """These mailboxes (with the reason why) wait in the spool; ``places`` keeps the others."""
        for recipient in self.envelope.recipients:
            if isinstance(recipient.route, Local) and (reply := replies.get(recipient.route.mailbox)):
                recipient.state, recipient.last_reply, recipient.status = State.PENDING, reply, "4.2.0"
                self.spooled.append(recipient)
                self.places.pop(recipient.route.mailbox, None)

    def job(self, mailboxes: Mailboxes, spool: Spool, now: float) -> Job:
        """What Durable is to do. Marks who is delivered by it, because the spooled envelope says so."""
        files = []
        if self.places:
            files.append(self._mailbox_file(mailboxes, now))
        if self.spooled:
            pending = {recipient.id for recipient in self.spooled}
            for recipient in self.envelope.recipients:
                recipient.state = State.PENDING if recipient.id in pending else State.DELIVERED
            files.append(self._spool_file(spool))
        return Job(tuple(files))

    def _mailbox_file(self, mailboxes: Mailboxes, now: float) -> NewFile:
        body, size, wire = self.body, self.body.size, self.body.size + self.body.lines
        parts: tuple[bytes | FileSlice, ...] = (body.head, *body.chunks)
        if body.path is not None:
            parts = (FileSlice(body.path, 0, size),)
        if self.spooled and not trace.all_local(self.envelope):
            line = trace.return_path(self.envelope.sender)
            parts, size, wire = (line, *parts), size + len(line), wire + len(line) + 1
        self.name = name = mailboxes.new_name(now, size, wire)
        self.wire = wire
        directories = self.places.values()
        tmp = f"{next(iter(directories))}/tmp/{name}"  # noqa: S108 - the Maildir's own
        names = tuple([f"{directory}/new/{name}" for directory in directories])
        if body.path is not None and not self.spooled:
            return NewFile((), tmp, names, adopt=body.path)
        return NewFile(parts, tmp, names)

    def _spool_file(self, spool: Spool) -> NewFile:
        body, envelope = self.body, self.envelope
        envelope.size = body.size
        if body.path is not None:
            return spool.adopt(envelope, body.path, crc=self.crc)
        return spool.new_file(envelope, (body.head, *body.chunks))
