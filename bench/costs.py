"""What a message costs the event loop in our own code, and which part of it each feature takes.

    python -m bench.costs [--messages 4000]

One W1 session after the other (HELO, MAIL, RCPT, DATA, QUIT, 4 KiB) goes through the whole server of a default
configuration, but between a transport that keeps what is written and a disk that is done at once: no system call of
either is in the figures, and nothing waits. The parts are those of one profile (cProfile), which makes small functions
look dearer than they are: read them as "at most". Needs no root and no peer.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from mailserver.app import App
from mailserver.config.load import load
from mailserver.events import Accepted
from mailserver.host.disk import DiskWatch
from mailserver.host.tls_contexts import tls_contexts
from mailserver.listeners import Listeners
from mailserver.message import trace
from mailserver.observe.lines import FORMATS
from mailserver.policy.admission import recipient
from mailserver.policy.open_relay import OpenRelayGuard
from mailserver.policy.rates import Rates
from mailserver.queue.accept import Intake
from mailserver.queue.queue import Queue
from mailserver.receive import harvest
from mailserver.receive.handler import Handler
from mailserver.receive.server import SmtpService
from mailserver.store.durable import Durable

CONFIG = """hostname = "ours.bench.test"
data_dir = "data"
[smtp]
listen = ["127.0.0.1:0"]
[submission]
enabled = false
[pop3]
listen = ["127.0.0.1:0"]
[log]
target = "mailserver.log"
[rates]
connections_per_minute = 100000000
[[relay]]
from = "192.0.2.0/24"
action = "relay"
[domains."bench.test"]
[users."u@bench.test"]
password = "{PLAIN}secret"
"""
LINES = b"From: <s@bench.test>\r\nTo: <u@bench.test>\r\nSubject: bench\r\n\r\n" + (b"X" * 76 + b"\r\n") * 52
COMMANDS = (
    b"HELO client.bench.test\r\n",
    b"MAIL FROM:<s@bench.test>\r\n",
    b"RCPT TO:<u@bench.test>\r\n",
    b"DATA\r\n",
)

FEATURES: dict[str, tuple[Callable[..., object], ...]] = {
    "events: counters, and handing over to the log's thread": (App.emit,),
    "trace headers (Received, Return-Path)": (trace.received, trace.head),
    "looking for mail loops in the header": (Handler.loop_refusal,),
    "relay rules, with the guard of open relays": (SmtpService._verdict, SmtpService.named, OpenRelayGuard.verdict),
    "looking up the recipient": (Handler._resolve, recipient),
    "rates, with the count of unknown recipients": (
        Rates.connection, Handler.rate_refusal, harvest.put_off, harvest.count
    ),
    "limits of connections": (SmtpService._crowded,),
    "free disk": (DiskWatch.has_room,),
    "the queue's ledger, index and job for the disk": (Queue.accept, Intake._landed),
}  # fmt: skip


class Wall(asyncio.Transport):
    """A client's end that takes everything."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.7", 40000), "sockname": ("192.0.2.1", 25)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said = bytes(data)

    def close(self) -> None:
        pass

    abort = resume_reading = pause_reading = close

    def is_closing(self) -> bool:
        return False


def done_at_once(_durable: Durable, _job: object) -> asyncio.Future[None]:
    """A disk without a delay: in the loop's next turn, as every disk at the earliest."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    return future


async def session(service: SmtpService) -> None:
    listener, transport = service._make(None), Wall()
    listener.connection_made(transport)
    for command in COMMANDS:
        listener.data_received(command)
    listener.data_received(LINES + b".\r\n")
    while listener._busy:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    assert transport.said.startswith(b"250 "), transport.said
    listener.data_received(b"QUIT\r\n")
    listener.connection_lost(None)


async def started(folder: Path) -> SmtpService:
    (folder / "config.toml").write_text(CONFIG)
    (folder / "data").mkdir()
    loaded = load(folder / "config.toml")
    tls = tls_contexts(loaded.config.tls, str(loaded.config.data_dir), loaded.config.hostname)
    app = App(folder / "config.toml", loaded, Listeners(loaded.config), tls)
    app._build(asyncio.get_running_loop())
    await app._start()
    service = app.services["smtp"]
    assert isinstance(service, SmtpService)
    return service


async def run(messages: int) -> None:
    setattr(Durable, "commit", done_at_once)  # noqa: B010 - mypy knows better than to assign a method
    with tempfile.TemporaryDirectory() as folder:
        service = await started(Path(folder))
        times, profile = [], cProfile.Profile()
        for _ in range(10):
            began = time.thread_time()
            for _ in range(messages // 10):
                await session(service)
            times.append((time.thread_time() - began) / (messages // 10) * 1e6)
        with profile:
            for _ in range(messages):
                await session(service)
    table(min(times), pstats.Stats(profile))


def table(usual: float, stats: pstats.Stats) -> None:
    """``usual``: microseconds without the profiler, of which each part gets its share."""
    spent = {(file, line): cumulative for (file, line, _), (_, _, _, cumulative, _) in stats.stats.items()}  # type: ignore[attr-defined]  # not in typeshed
    whole = sum(own for _, _, own, _, _ in stats.stats.values())  # type: ignore[attr-defined]  # same
    print(f"| a W1 session, all of it in our own code | {usual:.0f} µs |\n| --- | --- |")
    for name, parts in FEATURES.items():
        part = sum(spent.get((f.__code__.co_filename, f.__code__.co_firstlineno), 0.0) for f in parts)
        print(f"| {name} | {part / whole * usual:.1f} |")
    print(f"| beside it, in the log's thread: a line of text | {line():.1f} |")


def line() -> float:
    """Microseconds for one line of the log."""
    event = Accepted("1M8E4TH51CHEC", 1, "192.0.2.7", "s@bench.test", ("u@bench.test",), 4300)
    text = FORMATS["text"]()
    began = time.thread_time()
    for number in range(10_000):
        text(1_700_000_000 + number / 1e6, event)
    return (time.thread_time() - began) / 10_000 * 1e6


def main() -> None:
    ap = argparse.ArgumentParser(
        "costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--messages", type=int, default=4000)
    uvloop.run(run(ap.parse_args().messages))


if __name__ == "__main__":
    main()
