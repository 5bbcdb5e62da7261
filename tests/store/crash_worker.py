"""Commits mail into the folder argv[1] until somebody kills it, saying on standard output what is acknowledged.

With argv[2] "interpreted" no compiled code is used.

L name: a message lies in the Maildir; R id: in the spool; P id: tried once; D id: its removal is about to begin.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from mailserver.message.envelope import Envelope, Recipient, Remote
from mailserver.message.ids import IdSource
from mailserver.queue.spool import Spool, checksum
from mailserver.store import maildir, nursery
from mailserver.store.durable import Durable, Job, NewFile
from mailserver.store.steps import STEPS, Steps


def content(key: str) -> bytes:
    """What the message ``key`` must hold; 100 octets to 100 KB."""
    return f"This is {key}.\n".encode() * (1 + sum(key.encode()) % 97 * (100 if key.endswith("5") else 1))


def say(word: str, key: str) -> None:
    os.write(1, f"{word} {key}\n".encode())


def stream(path: str, text: bytes) -> None:
    """As receive does with a large body: on disk, not synced."""
    Path(path).write_bytes(text)


class Worker:
    def __init__(self, root: str, steps: Steps | None) -> None:
        self.durable = Durable(asyncio.get_running_loop(), nursery.prepare(f"{root}/nursery"), steps=steps)
        self.box = f"{root}/mail/example.test/alice"
        maildir.make(self.box)
        os.makedirs(f"{root}/tmp", exist_ok=True)
        self.streamed = f"{root}/tmp"
        self.spool = Spool(f"{root}/queue", emit=lambda event: say("E", str(event)))
        self.loaded = sum(1 for _ in self.spool.load())
        self.ids = IdSource(os.getpid() << 8)
        self.count = 0

    async def local(self) -> None:
        self.count += 1
        key = f"{time.time_ns()}.{self.count}"
        file = NewFile(
            (content(key),), f"{self.box}/tmp/{key}", (f"{self.box}/new/{key}", f"{self.box}/cur/{key}b:2,")
        )
        await self.durable.commit(Job((file,)))
        say("L", key)

    async def remote(self, number: int) -> None:
        key = self.ids.next(time.time())
        text = content(key)
        people = [Recipient(0, "x@remote.test", Remote("remote.test"))]
        envelope = Envelope(key, None, people, time.time(), size=len(text))
        if number % 3:
            file = self.spool.new_file(envelope, (text,))
        else:
            path = f"{self.streamed}/{key}"
            stream(path, text)
            file = self.spool.adopt(envelope, path, crc=checksum(path, len(text)))
        await self.durable.commit(Job((file,)))
        say("R", key)
        if number % 2:
            await self.durable.commit(Job((self.spool.progress(envelope, attempts=1, due=1.0, held=False),)))
            say("P", key)
        if number % 4 > 1:
            say("D", key)
            await self.durable.commit(self.spool.removal(key))


async def main(root: str, steps: Steps | None) -> None:
    worker = Worker(root, steps)
    say("S", str(worker.loaded))
    while True:
        await worker.local()
        await worker.remote(worker.count)
        await asyncio.gather(*(worker.local() for _ in range(6)), *(worker.remote(n) for n in range(12)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], None if "interpreted" in sys.argv[2:] else STEPS))
