"""What is done to a server: which command measures what, and what its figure means.

The names W1 … P3 are those of the peers folder, whose bench.py does the work; the others are measured by the files
beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import idle, latency, mailbox
from bench.contenders import Server
from bench.tool import Load, Measure, Row, peers_bench

# Peers that would take minutes for what others do in seconds (peers/RESULTS.md says why): upper limits of messages.
SLOW = {
    ("exim", "W1"): 500, ("exim", "W3"): 500, ("exim", "W5"): 500,
    ("opensmtpd", "W1"): 100, ("opensmtpd", "W3"): 100, ("opensmtpd:tuned", "W5"): 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """``needs``: what a contender must speak, words apart by spaces."""

    name: str
    about: str
    needs: str
    run: Measure

    def suits(self, speaks: frozenset[str]) -> bool:
        return speaks.issuperset(self.needs.split())


def _smtp(name: str) -> Measure:
    def run(server: Server, load: Load) -> list[Row]:
        limits = [n for n in (load.messages, SLOW.get((server.label, name), 0)) if n]
        options = ["--messages", str(min(limits))] if limits else []
        if not server.durable:
            options += ["--drain", "0"]  # nothing is written, so nothing can be counted
        rows = peers_bench("smtp", server, server.smtp, load, "--work", name, *options)
        for row in rows:
            if not server.durable and row.get("got") == 0:
                row.pop("bad", None)
            row |= {"value": row["rate"], "unit": "messages/s", "more": True}
            _latency(row, "txn")
            if name == "W1" and "bad" not in row:
                load.best[server.label] = max(row["rate"], load.best.get(server.label, 0.0))
        return rows

    return run


def _pop3(name: str) -> Measure:
    def run(server: Server, load: Load) -> list[Row]:
        rows = peers_bench("pop3", server, server.pop3, load, "--work", name)
        for row in rows:
            value, unit = (row.get("MBps"), "MB/s") if name == "P3" else (row.get("rate"), "sessions/s")
            row |= {"value": value, "unit": unit, "more": True}
            _latency(row, "sess")
        return rows

    return run


def _latency(row: Row, prefix: str) -> None:
    for point in ("p50_ms", "p99_ms"):
        if f"{prefix}_{point}" in row:
            row[point] = row[f"{prefix}_{point}"]


def _half(server: Server, load: Load) -> list[Row]:
    if server.label not in load.best:
        _smtp("W1")(server, load)
    return latency.half_load(server, load)


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
    Workload("half", "p99 of the last 250 at half of W1's rate", "smtp files", _half),
    Workload("flood", "p99 of POP3 answers while W1 runs", "smtp pop3", latency.flood),
    Workload("P0", "POP3, empty mailbox", "pop3", _pop3("P0")),
    Workload("P1", "POP3, 10 of 100 read and deleted, 10 clients", "pop3", _pop3("P1")),
    Workload("P1c", "POP3, 10 of 40 read and deleted, 100 clients", "pop3", _pop3("P1c")),
    Workload("P2", "POP3, all of 100 read and kept", "pop3", _pop3("P2")),
    Workload("P3", "POP3, 1 MiB messages", "pop3", _pop3("P3")),
    Workload("W7o", "opening a mailbox of 100,000, names with ,S= and ,W=", "pop3", mailbox.opening),
    Workload("W7x", "the same, names without sizes (as Postfix delivers)", "pop3", mailbox.opening_foreign),
    Workload("W7r", "RETR of 10 MiB messages", "retr", mailbox.large),
    Workload("W8s", "memory of 1,000 idle SMTP connections", "smtp files", idle.smtp(1000)),
    Workload("W8s5", "memory of 5,000 idle SMTP connections", "smtp files", idle.smtp(5000)),
    Workload("W8p", "memory of 1,000 idle POP3 logins", "pop3", idle.pop3(1000)),
    Workload("W8p5", "memory of 1,000 idle POP3 logins and 4,000 connections", "pop3", idle.pop3(5000)),
    Workload("W8t", "memory of 1,000 idle TLS connections (POP3)", "tls", idle.tls(1000)),
    Workload("W8t5", "memory of 5,000 idle TLS connections (POP3)", "tls", idle.tls(5000)),
)
WORKLOADS = {one.name: one for one in _ALL}
GROUPS = {
    "W6": ("P0", "P1", "P1c"),
    "W7": ("W7o", "W7x", "W7r"),
    "W8": ("W8s", "W8s5", "W8p", "W8p5", "W8t", "W8t5"),
}


def chosen(names: str) -> list[Workload]:
    """What "W1,W7" means. Raises KeyError with the unknown name."""
    return [WORKLOADS[one] for name in names.split(",") for one in GROUPS.get(name, (name,))]
