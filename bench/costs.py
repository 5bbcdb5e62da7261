"""What a message costs the event loop in our own code, and what of it each feature costs.

    python -m bench.costs [--rounds 15] [--messages 400]

One W1 session after the other (HELO, MAIL, RCPT, DATA, QUIT, 4 KiB) goes through the whole server of a default
configuration, but between a transport that keeps what is written and a disk that is done at once: no system call of
either is in the figures, and nothing waits. A feature is unplugged by a function that does nothing in its place; its
cost is the median difference of two measurements made right after each other. Needs no root and no peer.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop

from mailserver.app import App
from mailserver.config.load import load
from mailserver.host.disk import DiskWatch
from mailserver.host.tls_contexts import tls_contexts
from mailserver.listeners import Listeners
from mailserver.message import trace
from mailserver.observe.counters import Counters
from mailserver.observe.lines import FORMATS
from mailserver.observe.log import Log
from mailserver.policy.open_relay import OpenRelayGuard
from mailserver.policy.rates import Rates
from mailserver.receive import handler, harvest
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

Plug = tuple[object, str, object]  # where, what, and what stands there instead


def nothing(*_: object, **__: object) -> None:
    """Does it."""


FEATURES: dict[str, tuple[Plug, ...]] = {
    "events: log (its lines are the log thread's) and counters": ((App, "emit", nothing),),
    "  of which the counters": ((Counters, "see", nothing),),
    "  of which handing over to the log's thread": ((Log, "write", nothing),),
    "trace headers (Received, Return-Path)": (
        (trace, "received", lambda **_: b""), (trace, "head", lambda *_: b"Return-Path: <>\n"),
    ),
    "looking for mail loops in the header": ((handler.Handler, "loop_refusal", nothing),),
    "relay rules, with the guard of open relays": (
        (SmtpService, "named", nothing), (OpenRelayGuard, "verdict", lambda _self, _peer, verdict: verdict),
    ),
    "rates, with the count of unknown recipients": (
        (Rates, "connection", nothing), (Rates, "message", nothing), (harvest, "put_off", nothing),
        (harvest, "count", nothing),
    ),
    "limits of connections": ((SmtpService, "_crowded", nothing),),
    "free disk": ((DiskWatch, "has_room", lambda _self: True),),
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


@contextmanager
def unplugged(plugs: tuple[Plug, ...]) -> Iterator[None]:
    with ExitStack() as stack:
        for place, name, instead in plugs:
            stack.enter_context(patch.object(place, name, instead))
        yield


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


async def microseconds(service: SmtpService, messages: int) -> float:
    began = time.thread_time()
    for _ in range(messages):
        await session(service)
    return (time.thread_time() - began) / messages * 1e6


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


async def measure(service: SmtpService, options: argparse.Namespace) -> None:
    await microseconds(service, options.messages)  # warms up
    usual: list[float] = []
    less: dict[str, list[float]] = {name: [] for name in FEATURES}
    for _ in range(options.rounds):
        for name, plugs in FEATURES.items():
            whole = await microseconds(service, options.messages)
            with unplugged(plugs):
                less[name].append(whole - await microseconds(service, options.messages))
            usual.append(whole)
    print(f"\n| a W1 session, all of it in our own code | {statistics.median(usual):.0f} µs |\n| --- | --- |")
    for name, found in less.items():
        print(f"| {name} | {statistics.median(found):.1f} |")
    print(f"| beside it, in the log's thread: a line of text | {line():.1f} |")


def line() -> float:
    """Microseconds for one line of the log."""
    from mailserver.events import Accepted  # noqa: PLC0415 - only here

    event, text = (
        Accepted("1M8E4TH51CHEC", 1, "192.0.2.7", "s@bench.test", ("u@bench.test",), 4300),
        FORMATS["text"](),
    )
    began = time.thread_time()
    for number in range(10_000):
        text(1_700_000_000 + number / 1e6, event)
    return (time.thread_time() - began) / 10_000 * 1e6


async def run(options: argparse.Namespace) -> None:
    patch.object(Durable, "commit", done_at_once).start()
    with tempfile.TemporaryDirectory() as folder:
        await measure(await started(Path(folder)), options)


def main() -> None:
    ap = argparse.ArgumentParser(
        "costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--messages", type=int, default=400)
    uvloop.run(run(ap.parse_args()))


if __name__ == "__main__":
    main()
