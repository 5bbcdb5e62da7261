"""W7: a mailbox of 100,000 messages, and large messages, over POP3."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from bench.contenders import Server
from bench.maildirs import empty
from bench.tool import Load, Row, pop3load

BOX, NUMBER = "7u", "7"
SMALL, LARGE = 1024, 10 << 20  # octets
LARGE_MESSAGES, LARGE_SESSIONS = 5, 10
LATER = 3  # openings, of which the median counts
HEAD = b"From: <s@bench.test>\nTo: <u@bench.test>\nSubject: bench message\n\n"
BORN = 1_700_000_000  # Unix seconds: qmail-pop3d skips what is younger than a second
ONE_SESSION = ("-c", "1", "-n", "1", "-f", NUMBER, "-U", "-r", "0")


def opening(server: Server, load: Load) -> list[Row]:
    """First, later and cold opening: USER PASS STAT UIDL QUIT."""
    return _opening(server, load, "W7o", sized=True)


def opening_foreign(server: Server, load: Load) -> list[Row]:
    """The same for files whose names do not tell their sizes."""
    return _opening(server, load, "W7x", sized=False)


def large(server: Server, _load: Load) -> list[Row]:
    """MB/s of RETR, one client."""
    if server.mail:
        fill(server.mail, BOX, LARGE_MESSAGES, LARGE, sized=True)
    server.meter.settle()
    before = server.meter.cpu()
    messages, sessions = str(LARGE_MESSAGES), str(LARGE_SESSIONS)
    said = pop3load(server, "-c", "1", "-n", sessions, "-k", "1", "-f", NUMBER, "-r", messages)
    cpu = (server.meter.cpu() - before) * 1000 / LARGE_SESSIONS
    memory = {"rss_mb": round(server.meter.rss(), 1)}
    if server.mail:
        empty(server.mail, [BOX])
    return [
        {**said, **memory, "work": "W7r", "value": said["MBps"], "unit": "MB/s", "more": True, "cpu": cpu}
    ]


def _opening(server: Server, load: Load, work: str, *, sized: bool) -> list[Row]:
    fill(server.mail, BOX, load.mailbox, SMALL, sized=sized)
    first = _open(server)
    later = [_open(server) for _ in range(LATER)]
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    cold = _open(server)
    memory = {"pss_mb": round(server.meter.pss(), 1)}
    empty(server.mail, [BOX])
    median = {key: statistics.median(row[key] for row in later) for key in ("value", "cpu", "uidl_ms")}
    bad = [row["bad"] for row in later if row.get("bad")]
    named = {
        "first": first,
        "later": {**later[0], **median, **({"bad": bad[0]} if bad else {})},
        "cold": cold,
    }
    return [{**row, **memory, "work": f"{work} {name}"} for name, row in named.items()]


def _open(server: Server) -> Row:
    server.meter.settle()
    before = server.meter.cpu()
    said = pop3load(server, *ONE_SESSION)
    server.meter.settle()
    cpu = (server.meter.cpu() - before) * 1000
    return {**said, "value": said["sess_p50_ms"], "unit": "ms", "more": False, "cpu": cpu}


def fill(mail: str, box: str, messages: int, size: int, *, sized: bool, sync: bool = True) -> None:
    """``messages`` of ``size`` octets in ``box`` and nothing else, owned by whoever owns the folder."""
    empty(mail, [box])
    folder = f"{mail}/{box}/new"
    owner = os.stat(folder)
    line = b"X" * 76 + b"\n"
    content = HEAD + line * ((size - len(HEAD)) // len(line))
    on_the_wire = len(content) + content.count(b"\n")
    tail = f",S={len(content)},W={on_the_wire}" if sized else ""
    for number in range(messages):
        born = BORN + number // 100
        path = f"{folder}/{born}.M{number % 1_000_000:06}P1234.peer{tail}"
        with open(path, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.utime(path, (born, born))
    if sync:
        os.sync()
