"""The next hop of a soak: takes most mail, puts some off once, refuses some, and never takes what is for later.test."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from bench.soak_ledger import Ledger

DEFERRED, REFUSED = 10, 50  # one of so many messages
_NUMBER = re.compile(rb"RCPT TO:<r(\d+)@(relay|later)\.test>", re.I)
END = b"\r\n.\r\n"


class Sink(asyncio.Protocol):
    """One connection. ``tried``: numbers that were put off before."""

    def __init__(self, ledger: Ledger, tried: set[int]) -> None:
        self.ledger, self.tried = ledger, tried
        self.rest, self.parts, self.content, self.recipients = b"", list[bytes](), False, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b"220 soak ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        data, position, out = self.rest + data, 0, b""
        while (end := data.find(END if self.content else b"\r\n", position)) >= 0:
            if self.content:
                self.parts.append(data[position:end])
                position, self.content, self.recipients = end + len(END), False, 0
                self.ledger.arrived(b"".join(self.parts), in_mailbox=False)
                self.parts = []
                out += b"250 2.0.0 taken\r\n"
            else:
                line, position = data[position:end], end + 2
                out += self.answer(line)
        self.rest = data[position:]
        if self.content and len(self.rest) >= len(END):
            self.parts.append(self.rest[: 1 - len(END)])
            self.rest = self.rest[1 - len(END) :]
        self.transport.write(out)

    def answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-soak\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
        if verb == b"RCPT":
            return self.recipient(line)
        if verb == b"DATA":
            self.content = self.recipients > 0
            return b"354 go\r\n" if self.content else b"554 5.5.1 no recipients\r\n"
        if verb == b"QUIT":
            self.transport.close()
            return b"221 bye\r\n"
        if verb == b"RSET":
            self.recipients = 0
        return b"250 2.0.0 Ok\r\n"

    def recipient(self, line: bytes) -> bytes:
        found = _NUMBER.match(line)
        if found is None:
            return b"550 5.1.1 nobody\r\n"
        number = int(found[1])
        if found[2] == b"later":
            return b"451 4.3.0 not today\r\n"
        if number % REFUSED == 0:
            return b"550 5.7.1 refused\r\n"
        if number % DEFERRED == 0 and number not in self.tried:
            self.tried.add(number)
            return b"450 4.2.0 later\r\n"
        self.tried.discard(number)
        self.recipients += 1
        return b"250 2.1.5 Ok\r\n"
