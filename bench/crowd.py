"""A crowd of bad clients: `python -m bench.crowd SMTP_PORT POP3_PORT SLOW IDLE`, "ready", and on until stdin ends.

Idle clients say EHLO, or nothing to POP3 after its greeting, and stay. Slow ones trickle one octet a second: a third of
them a command line, a third the content of a message, a third a POP3 command. They come from 20 addresses of loopback.
A client that is refused or dropped comes again, at most once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys

import uvloop

ADDRESSES = 20
AT_ONCE = 200  # connections being made


async def _connect(port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    source = f"127.0.1.{1 + number % ADDRESSES}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024, local_addr=(source, 0))
    if not (await reader.readline()).startswith((b"220", b"+OK")):
        raise ConnectionError("refused")
    return reader, writer


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *lines: bytes) -> None:
    for line in lines:
        writer.write(line + b"\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass


async def _idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, smtp: bool) -> None:
    if smtp:
        await _say(reader, writer, b"EHLO idle.test")


async def _slow(writer: asyncio.StreamWriter, octets: bytes) -> None:
    for octet in itertools.cycle(octets):
        await asyncio.sleep(1)
        if writer.is_closing():
            raise ConnectionError("dropped")
        writer.write(bytes([octet]))


class Crowd:
    """How many have arrived, and how often one was lost."""

    def __init__(self, size: int) -> None:
        self.room, self.complete = asyncio.Semaphore(AT_ONCE), asyncio.Event()
        self._missing, self.lost = set(range(size)), 0

    def arrived(self, number: int) -> None:
        self._missing.discard(number)
        if not self._missing:
            self.complete.set()


async def _one(number: int, ports: tuple[int, int], slow: bool, crowd: Crowd) -> None:
    smtp = number % 3 != 2
    while True:
        with contextlib.suppress(OSError):
            async with crowd.room:
                reader, writer = await _connect(ports[not smtp], number)
                await _idle(reader, writer, smtp)
            crowd.arrived(number)
            if not slow:
                await reader.read()
            elif smtp and number % 3:
                await _say(reader, writer, b"MAIL FROM:<s@slow.test>", b"RCPT TO:<u@bench.test>", b"DATA")
                await _slow(writer, b"x" * 70 + b"\r\n")
            else:
                await _slow(writer, (b"NOOP" if smtp else b"CAPA") + b" " * 60 + b"\r\n")
        crowd.lost += 1
        await asyncio.sleep(1)


async def main(ports: tuple[int, int], slow: int, idle: int) -> None:
    crowd = Crowd(slow + idle)
    clients = [
        asyncio.create_task(_one(number, ports, number < slow, crowd)) for number in range(slow + idle)
    ]
    await crowd.complete.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(crowd.lost, flush=True)
    for client in clients:
        client.cancel()
    os._exit(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main((int(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])))
