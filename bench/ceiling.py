"""The ceiling: SMTP in a bare asyncio.Protocol on uvloop, with the system calls of an honest server and nothing else.

    python -m bench.ceiling PORT MAIL [--volatile]

Takes any recipient, files every message in MAIL/LOCAL-PART/new by our own group commit, and with --volatile writes
nothing at all. No policy, no limits, no routing, no events: what Python and uvloop could do at best.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from typing import cast

import uvloop

from mailserver.store import nursery
from mailserver.store.durable import Durable, Job, NewFile

END = b"\r\n.\r\n"


class Disk:
    """Where messages go."""

    def __init__(self, mail: str) -> None:
        self.mail, self.numbers = mail, count()
        self.durable = Durable(asyncio.get_running_loop(), nursery.prepare(f"{mail}/../nursery"))

    def put(self, session: Session, body: bytes, boxes: list[str]) -> None:
        name = f"{next(self.numbers)}.{os.getpid()}"
        names = tuple(f"{self.mail}/{box}/new/{name}" for box in boxes)
        job = Job((NewFile((b"Received: from client\n", body), f"{self.mail}/{boxes[0]}/tmp/{name}", names),))
        self.durable.commit(job).add_done_callback(session.queued)


class Session(asyncio.Protocol):
    """One connection."""

    disk: Disk | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest, self.content = cast(asyncio.Transport, transport), b"", False
        self.parts: list[bytes] = []
        self.boxes: list[str] = []
        self.transport.write(b"220 ceiling ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        data, position, out = self.rest + data, 0, b""
        while True:
            end = data.find(END if self.content else b"\n", position)
            if end < 0:
                break
            if self.content:
                self.parts.append(data[position : end + 2])
                position = end + len(END)
                out += self.received()
                continue
            verb, line, position = data[position : position + 4].upper(), data[position:end], end + 1
            if verb == b"RCPT":
                self.boxes.append(line[line.index(b"<") + 1 : line.index(b"@")].decode())
                out += b"250 2.1.5 Ok\r\n"
            elif verb == b"DATA":
                self.content = True
                out += b"354 go\r\n"
            elif verb == b"QUIT":
                self.transport.write(out + b"221 bye\r\n")
                self.transport.close()
                return
            else:
                out += b"250 2.0.0 Ok\r\n"
        self.keep(data[position:])
        if out:
            self.transport.write(out)

    def keep(self, rest: bytes) -> None:
        """What is not yet a whole line or message; of a content all but what may be the beginning of its end."""
        if self.content and len(rest) >= len(END):
            self.parts.append(rest[: 1 - len(END)])
            rest = rest[1 - len(END) :]
        self.rest = rest

    def received(self) -> bytes:
        body = b"".join(self.parts).replace(b"\r\n", b"\n")
        boxes, self.boxes, self.parts, self.content = self.boxes, [], [], False
        if self.disk is None:
            return b"250 2.0.0 queued\r\n"
        self.disk.put(self, body, boxes)
        return b""

    def queued(self, commit: asyncio.Future[None]) -> None:
        commit.result()
        self.transport.write(b"250 2.0.0 queued\r\n")


async def main(port: int, mail: str, volatile: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if not volatile:
        Session.disk = Disk(mail)
    await loop.create_server(Session, "127.0.0.1", port, backlog=2048)
    print("ready", file=sys.stderr, flush=True)
    await stop.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), sys.argv[2], "--volatile" in sys.argv))
