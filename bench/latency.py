"""How long answers take: SMTP at half of what the server can do, POP3 while SMTP does all it can."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

from bench.contenders import Server
from bench.mailbox import fill
from bench.maildirs import empty
from bench.pop3_probe import session
from bench.tool import LONGEST, Load, Row, percentiles, rows_of

SECONDS = 10.0  # of half load
FLOOD = 20_000  # messages
READERS = [f"{number}u" for number in range(100, 110)]
PAUSE = 0.01  # seconds between sessions: a reader, not a second flood


def half_load(server: Server, load: Load) -> list[Row]:
    """p99 of the last 250 when messages come at half of the best rate of W1 (``load.best``)."""
    rate = load.best[server.label] / 2
    empty(server.mail, ["u"])
    server.meter.settle()
    before = server.meter.cpu()
    said = rows_of([sys.executable, "-m", "bench.pace", server.smtp, f"{rate:.1f}", f"{SECONDS}"])[0]
    server.meter.settle()
    cpu = (server.meter.cpu() - before) * 1000 / max(1, said["sent"])
    empty(server.mail, ["u"])
    wrong = said["failed"] + said["late"] + (not said["sent"])
    return [{
        **said, "work": "half", "value": said.get("reply_p99_ms"), "unit": f"ms p99 at {rate:.0f}/s", "more": False,
        "p50_ms": said.get("reply_p50_ms"), "p99_ms": said.get("reply_p99_ms"), "cpu": cpu,
        "rss_mb": round(server.meter.rss(), 1), **({"bad": f"{wrong} failed or late"} if wrong else {}),
    }]  # fmt: skip


def flood(server: Server, load: Load) -> list[Row]:
    """p99 of POP3 answers, the login's too, of one reader while ten clients send as fast as they can."""
    for box in READERS:
        fill(server.mail, box, 10, 4096, sized=True)
    empty(server.mail, ["u"])
    messages = load.limit(FLOOD)
    began, answers = time.monotonic(), []
    sender = subprocess.Popen(
        ["smtp-source", "-s", "10", "-m", str(messages), "-l", "4096", "-f", "s@bench.test", "-t", "u@bench.test",
         "-M", "client.bench.test", server.smtp], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for box in itertools.cycle(READERS):
            if sender.poll() is not None or time.monotonic() - began > LONGEST:
                break
            answers += session(server.pop3, box)
            time.sleep(PAUSE)
    finally:
        sender.kill()
        sender.wait()
    rate = messages / (time.monotonic() - began)
    empty(server.mail, ["u", *READERS])
    points = percentiles(answers)
    return [{
        **points, "work": "flood", "value": points["p99_ms"], "unit": f"ms p99 beside {rate:.0f} messages/s",
        "more": False, "answers": len(answers), "rss_mb": round(server.meter.rss(), 1),
        **({"bad": "smtp-source failed"} if sender.returncode else {}),
    }]  # fmt: skip
