"""A client that sends at a given rate, whatever the server answers, and says how long the answers took.

    python -m bench.pace HOST:PORT RATE SECONDS

One message of 4 KiB per connection to u@bench.test. A connection begins when its time has come, not when an earlier one
has ended, so a server that stalls cannot hide it. Prints one JSON object: ``reply``: from the final dot to the last
250, the commit; ``txn``: from MAIL; ``conn``: from the moment the message was due. Percentiles in milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from functools import partial
from typing import cast

import uvloop

from bench.tool import percentiles

SIZE = 4096
OPEN = 2000  # connections at once; a message due beyond that is counted as late
PATIENCE = 30.0  # seconds for the last answers
LINE = b"X" * 76 + b"\r\n"
HEAD = b"From: <s@bench.test>\r\nTo: <u@bench.test>\r\nSubject: bench message\r\n\r\n"
BODY = HEAD + LINE * ((SIZE - len(HEAD)) // len(LINE)) + b".\r\n"
DIALOGUE = (  # what to say after each answer
    b"EHLO client.bench.test\r\n",
    b"MAIL FROM:<s@bench.test>\r\n",
    b"RCPT TO:<u@bench.test>\r\n",
    b"DATA\r\n",
    BODY,
    b"QUIT\r\n",
)
MAIL, CONTENT, QUIT = 1, 4, 5


class Times:
    """Seconds, one entry for each message that was answered with 250."""

    def __init__(self) -> None:
        self.reply: list[float] = []
        self.txn: list[float] = []
        self.conn: list[float] = []
        self.failed = self.late = self.open = 0


class Client(asyncio.Protocol):
    """One connection, one message. ``due``: when it should have begun."""

    def __init__(self, due: float, times: Times) -> None:
        self.due, self.times, self.step, self.rest = due, times, 0, b""
        times.open += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line[3:4] != b"-":
                self.answered(line)

    def answered(self, line: bytes) -> None:
        if self.step > QUIT:
            self.transport.close()
            return
        if line[:1] not in b"23":
            self.times.failed += 1
            self.transport.close()
            return
        now = time.perf_counter()
        if self.step == MAIL:
            self.mail = now
        elif self.step == CONTENT:
            self.dot = now
        elif self.step == QUIT:
            self.times.reply.append(now - self.dot)
            self.times.txn.append(now - self.mail)
            self.times.conn.append(now - self.due)
        self.transport.write(DIALOGUE[self.step])
        self.step += 1

    def connection_lost(self, _exc: Exception | None) -> None:
        self.times.open -= 1


async def send(host: str, port: int, rate: float, seconds: float) -> Times:
    loop, times = asyncio.get_running_loop(), Times()
    began, number, total = time.perf_counter(), 0, int(rate * seconds)
    connecting: set[asyncio.Task[tuple[asyncio.Transport, Client]]] = set()
    while number < total:
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        number += 1
        if times.open + len(connecting) >= OPEN:
            times.late += 1
            continue
        client = partial(Client, due, times)
        task = asyncio.create_task(loop.create_connection(client, host, port))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
    deadline = time.perf_counter() + PATIENCE
    while (times.open or connecting) and time.perf_counter() < deadline:  # noqa: ASYNC110 - an event would cost each message
        await asyncio.sleep(0.01)
    times.failed += times.open
    return times


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    rate, seconds = float(sys.argv[2]), float(sys.argv[3])
    gc.disable()  # our own pauses must not be taken for the server's
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        times = runner.run(send(host, int(port), rate, seconds))
    said: dict[str, float] = {
        "sent": len(times.reply),
        "failed": times.failed,
        "late": times.late,
        "rate": rate,
    }
    for name in ("reply", "txn", "conn"):
        said |= {f"{name}_{key}": value for key, value in percentiles(getattr(times, name)).items()}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
