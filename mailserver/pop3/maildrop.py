"""The maildrop of one session: a snapshot of the mailbox, and what the client marked in it (RFC 1939 section
5).

Several sessions may hold the same mailbox, each with its own snapshot; nobody locks anybody out. Nothing is
deleted before ``commit`` (QUIT's UPDATE state); a maildrop that is only closed has changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from mailserver.pop3.protocol import Refused
from mailserver.pop3.terms import Terms
from mailserver.store.files import Entry
from mailserver.store.index import Mailboxes, Snapshot

_PART = 2048  # lines per part of a listing: about 1 ms of work (0.1 compiled), 30 to 150 KiB of text


class Maildrop:
    """Numbers are those of RFC 1939: from 1, fixed for the session."""

    __slots__ = (
        "_deleted", "_entries", "_fetched", "_octets", "_snapshot", "folder", "last", "mailbox", "removed",
        "retrieved", "terms",
    )  # fmt: skip

    def __init__(self, mailbox: str, snapshot: Snapshot, terms: Terms) -> None:
        self.mailbox = mailbox
        self.terms = terms  # those of the login, whatever a reload brings
        self.folder = snapshot.folder  # the Maildir's path
        self.last = 0  # the highest number accessed (RFC 1460, LAST)
        self.retrieved = 0
        self.removed = 0
        self._snapshot = snapshot
        self._entries = snapshot.entries
        self._octets = snapshot.octets
        self._deleted: set[int] | None = None
        self._fetched: set[int] | None = None if terms.expire else set()

    def message(self, text: bytes) -> tuple[int, Entry]:
        """The one place that turns a client's number into a message. Raises Refused."""
        if not text.isdigit():
            raise Refused("a message number is expected")
        number = int(text)
        if not 0 < number <= len(self._entries):
            raise Refused("no such message")
        if self._deleted and number in self._deleted:
            raise Refused("the message is marked as deleted")
        return number, self._entries[number - 1]

    @property
    def highest(self) -> int:
        """The highest number there is, whether or not it is marked."""
        return len(self._entries)

    @property
    def count(self) -> int:
        """Messages not marked as deleted."""
        return len(self._entries) - len(self._deleted or ())

    @property
    def octets(self) -> int:
        """Their size on the wire."""
        return self._octets

    def touch(self, number: int) -> None:
        """RETR or DELE accessed this message."""
        self.last = max(self.last, number)

    def fetched(self, number: int) -> None:
        """RETR sends this message."""
        self.retrieved += 1
        if self._fetched is not None:
            self._fetched.add(number)

    def expire(self, now: float) -> None:
        """Mark what goes by EXPIRE (RFC 2449 6.7), at the end of the session. ``now``: Unix seconds."""
        if self._fetched is not None:
            old = self._fetched
        elif self.terms.expire < math.inf:
            old = set(self._older_than(now - self.terms.expire))
        else:
            return
        self._deleted = (self._deleted or set()) | old

    def _older_than(self, time: float) -> Iterator[int]:
        """The oldest stand first. Files of other programs whose names tell no time are nobody's to judge."""
        for number, entry in enumerate(self._entries, 1):
            delivered = entry.name.partition(".")[0]
            if delivered.isascii() and delivered.isdigit() and len(delivered) <= 15:
                if int(delivered) > time:
                    return
                yield number

    def delete(self, text: bytes) -> int:
        """Mark; the number is returned. Raises Refused."""
        number, entry = self.message(text)
        if self._deleted is None:
            self._deleted = set()
        self._deleted.add(number)
        self._octets -= entry.size
        self.touch(number)
        return number

    def reset(self) -> None:
        """Unmark everything."""
        self._deleted = None
        if self._fetched is not None:
            self._fetched.clear()
        self._octets = self._snapshot.octets
        self.last = 0

    def listing(self, *, unique_ids: bool) -> Iterator[bytes]:
        """The lines of LIST or UIDL without the terminating one, in parts of bounded size."""
        for start in range(0, len(self._entries), _PART):
            stop = start + _PART
            text = None if self._deleted else self._entries.lines(start, stop, unique_ids=unique_ids)
            yield self._lines(start, stop, unique_ids=unique_ids) if text is None else text

    def _lines(self, start: int, stop: int, *, unique_ids: bool) -> bytes:
        column = self._entries.unique_ids if unique_ids else self._entries.sizes
        lines = enumerate(column(start, stop), start + 1)
        deleted = self._deleted or ()
        return "".join([f"{number} {value}\r\n" for number, value in lines if number not in deleted]).encode()

    @property
    def marked(self) -> bool:
        """Whether QUIT has anything to delete."""
        return bool(self._deleted)

    async def commit(self, mailboxes: Mailboxes) -> bool:
        """Delete what is marked; False: some of it is still there. Raises OSError, after all is tried."""
        doomed = [self._entries[number - 1] for number in sorted(self._deleted or ())]
        self.removed, fault = await mailboxes.delete(self.mailbox, doomed)
        if fault is not None:
            raise fault
        return self.removed == len(doomed)

    def close(self) -> None:
        """Let the index forget this snapshot. Deletes nothing."""
        self._snapshot.close()
