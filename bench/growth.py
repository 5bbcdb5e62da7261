"""Does a message cost the same when there is more of everything? Start-up time and memory, too.

    python -m bench.growth [--axes connections,queue,accounts,mailbox] [--rounds 3] [--image]

Each axis compares two servers of ours, small and large, in turn (A B A B); of several rounds the first warms up. The
load is W1's: one message of 4 KiB per connection, 10 clients. W10 is ``--axes accounts``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import disk, table
from bench.accounts import Size, SizedSite, sized
from bench.contenders import Ours, Server
from bench.places import PEERS_DIR, RESULTS, RUN, CannotRunError, require, stop_on_signals
from bench.pop3_probe import session
from bench.tool import Row, rows_of

SMALL, LARGE = "small", "large"
USUAL = Size()
BOX = "0u"  # where the load goes
PEER = ".peer"  # in the names of messages that fill() made; all others came with the load


@dataclass(frozen=True)
class Axis:
    """``clients`` send at once. ``before``: done to the running server before each load."""

    name: str
    sites: dict[str, SizedSite]
    clients: dict[str, int]
    before: Callable[[Server], None] = lambda _server: None


def axes(options: argparse.Namespace) -> dict[str, Axis]:
    few = {SMALL: 10, LARGE: 10}

    def pair(name: str, large: Size, small: Size = USUAL) -> dict[str, SizedSite]:
        return {SMALL: sized(f"{name}-small", 12561, small), LARGE: sized(f"{name}-large", 12571, large)}

    many = Size(options.accounts, options.aliases, options.messages)
    queued, full = Size(queued=options.queued), Size(accounts=1, messages=options.mailbox)
    found = (
        Axis("connections", pair("connections", USUAL), {SMALL: 10, LARGE: options.connections}),
        Axis("queue", pair("queue", queued), few),
        Axis("accounts", pair("accounts", many), few),
        Axis("mailbox", pair("mailbox", full, Size(accounts=1, messages=1)), few, opened),
    )
    return {axis.name: axis for axis in found}


def opened(server: Server) -> None:
    """The mailbox's index is in memory, as after a login."""
    session(server.pop3, BOX)


def measure(axis: Axis, label: str, contender: Ours, messages: int) -> list[Row]:
    """Start, memory at rest, load, stop."""
    try:
        server = contender.start()
        server.meter.settle()
        rest = {"rss_mb": round(server.meter.rss(), 1), "pss_mb": round(server.meter.pss(), 1)}
        axis.before(server)
        return [
            {
                "work": f"{axis.name}: start",
                "value": round(server.start_s * 1000),
                "unit": "ms",
                "more": False,
                **rest,
            },
            {"work": f"{axis.name}: W1", **_load(server, axis.clients[label], messages)},
        ]
    finally:
        contender.stop()


def _load(server: Server, clients: int, messages: int) -> Row:
    host, port = server.smtp.split(":")
    server.meter.settle()
    before = server.meter.cpu()
    said = rows_of([
        str(PEERS_DIR / "bin" / "smtpload"), "-s", str(clients), "-m", str(messages), "-l", "4096",
        "-t", f"{BOX}@bench.test", host, port,
    ])[0]  # fmt: skip
    server.meter.settle()
    cpu = (server.meter.cpu() - before) * 1000 / messages
    arrived = forget(server.mail)
    wrong = said["err"] or (f"only {arrived} arrived" if arrived < messages else "")
    return {
        **said, "value": said["rate"], "unit": "messages/s", "more": True, "cpu": round(cpu, 3), "bad": wrong,
        "p50_ms": said["txn_p50_ms"], "p99_ms": said["txn_p99_ms"], "rss_mb": round(server.meter.rss(), 1),
    }  # fmt: skip


def forget(mail: str) -> int:
    """Remove what the load has brought; how many that were."""
    brought = [
        e.path for sub in ("new", "cur") for e in os.scandir(f"{mail}/{BOX}/{sub}") if PEER not in e.name
    ]
    for path in brought:
        os.unlink(path)
    return len(brought)


def run(chosen: Sequence[Axis], options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for axis in chosen:
        contenders = {label: Ours(label, site) for label, site in axis.sites.items()}
        for number in range(options.rounds):
            for label, contender in contenders.items():
                place = {"label": label, "round": number, "warm_up": number == 0 and options.rounds > 1}
                for row in measure(axis, label, contender, options.load):
                    rows.append({**row, **place})
                    print(
                        f"round {number} {label} {row['work']}: {row['value']} {row['unit']}", file=sys.stderr
                    )
    return rows


def main() -> None:
    ap = argparse.ArgumentParser(
        "growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--axes", default="connections,queue,accounts,mailbox")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--load", type=int, default=5000, help="messages per measurement")
    for name, size in {"connections": 1000, "queued": 100_000, "accounts": 50_000, "aliases": 100_000,
                       "messages": 100_000, "mailbox": 100_000}.items():  # fmt: skip
        ap.add_argument(f"--{name}", type=int, default=size, help=f"of the large one ({size:,})")
    ap.add_argument("--image", nargs="?", const="16G", metavar="SIZE", help="on a fresh ext4 with a journal")
    options = ap.parse_args()
    stop_on_signals()
    try:
        known = axes(options)
        chosen = [known[name] for name in options.axes.split(",")]
        require()
        if options.image:
            disk.mount_image(options.image)
        RUN.mkdir(parents=True, exist_ok=True)
        print(f"data on {disk.describe(RUN)}", file=sys.stderr)
        rows = run(chosen, options)
    except CannotRunError as error:
        sys.exit(f"growth: {error}")
    except KeyError as unknown:
        sys.exit(f"growth: no axis {unknown}; there are {', '.join(known)}")
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"growth-{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.write_text(
        json.dumps({"options": vars(options), "disk": disk.describe(Path(RUN)), "rows": rows}, indent=1)
    )
    print(f"\n{table.values(rows)}\n\n{table.ratios(rows, LARGE)}\n{table.left_out(rows)}")


if __name__ == "__main__":
    main()
