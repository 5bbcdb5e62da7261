"""The ceiling: SMTP in a bare asyncio.Protocol on uvloop, with the system calls of an honest server and nothing else.

    python -m bench.ceiling PORT MAIL [--volatile]

Takes any recipient, files every message in MAIL/LOCAL-PART/new by group commit in one thread (as store/durable.py
does, files beginning in the same nursery), and with --volatile writes nothing at all. No policy, no limits, no
routing, no events: what Python and uvloop could do at best.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import signal
import sys
import threading
from itertools import cycle
from typing import NamedTuple, cast

import uvloop

from mailserver.store import nursery
from mailserver.store.journal import has_one_log
from mailserver.store.steps import STEPS, How, Whole

libc = ctypes.CDLL(None)
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
END = b"\r\n.\r\n"
START_WRITING, WAIT_WRITTEN = 2, 7  # flags of sync_file_range(2)


class Message(NamedTuple):
    """One message and whom to tell."""

    session: Session
    body: bytes
    boxes: list[str]


class Disk:
    """Group commit of anonymous files: write, push, link, sync."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mail: str) -> None:
        self.loop, self.mail = loop, mail
        self.folders = cycle(nursery.prepare(f"{mail}/../nursery"))
        self.one_log = has_one_log(os.stat(mail).st_dev)
        self.turn: list[Message] = []
        self.inbox: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
        self.count = 0
        threading.Thread(target=self.run, daemon=True).start()

    def put(self, message: Message) -> None:
        if not self.turn:
            self.loop.call_soon(self.hand_over)
        self.turn.append(message)

    def hand_over(self) -> None:
        self.inbox.put(self.turn)
        self.turn = []

    def run(self) -> None:
        while True:
            batch = self.inbox.get()
            while not self.inbox.empty():
                batch += self.inbox.get()
            self.commit(batch)
            self.loop.call_soon_threadsafe(report, batch)

    def commit(self, batch: list[Message]) -> None:
        folder, files = next(self.folders), []
        for message in batch:
            self.count += 1
            names = [f"{self.mail}/{box}/new/{self.count}.{os.getpid()}" for box in message.boxes]
            files.append(Whole((b"Received: from client\n", message.body), names))
        if STEPS is not None:
            done = STEPS.commit(folder, files, How.LAST if self.one_log else How.WHOLE)
            if not done.durable:
                raise RuntimeError(f"a batch failed: {done}")
        else:
            self.one_by_one(folder, files)

    def one_by_one(self, folder: str, files: list[Whole]) -> None:
        fds = []
        for file in files:
            fds.append(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
            os.writev(fds[-1], file.parts)
        for flags in (START_WRITING, WAIT_WRITTEN):
            for fd in fds:
                libc.sync_file_range(fd, 0, 0, flags)
        for fd, file in zip(fds, files, strict=True):
            for name in file.names:
                os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, follow_symlinks=True)
        if self.one_log:
            os.fsync(fds[-1])
        else:
            libc.syncfs(fds[0])
        for fd in fds:
            os.close(fd)


def report(batch: list[Message]) -> None:
    for message in batch:
        message.session.queued()


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
        self.disk.put(Message(self, body, boxes))
        return b""

    def queued(self) -> None:
        self.transport.write(b"250 2.0.0 queued\r\n")


async def main(port: int, mail: str, volatile: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if not volatile:
        Session.disk = Disk(loop, mail)
    await loop.create_server(Session, "127.0.0.1", port, backlog=2048)
    print("ready", file=sys.stderr, flush=True)
    await stop.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), sys.argv[2], "--volatile" in sys.argv))
