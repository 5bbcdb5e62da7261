"""Descriptors left to this process (RLIMIT_NOFILE), so that clients are refused before files cannot be opened.

The kernel gives the lowest number that is free, so a number says how many are taken below it. A client may only keep
a connection whose number leaves a reserve above it: mail clients are refused first, then new messages (452 4.3.1),
then POP3; what remains is for delivery, the accounts file, the log and the administrator's commands.
"""

from __future__ import annotations

import asyncio
import os

from mailserver.events import Emit, Warned

UNMEASURED = 8  # free descriptors for each client or message that is let in without looking
UNSEEN_MESSAGES = 8  # at most, however far the limit: clients may come up to it meanwhile
LARGEST = 256  # descriptors kept from the most modest, however high the limit


class DescriptorWatch:
    """``limit``: RLIMIT_NOFILE as it is now. Emits Warned once when it gets tight."""

    def __init__(self, limit: int, emit: Emit) -> None:
        self.limit = limit
        self._emit = emit
        self._tight = False
        self._any = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        share = min(limit // 16, LARGEST)
        self._reserves = max(16, share), max(12, share * 3 // 4), max(8, share // 2)
        self._unmeasured = self._messages = 0  # clients and messages that may come before the next look

    def for_session(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this SMTP client may stay."""
        if self._unmeasured:
            self._unmeasured -= 1
            return True
        number = _number(transport)
        self._unmeasured = self._far_from_limit(number)
        return self._leaves(number, self._reserves[0])

    def for_message(self) -> bool:
        """Whether a message may be taken: it needs a file or two."""
        if self._messages:
            self._messages -= 1
            return True
        try:
            number = os.dup(self._any)
        except OSError:
            return self._leaves(self.limit, self._reserves[1])
        os.close(number)
        self._messages = min(self._far_from_limit(number), UNSEEN_MESSAGES)
        return self._leaves(number, self._reserves[1])

    def for_reader(self, transport: asyncio.BaseTransport) -> bool:
        """Whether this POP3 client may stay."""
        return self._leaves(_number(transport), self._reserves[2])

    def _far_from_limit(self, number: int) -> int:
        """How often the next look may be left out: even if seven others come each time, enough is left."""
        return max(0, self.limit - number - 2 * self._reserves[0]) // UNMEASURED

    def _leaves(self, number: int, reserve: int) -> bool:
        if number < self.limit - 2 * self._reserves[0]:
            self._tight = False
        elif not self._tight and number >= self.limit - reserve:
            self._tight = True
            text = (
                f"{self.limit} descriptors are too few, clients are refused: raise the limit (LimitNOFILE=)"
            )
            self._emit(Warned("open files", text))
        return number < self.limit - reserve


def _number(transport: asyncio.BaseTransport) -> int:
    connection = transport.get_extra_info("socket")
    return int(connection.fileno()) if connection is not None else 0
