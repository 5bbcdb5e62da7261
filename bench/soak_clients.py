"""Who keeps the server busy in a soak: senders over SMTP, readers over POP3."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from bench.soak_ledger import Ledger

KEPT = 50  # messages sent over one connection
PATIENCE = 60.0  # seconds for any answer
FETCH = 200  # messages at most in one POP3 session
LARGE_EVERY, LARGE, SMALL = 200, 1 << 20, 4096  # octets
LINE = b"X" * 76 + b"\r\n"
_ID = re.compile(rb"queued as (\S+)")


class Unexpected(Exception):  # noqa: N818 - what the server said
    """Another answer than the one that belongs there."""


class Dialogue:
    """Lines out, lines in, each answer within PATIENCE."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, target: str, greeting: bytes) -> Dialogue:
        host, _, port = target.rpartition(":")
        dialogue = cls(*await asyncio.open_connection(host, int(port), limit=LARGE * 2))
        await dialogue.expect(greeting)
        return dialogue

    async def ask(self, command: bytes, answer: bytes) -> bytes:
        self.writer.write(command)
        return await self.expect(answer)

    async def expect(self, answer: bytes) -> bytes:
        """The last line of an answer that begins so."""
        while True:
            async with asyncio.timeout(PATIENCE):
                line = await self.reader.readline()
            if not line.startswith(answer):
                raise Unexpected(line[:60].decode("latin-1").strip() or "connection closed")
            if line[3:4] != b"-":
                return line

    async def lines(self) -> bytes:
        """A multi-line answer of POP3 without its end."""
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readuntil(b"\r\n.\r\n"))[:-3]

    def close(self) -> None:
        self.writer.close()


async def send(
    target: str,
    ledger: Ledger,
    next_due: Callable[[], float | None],
    recipient: Callable[[int], tuple[bool, str]],
) -> None:
    """Messages over connections kept for KEPT of them, until ``next_due`` says None; it says when the next is due
    (monotonic seconds). ``recipient``: of the turn-th message, whether here, and its address with {} for its number."""
    turn = 0
    dialogue: Dialogue | None = None
    while (due := next_due()) is not None:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        try:
            if dialogue is None:
                dialogue = await Dialogue.open(target, b"220")
                await dialogue.ask(b"EHLO client.bench.test\r\n", b"250")
            local, pattern = recipient(turn)
            await _message(
                dialogue, ledger, pattern, local=local, large=turn % LARGE_EVERY == LARGE_EVERY - 1
            )
            turn += 1
            if turn % KEPT == 0:
                await dialogue.ask(b"QUIT\r\n", b"221")
                dialogue.close()
                dialogue = None
        except (OSError, Unexpected, TimeoutError) as error:
            ledger.errors[f"SMTP: {error or type(error).__name__}"] += 1
            if dialogue is not None:
                dialogue.close()
                dialogue = None
            await asyncio.sleep(0.1)
    if dialogue is not None:
        dialogue.close()


async def _message(dialogue: Dialogue, ledger: Ledger, pattern: str, *, local: bool, large: bool) -> None:
    number = ledger.begin(local=local)
    await dialogue.ask(b"MAIL FROM:<%du@bench.test>\r\n" % (number % 100), b"250")
    await dialogue.ask(f"RCPT TO:<{pattern.format(number)}>\r\n".encode(), b"250")
    await dialogue.ask(b"DATA\r\n", b"354")
    size = LARGE if large else SMALL
    body = b"Subject: soak\r\nX-Soak: %d\r\n\r\n" % number + LINE * (size // len(LINE)) + b".\r\n"
    reply = await dialogue.ask(body, b"250")
    found = _ID.search(reply)
    if found is None:
        raise Unexpected(f"no queue id in {reply!r}")
    ledger.acknowledged(number, found[1].decode())


async def read(target: str, ledger: Ledger, box: str) -> int:
    """Fetch and delete what is in a mailbox, at most FETCH; how many there were."""
    dialogue = None
    try:
        dialogue = await Dialogue.open(target, b"+OK")
        await dialogue.ask(f"USER {box}\r\n".encode(), b"+OK")
        await dialogue.ask(b"PASS secret\r\n", b"+OK")
        count = min(FETCH, int((await dialogue.ask(b"STAT\r\n", b"+OK")).split()[1]))
        for number in range(1, count + 1):
            await dialogue.ask(b"RETR %d\r\n" % number, b"+OK")
            ledger.arrived(await dialogue.lines(), in_mailbox=True)
            await dialogue.ask(b"DELE %d\r\n" % number, b"+OK")
        await dialogue.ask(b"QUIT\r\n", b"+OK")
    except (OSError, Unexpected, TimeoutError, asyncio.IncompleteReadError) as error:
        ledger.errors[f"POP3: {error or type(error).__name__}"] += 1
        return 0
    finally:
        if dialogue is not None:
            dialogue.close()
    return count
