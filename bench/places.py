"""Where things are, and why the benchmarks cannot run here."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PEERS = Path(os.environ.get("MAILSERVER_PEERS", ROOT.parent / "shared" / "peers"))
PEERS_DIR = Path(os.environ.setdefault("PEERS_DIR", "/tmp/peers"))
RUN = PEERS_DIR / "run"  # the data of every server under load
SINK_PORT = 12599
BOXES = ("u", *(f"{i}u" for i in range(1001)))  # what the load generators of the peers folder expect


class CannotRunError(Exception):
    """Why, in one sentence, and what would help."""


def stop_on_signals() -> None:
    """SIGTERM and SIGINT end the program through its ``finally`` clauses, so that what was started is stopped."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))


def require() -> None:
    """Root, the peers folder and its tools are there (installed when missing), nobody else measures with them, and
    descriptors for 5,000 clients may be opened."""
    if os.geteuid() != 0:
        raise CannotRunError(
            "must run as root: the servers change users and CPU is counted in control groups"
        )
    if not (PEERS / "bench.py").exists():
        raise CannotRunError(f"no peers folder at {PEERS}: set MAILSERVER_PEERS to it")
    _alone()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # smtp-source, mkfs.ext4
    if not (PEERS_DIR / "bin" / "smtpload").exists() or not shutil.which("smtp-source"):
        subprocess.run([PEERS / "setup.sh"], check=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _alone() -> None:
    """Two benchmarks at once would stop each other's servers. Held until this process ends."""
    PEERS_DIR.mkdir(parents=True, exist_ok=True)
    lock = os.open(PEERS_DIR / "bench.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotRunError(f"another benchmark is running with {PEERS_DIR}") from None
