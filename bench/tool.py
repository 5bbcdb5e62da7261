"""The measuring programs, and what a measurement says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.contenders import Server
from bench.places import PEERS, PEERS_DIR, ROOT, CannotRunError

# ``work``, ``value`` with its ``unit``, ``more`` (whether more is better), ``cpu`` (seconds per 1,000 messages or
# sessions), ``rss_mb``, ``pss_mb`` where sampled, ``p50_ms`` and ``p99_ms`` where measured, and ``bad``: why the
# figure must not be counted. Whatever else the program said is kept beside them.
Row = dict[str, Any]
LONGEST = 900.0  # seconds one program may take


@dataclass
class Load:
    """How to load. ``messages``: upper limit, 0 = the workload's own; ``pss``: sample it, which disturbs timing;
    ``mailbox``: messages in the large mailbox; ``best``: messages/s of W1 so far, by label."""

    messages: int = 0
    pss: bool = False
    mailbox: int = 100_000
    best: dict[str, float] = field(default_factory=dict)

    def limit(self, usual: int) -> int:
        return min(usual, self.messages or usual)


Measure = Callable[[Server, Load], list[Row]]


def rows_of(command: list[str]) -> list[Row]:
    """What a measuring program prints: one JSON object a line. It may fail as long as it says what it measured."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode and not rows:
        raise CannotRunError(f"{' '.join(command[:3])}: {(done.stderr or done.stdout).strip()[-500:]}")
    return rows


def peers_bench(kind: str, server: Server, target: str, load: Load, *options: str) -> list[Row]:
    """Rows of peers/bench.py, one run."""
    pss = ["--pss"] if load.pss else []
    return rows_of([
        sys.executable, str(PEERS / "bench.py"), kind, "--label", server.label, "--target", target,
        "--mail", server.mail, *server.meter.arguments(), "--runs", "1", *options, *pss,
    ])  # fmt: skip


def pop3load(server: Server, *options: str) -> Row:
    """What peers/src/pop3load.c says."""
    said = rows_of([str(PEERS_DIR / "bin" / "pop3load"), *options, *server.pop3.split(":")])[0]
    if said.get("errs"):
        said["bad"] = said["err"]
    return said


def percentiles(seconds: list[float]) -> Row:
    """``p50_ms`` and ``p99_ms``."""
    seconds.sort()
    if not seconds:
        return {}
    return {f"p{p}_ms": round(seconds[(len(seconds) - 1) * p // 100] * 1000, 2) for p in (50, 99)}
