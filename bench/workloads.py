"""What is done to a server: which command measures what, and what its figure means.

A workload yields rows: ``work``, ``value`` with its ``unit``, ``more`` (whether more is better), ``cpu`` (seconds
per 1,000 messages or sessions), ``rss_mb``, ``pss_mb`` where sampled, ``p50_ms`` and ``p99_ms`` where measured, and
``bad`` when the figure must not be counted. The names are those of the peers folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.contenders import Server
from bench.places import PEERS, CannotRunError

Row = dict[str, Any]
LONGEST = 900.0  # seconds one measurement may take
# Peers that would take minutes for what others do in seconds (peers/RESULTS.md says why): upper limits of messages.
SLOW = {
    ("exim", "W1"): 500, ("exim", "W3"): 500, ("exim", "W5"): 500,
    ("opensmtpd", "W1"): 100, ("opensmtpd", "W3"): 100, ("opensmtpd:tuned", "W5"): 1000,
}  # fmt: skip


@dataclass
class Load:
    """How to load. ``messages``: upper limit, 0 = the workload's own; ``pss``: sample it, which disturbs timing;
    ``size_w7``: messages in the large mailbox; ``best``: W1's best rate so far by label."""

    messages: int = 0
    pss: bool = False
    size_w7: int = 100_000
    best: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """``needs``: what a contender must speak."""

    name: str
    about: str
    needs: str
    run: Callable[[Server, Load], Iterable[Row]]


def _smtp(name: str) -> Callable[[Server, Load], Iterable[Row]]:
    def run(server: Server, load: Load) -> Iterable[Row]:
        limit = SLOW.get((server.label, name), 0)
        limits = [n for n in (load.messages, limit) if n]
        options = ["--messages", str(min(limits))] if limits else []
        if not server.durable:
            options += ["--drain", "0"]  # nothing is written, so nothing can be counted
        rows = list(_bench("smtp", server, server.smtp, load, "--work", name, *options))
        for row in rows:
            if not server.durable and row.get("got") == 0:
                row.pop("bad", None)
            row |= {"value": row["rate"], "unit": "messages/s", "more": True}
            _latency(row, "txn")
            if name == "W1" and "bad" not in row:
                load.best[server.label] = max(row["rate"], load.best.get(server.label, 0.0))
        return rows

    return run


def _pop3(name: str) -> Callable[[Server, Load], Iterable[Row]]:
    def run(server: Server, load: Load) -> Iterable[Row]:
        rows = list(_bench("pop3", server, server.pop3, load, "--work", name))
        for row in rows:
            value, unit = (row.get("MBps"), "MB/s") if name == "P3" else (row.get("rate"), "sessions/s")
            row |= {"value": value, "unit": unit, "more": True}
            _latency(row, "sess")
        return rows

    return run


def _bench(kind: str, server: Server, target: str, load: Load, *options: str) -> Iterable[Row]:
    """Rows of peers/bench.py."""
    command = [
        sys.executable, str(PEERS / "bench.py"), kind, "--label", server.label, "--target", target,
        "--mail", server.mail, *server.meter.arguments(), "--runs", "1", *options,
        *(["--pss"] if load.pss else []),
    ]  # fmt: skip
    return rows_of(command)


def rows_of(command: list[str]) -> list[Row]:
    """What a measuring program prints: one JSON object a line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        raise CannotRunError(f"{' '.join(command[1:3])}: {(done.stderr or done.stdout).strip()[-500:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _latency(row: Row, prefix: str) -> None:
    for point in ("p50_ms", "p99_ms"):
        if f"{prefix}_{point}" in row:
            row[point] = row[f"{prefix}_{point}"]


_ALL = (
    Workload("W1", "one message per connection, 10 clients", "smtp", _smtp("W1")),
    Workload("W2", "connections kept, 10 clients", "smtp", _smtp("W2")),
    Workload("W3", "one message per connection, 100 clients", "smtp", _smtp("W3")),
    Workload("W3b", "1 MiB messages, 10 clients", "smtp", _smtp("W3b")),
    Workload("W4", "100 mailboxes per message (copies)", "smtp", _smtp("W4")),
    Workload("W5", "relay, until the next hop has it", "relay", _smtp("W5")),
    Workload("W1m", "W1 over 100 mailboxes, with latencies", "smtp", _smtp("W1m")),
    Workload("W2m", "W2 over 100 mailboxes, with latencies", "smtp", _smtp("W2m")),
    Workload("W3m", "W3 over 100 mailboxes, with latencies", "smtp", _smtp("W3m")),
    Workload("W5m", "W5 with latencies", "relay", _smtp("W5m")),
    Workload("P0", "POP3, empty mailbox", "pop3", _pop3("P0")),
    Workload("P1", "POP3, 10 of 100 read and deleted, 10 clients", "pop3", _pop3("P1")),
    Workload("P1c", "POP3, 10 of 40 read and deleted, 100 clients", "pop3", _pop3("P1c")),
    Workload("P2", "POP3, all of 100 read and kept", "pop3", _pop3("P2")),
    Workload("P3", "POP3, 1 MiB messages", "pop3", _pop3("P3")),
)
WORKLOADS = {one.name: one for one in _ALL}
