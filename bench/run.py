"""Loads this server and a peer in turn and prints the ratios (bench/README.md)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(os.environ.get("MAILSERVER_PEERS", ROOT.parent / "shared" / "peers"))
PEERS_DIR = Path(os.environ.setdefault("PEERS_DIR", "/tmp/peers"))
SMTP_PORT, POP3_PORT, SINK_PORT = 12561, 12661, 12599
BOXES = ("u", *(f"{i}u" for i in range(1001)))


@dataclass
class Server:
    """One server under load: how to reach it, where it delivers, whose CPU to count."""

    label: str
    smtp: str
    pop3: str
    mail: str
    meter: list[str]


class Ours:
    """This project's server with the mailboxes and the route that the load expects."""

    label = "mailserver"

    def __init__(self) -> None:
        self.folder = PEERS_DIR / "run" / "ours"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        mail = self.folder / "data" / "mail" / "bench.test"
        mail.mkdir(parents=True, exist_ok=True)
        for box in BOXES:
            for sub in ("tmp", "new", "cur"):
                (mail / box / sub).mkdir(parents=True, exist_ok=True, mode=0o700)
        subprocess.run(["chown", "-R", "vmail:vmail", self.folder], check=True)
        config = self.folder / "config.toml"
        config.write_text(self.configuration())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mailserver", "serve", "-c", str(config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "ready" in line:
                break
        else:
            sys.exit("mailserver did not start")
        return Server(
            self.label,
            f"127.0.0.1:{SMTP_PORT}",
            f"127.0.0.1:{POP3_PORT}",
            str(mail),
            ["--pid", str(self.process.pid)],
        )

    def configuration(self) -> str:
        users = "\n".join(f'[users."{box}@bench.test"]\npassword = "{{PLAIN}}secret"' for box in BOXES)
        return f"""hostname = "ours.bench.test"
data_dir = "data"
run_as = "vmail"
[smtp]
listen = ["127.0.0.1:{SMTP_PORT}"]
[pop3]
listen = ["127.0.0.1:{POP3_PORT}"]
[log]
target = "mailserver.log"
[[relay]]
from = "127.0.0.0/8"
action = "relay"
[routes]
"relay.test" = "smtp://127.0.0.1:{SINK_PORT}"
[domains."bench.test"]
{users}
"""

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


class Peer:
    """A server of the peers folder, "postfix" or "dovecot:fast"."""

    def __init__(self, name: str) -> None:
        self.label = name
        self.name, _, variant = name.partition(":")
        self.variant = variant or "default"

    def start(self) -> Server:
        said = self._call("start")
        facts = dict(word.split("=", 1) for word in said.split() if "=" in word)
        address = f"127.0.0.1:{facts['port']}"
        return Server(self.label, address, address, facts["mail"], ["--cg", facts["cg"]])

    def stop(self) -> None:
        self._call("stop")

    def _call(self, verb: str) -> str:
        # The peer's processes keep inherited descriptors open, so its output goes to a file, not to a pipe.
        said = PEERS_DIR / f"{self.name}-{verb}.out"
        with said.open("w") as out:
            subprocess.run(
                [PEERS / "peer.sh", verb, self.name, self.variant], check=True, stdout=out, stderr=out
            )
        return said.read_text()


def load(server: Server, kind: str, work: str, out: Path, messages: int) -> None:
    target = server.smtp if kind == "smtp" else server.pop3
    limit = ["--messages", str(messages)] if messages and kind == "smtp" else []
    subprocess.run(
        [sys.executable, PEERS / "bench.py", kind, "--label", server.label, "--target", target,
         "--mail", server.mail,
         *server.meter, "--work", work, "--runs", "1", "--out", str(out), *limit],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def table(out: Path, ours: str, theirs: str) -> str:
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for line in out.read_text().splitlines():
        row = json.loads(line)
        if row.get("bad"):
            print(f"not counted: {row}", file=sys.stderr)
            continue
        rows.setdefault(row["work"], {}).setdefault(row["label"], []).append(row)
    lines = [
        f"{'':5} {'per second':>24} {'':>7} {'CPU s per 1000':>22} {'':>7} {'peak RSS MB':>19}",
        f"{'':5} {ours:>12} {theirs:>11} {'ratio':>7} {ours:>11} {theirs:>10} {'ratio':>7} "
        f"{ours:>10} {theirs:>8}",
    ]
    for work, by in sorted(rows.items()):
        if ours in by and theirs in by:

            def median(label: str, *keys: str, by: dict[str, list[dict[str, float]]] = by) -> float:
                return statistics.median(next(r[k] for k in keys if k in r) for r in by[label])

            a, b = median(ours, "rate", "sess_per_s"), median(theirs, "rate", "sess_per_s")
            c, d = median(ours, "cpu"), median(theirs, "cpu")
            e, f = median(ours, "rss_mb"), median(theirs, "rss_mb")
            lines.append(
                f"{work:5} {a:12.0f} {b:11.0f} {a / b:6.1f}x {c:11.3f} {d:10.3f} {c / d:6.2f}x "
                f"{e:10.0f} {f:8.0f}"
            )
    return "\n".join(lines)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--peer", default="postfix", help="postfix, exim, opensmtpd:tuned, dovecot:fast, …")
    ap.add_argument("--work", default="W1,W2,W3,W4", help="SMTP workloads of the peers folder")
    ap.add_argument("--pop3", default="", help="POP3 workloads instead: P0,P1,P1c,P2,P3")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--messages", type=int, default=0, help="upper limit of messages per run")
    args = ap.parse_args()
    if not (PEERS / "bench.py").exists() or os.getuid() != 0:
        sys.exit(f"bench: needs root and the peers folder at {PEERS} (MAILSERVER_PEERS)")
    if not (PEERS_DIR / "bin" / "smtpload").exists():
        subprocess.run([PEERS / "setup.sh"], check=True)
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    out = results / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    kind, work = ("pop3", args.pop3) if args.pop3 else ("smtp", args.work)
    sink = Peer("sink") if "W5" in work else None
    if sink:
        sink.start()
    try:
        for _ in range(args.rounds):
            for contender in (Ours(), Peer(args.peer)):
                server = contender.start()
                try:
                    load(server, kind, work, out, args.messages)
                finally:
                    contender.stop()
    finally:
        if sink:
            sink.stop()
    print(table(out, Ours.label, args.peer))


if __name__ == "__main__":
    main()
