"""Into our mailboxes, later: recipients whose Maildir could not be written when the message was accepted.

The ordinary local delivery does not come through here; ``Queue.accept`` makes it in the accepting commit. A
mailbox that cannot be written is never a permanent failure: somebody will repair it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from mailserver.deliver.attempt import Attempt
from mailserver.message import trace
from mailserver.message.envelope import Deferred, Delivered, Local, Outcome
from mailserver.store.content import Content
from mailserver.store.durable import Durable, FileSlice, Job, NewFile
from mailserver.store.index import Mailboxes

_STATUS = {errno.EDQUOT: "4.2.2", errno.ENOSPC: "4.3.1", errno.EMFILE: "4.3.1", errno.ENFILE: "4.3.1"}


class LocalDelivery:
    """Copies the spooled message into each Maildir, each in its own job: a sick mailbox harms no other.

    ``now`` gives Unix seconds.
    """

    def __init__(self, mailboxes: Mailboxes, durable: Durable, now: Callable[[], float]) -> None:
        self._mailboxes, self._durable, self._now = mailboxes, durable, now

    async def __call__(self, attempt: Attempt) -> dict[int, Outcome]:
        """Delivered or Deferred (RFC 3463: 4.2.2 quota, 4.3.1 no space, 4.2.0 anything else)."""
        wire = attempt.content.length + await asyncio.to_thread(_lines, attempt.content)
        prefix = b"" if trace.all_local(attempt.envelope) else trace.return_path(attempt.envelope.sender)
        by_mailbox: dict[str, Outcome] = {}
        outcomes: dict[int, Outcome] = {}
        for recipient in attempt.recipients:
            assert isinstance(recipient.route, Local)
            mailbox = recipient.route.mailbox
            if mailbox not in by_mailbox:
                by_mailbox[mailbox] = await self._deliver(mailbox, attempt, prefix, wire)
            outcomes[recipient.id] = by_mailbox[mailbox]
        return outcomes

    async def _deliver(self, mailbox: str, attempt: Attempt, prefix: bytes, wire: int) -> Outcome:
        content = attempt.content
        try:
            directory = await self._mailboxes.ensure(mailbox)  # made again if it was deleted
            wire += len(prefix) + prefix.count(b"\n")
            name = self._mailboxes.new_name(self._now(), len(prefix) + content.length, wire)
            file = NewFile(
                (prefix, FileSlice(content.path, content.offset, content.length)),
                f"{directory}/tmp/{name}",  # noqa: S108 - the Maildir's own
                (f"{directory}/new/{name}",),
            )
            await self._durable.commit(Job((file,)))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return Deferred(f"mailbox {mailbox}: {reason}", _STATUS.get(error.errno or 0, "4.2.0"))
        self._mailboxes.delivered(mailbox, name, wire)
        return Delivered(f"in the mailbox of {mailbox}")


def _lines(content: Content) -> int:
    return sum(piece.count(b"\n") for piece in content.chunks())
