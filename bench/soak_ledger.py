"""What became of every message of a soak: acknowledged = delivered + queued + bounced, or some are lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator
from enum import IntFlag

MARK = re.compile(rb"^X-Soak: (\d+)\r?$", re.M)  # in the message, and in the report about it


class Fate(IntFlag):
    """What we know of one message; a byte each, for there are a million."""

    UNKNOWN = 0
    ACKNOWLEDGED = 1
    DELIVERED = 2
    BOUNCED = 4


class Ledger:
    """Messages have numbers; ``local`` says whether the number's recipient has a mailbox of ours."""

    def __init__(self) -> None:
        self.fates = bytearray()
        self.local = bytearray()
        self.ids: dict[int, str] = {}  # queue ids of what is not known to be somewhere else
        self.repeated = 0  # seen a second time: allowed after a broken connection, never silently
        self.errors: Counter[str] = Counter()

    def begin(self, *, local: bool) -> int:
        """The number of a new message."""
        self.fates.append(0)
        self.local.append(local)
        return len(self.fates) - 1

    def acknowledged(self, number: int, id: str) -> None:
        self._add(number, Fate.ACKNOWLEDGED)
        if self.fates[number] == Fate.ACKNOWLEDGED:
            self.ids[number] = id

    def arrived(self, content: bytes, *, in_mailbox: bool) -> None:
        """A message at the next hop, or in a mailbox: there it is a report when its recipient was elsewhere."""
        found = MARK.search(content)
        if found is None:
            self.errors["a message without a number arrived"] += 1
            return
        number = int(found[1])
        bounced = in_mailbox and not self.local[number]
        fate = Fate.BOUNCED if bounced else Fate.DELIVERED
        self.repeated += bool(self.fates[number] & fate)
        self._add(number, fate)
        self.ids.pop(number, None)

    def count(self, fate: Fate) -> int:
        return sum(1 for one in self.fates if one & fate)

    def lost(self, queued: Container[str]) -> Iterator[tuple[int, str]]:
        """Acknowledged, not seen anywhere, and not in the queue."""
        return ((number, id) for number, id in self.ids.items() if id not in queued)

    def _add(self, number: int, fate: Fate) -> None:
        self.fates[number] |= fate
