"""The ceiling: SMTP in a bare asyncio.Protocol on uvloop, with the system calls of an honest server and nothing else.

    python bench/ceiling.py PORT MAIL [--volatile]

Takes any recipient, files every message in MAIL/u/new by group commit in one thread (as store/durable.py does), and
with --volatile writes nothing at all. No policy, no limits, no routing, no events: what Python and uvloop could do at
best.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import signal
import sys
import threading
from typing import cast

import uvloop

libc = ctypes.CDLL(None)
libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class Disk:
    """Group commit of anonymous files: write, push, link, syncfs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mail: str) -> None:
        self.loop, self.new, self.tmp = loop, f"{mail}/u/new", f"{mail}/u/tmp"
        self.turn: list[tuple[Session, bytes]] = []
        self.inbox: queue.SimpleQueue[list[tuple[Session, bytes]]] = queue.SimpleQueue()
        self.count = 0
        threading.Thread(target=self.run, daemon=True).start()

    def put(self, session: Session, body: bytes) -> None:
        if not self.turn:
            self.loop.call_soon(self.hand_over)
        self.turn.append((session, body))

    def hand_over(self) -> None:
        self.inbox.put(self.turn)
        self.turn = []

    def run(self) -> None:
        while True:
            batch = self.inbox.get()
            while not self.inbox.empty():
                batch += self.inbox.get()
            files = []
            for _, body in batch:
                fd = os.open(self.tmp, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
                os.writev(fd, [b"Received: from client\n", body])
                files.append(fd)
            for fd in files:
                libc.sync_file_range(fd, 0, 0, 2)
            for fd in files:
                libc.sync_file_range(fd, 0, 0, 7)
            for fd in files:
                self.count += 1
                os.link(
                    f"/proc/self/fd/{fd}",
                    f"{self.new}/{self.count}.{os.getpid()}",
                    src_dir_fd=fd,
                    follow_symlinks=True,
                )
            libc.syncfs(files[0])
            for fd in files:
                os.close(fd)
            self.loop.call_soon_threadsafe(report, batch)


def report(batch: list[tuple[Session, bytes]]) -> None:
    for session, _ in batch:
        session.queued()


class Session(asyncio.Protocol):
    """One connection."""

    disk: Disk | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest, self.content = cast(asyncio.Transport, transport), b"", False
        self.transport.write(b"220 ceiling ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        data, position, out = self.rest + data, 0, b""
        while True:
            end = data.find(b"\r\n.\r\n" if self.content else b"\n", position)
            if end < 0:
                break
            if self.content:
                body = data[position : end + 2].replace(b"\r\n", b"\n")
                position, self.content = end + 5, False
                if self.disk is None:
                    out += b"250 2.0.0 queued\r\n"
                else:
                    self.disk.put(self, body)
                continue
            verb, position = data[position : position + 4].upper(), end + 1
            if verb == b"DATA":
                self.content = True
                out += b"354 go\r\n"
            elif verb == b"QUIT":
                self.transport.write(out + b"221 bye\r\n")
                self.transport.close()
                return
            else:
                out += b"250 2.0.0 Ok\r\n"
        self.rest = data[position:]
        if out:
            self.transport.write(out)

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
