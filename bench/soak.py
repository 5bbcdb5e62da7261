"""An hour of everything at once, with a deep queue: is any acknowledged message lost, does memory grow?

    python -m bench.soak [--minutes 60] [--rate 200] [--deep 100000] [--image]

Three in five messages go to mailboxes here, which readers fetch and delete over POP3; the others to a next hop that
puts off one in ten and refuses one in fifty. Beforehand ``--deep`` messages are sent that it puts off for ever.
At the end every acknowledged message must have been fetched, taken by the next hop, reported back, or be in the queue.
Exit code 1 when one is lost or the server did not survive.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from bench import disk
from bench.child import Child
from bench.ours import Site
from bench.places import RESULTS, ROOT, RUN, CannotRunError, require, stop_on_signals
from bench.soak_clients import read, send
from bench.soak_ledger import Fate, Ledger
from bench.soak_sink import Sink

SINK = 12604
SENDERS, READERS, BOXES = 10, 4, 100
FILL_SENDERS = 20
SAMPLE = 5.0  # seconds between two looks at memory and descriptors
DRAIN = 120.0  # seconds for what is under way at the end
MORE = """[queue]
retry = ["5s", "30s", "10m"]
"""


class Soak:
    """One run: the server, the next hop, senders, readers, and what they saw."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ledger = Ledger()
        self.samples: list[dict[str, float]] = []
        routes = (("relay.test", SINK), ("later.test", SINK))
        self.site = Site(RUN / "soak", port=12581, routes=routes, more=MORE)
        self.smtp, self.pop3 = f"127.0.0.1:{self.site.smtp}", f"127.0.0.1:{self.site.pop3}"
        self.stopping = False
        self.sent = 0

    async def run(self, child: Child) -> None:
        loop, tried = asyncio.get_running_loop(), set[int]()
        sink = await loop.create_server(lambda: Sink(self.ledger, tried), "127.0.0.1", SINK, backlog=1024)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        await self._fill()
        helpers = [asyncio.create_task(self._reader(number)) for number in range(READERS)]
        helpers.append(asyncio.create_task(self._watch(child)))
        await self._send(self.options.minutes * 60)
        await self._drain()
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        sink.close()

    def _stop(self) -> None:
        self.stopping = True

    async def _fill(self) -> None:
        """The deep queue, as fast as the server takes it."""
        left = iter(range(self.options.deep))

        def next_due() -> float | None:
            return None if self.stopping or next(left, None) is None else 0.0

        def recipient(_turn: int) -> tuple[bool, str]:
            return False, "r{}@later.test"

        began = time.monotonic()
        await asyncio.gather(
            *(send(self.smtp, self.ledger, next_due, recipient) for _ in range(FILL_SENDERS))
        )
        say(f"{self.options.deep} messages queued in {time.monotonic() - began:.0f} s")

    async def _send(self, seconds: float) -> None:
        began = time.monotonic()

        def next_due() -> float | None:
            due = began + self.sent / self.options.rate
            self.sent += 1
            return None if self.stopping or due > began + seconds else due

        def recipient(turn: int) -> tuple[bool, str]:
            local = turn % 5 < 3
            return local, f"{(turn * 7) % BOXES}u@bench.test" if local else "r{}@relay.test"

        await asyncio.gather(*(send(self.smtp, self.ledger, next_due, recipient) for _ in range(SENDERS)))

    async def _reader(self, number: int) -> None:
        while True:
            for box in range(number, BOXES, READERS):
                await read(self.pop3, self.ledger, f"{box}u")
            await asyncio.sleep(0.2)

    async def _watch(self, child: Child) -> None:
        began = time.monotonic()
        while True:
            meter = child.meter
            self.samples.append({
                "s": round(time.monotonic() - began, 1), "rss_mb": round(meter.rss(), 1),
                "cpu_s": round(meter.cpu(), 2), "descriptors": meter.descriptors(), "open": len(self.ledger.ids),
            })  # fmt: skip
            if len(self.samples) % 12 == 1:
                say(f"{self.samples[-1]} {dict(self.ledger.errors)}")
            await asyncio.sleep(SAMPLE)

    async def _drain(self) -> None:
        """Until all mail for here was fetched and what was put off once was taken, or for DRAIN seconds."""
        deadline = time.monotonic() + DRAIN
        while time.monotonic() < deadline and len(self.ledger.ids) > self.options.deep:  # noqa: ASYNC110 - once a second
            await asyncio.sleep(1)

    def queued(self) -> set[str]:
        """Ids that the server says are in its queue."""
        command = [sys.executable, "-m", "mailserver", "queue", "list", "--json", "-c", str(self.site.config)]
        said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300).stdout
        return {message["id"] for message in json.loads(said)}

    def verdict(self, queued: set[str], exit_code: int | None) -> dict[str, object]:
        ledger, lost = self.ledger, list(self.ledger.lost(queued))
        return {
            "acknowledged": ledger.count(Fate.ACKNOWLEDGED),
            "delivered": ledger.count(Fate.DELIVERED), "bounced": ledger.count(Fate.BOUNCED),
            "queued": len(ledger.ids) - len(lost), "lost": len(lost), "lost_ids": lost[:20],
            "repeated": ledger.repeated, "errors": dict(ledger.errors), "exit_code": exit_code,
            "rss_mb": self._growth("rss_mb"), "descriptors": self._growth("descriptors"),
        }  # fmt: skip

    def _growth(self, key: str) -> list[float]:
        """Medians of the first and the last quarter of the samples."""
        found = [sample[key] for sample in self.samples]
        quarter = max(1, len(found) // 4)
        return [statistics.median(part) for part in (found[:quarter], found[-quarter:])] if found else []


@contextmanager
def running(site: Site) -> Iterator[Child]:
    child = Child("soak", ["mailserver", "serve", "-c", str(site.config)], site.folder / "stderr")
    try:
        yield child
    finally:
        child.stop()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    ap = argparse.ArgumentParser(
        "soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--minutes", type=float, default=60)
    ap.add_argument("--rate", type=float, default=200, help="messages per second, after the queue is deep")
    ap.add_argument(
        "--deep", type=int, help="messages that stay queued (100,000; 2,000 for less than ten minutes)"
    )
    ap.add_argument("--image", nargs="?", const="16G", metavar="SIZE", help="on a fresh ext4 with a journal")
    options = ap.parse_args()
    if options.deep is None:
        options.deep = 100_000 if options.minutes >= 10 else 2_000
    stop_on_signals()
    try:
        require()
        if options.image:
            disk.mount_image(options.image)
        soak = Soak(options)
        soak.site.make()
        say(f"data on {disk.describe(RUN)}")
        with running(soak.site) as child:
            uvloop.run(soak.run(child))
            alive = child.process.poll() is None
            queued = soak.queued() if alive else set[str]()
        verdict = soak.verdict(queued, child.process.returncode)
    except CannotRunError as error:
        sys.exit(f"soak: {error}")
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"soak-{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.write_text(json.dumps({**verdict, "options": vars(options), "samples": soak.samples}, indent=1))
    print(json.dumps(verdict, indent=1))
    sys.exit(1 if verdict["lost"] or not alive or child.process.returncode else 0)


if __name__ == "__main__":
    main()
