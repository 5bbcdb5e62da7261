"""Loads this server and others in turn and prints the ratios (bench/README.md)."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import disk, table
from bench.contenders import OURS, Ceiling, Contender, Given, Ours, Peer, Sendall
from bench.ours import Site
from bench.places import RESULTS, RUN, CannotRunError, require, stop_on_signals
from bench.tool import Load, Row
from bench.workloads import GROUPS, WORKLOADS, Workload, chosen


def main() -> None:
    options = arguments()
    stop_on_signals()
    try:
        works = chosen(options.work)
        require()
        if options.image:
            disk.mount_image(options.image)
        RUN.mkdir(parents=True, exist_ok=True)
        rivals = contenders(options)
        facts = {"time": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "disk": disk.describe(RUN)}
        print(f"{facts['machine']}; data on {facts['disk']}", file=sys.stderr)
        rows = Rounds(facts, options.rounds).run(works, rivals, options)
    except CannotRunError as error:
        sys.exit(f"bench: {error}")
    except KeyError as unknown:
        sys.exit(f"bench: no workload {unknown}; there are {', '.join([*WORKLOADS, *GROUPS])}")
    print(f"\n{table.values(rows)}\n\n{table.ratios(rows, OURS)}\n{table.left_out(rows)}")


def arguments() -> argparse.Namespace:
    works = "\n".join(f"  {one.name:5} {one.about}" for one in WORKLOADS.values())
    ap = argparse.ArgumentParser(
        "bench", description=__doc__, epilog=f"workloads:\n{works}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    ap.add_argument("--work", default="W1,W2,W3,W4,W5", metavar="W1,W2,…")
    ap.add_argument(
        "--peers", default="postfix", help="postfix,exim,opensmtpd:tuned,dovecot:fast,…; '' for none"
    )
    ap.add_argument("--ceiling", action=argparse.BooleanOptionalAction, default=True,
                    help="what the machine could do: bare protocols")  # fmt: skip
    ap.add_argument(
        "--before", type=Path, metavar="DIR", help="another checkout of this project, beside this one"
    )
    ap.add_argument("--given", action="append", default=[], metavar="label=x,smtp=host:port,mail=DIR,pid=N",
                    help="a server that runs already (or pop3=host:port, cg=GROUP)")  # fmt: skip
    ap.add_argument("--rounds", type=int, default=3, help="the first warms up when there are several")
    ap.add_argument("--scheme", default="plain", help="of our passwords: plain, argon2id")
    ap.add_argument("--messages", type=int, default=0, help="upper limit of messages per SMTP measurement")
    ap.add_argument("--mailbox", type=int, default=100_000, help="messages in the large mailbox of W7")
    ap.add_argument("--image", nargs="?", const="8G", metavar="SIZE",
                    help="all data on a fresh ext4 with a journal, in a file of this size (8G)")  # fmt: skip
    return ap.parse_args()


def contenders(options: argparse.Namespace) -> list[Contender]:
    ours = [Ours(OURS, Site(RUN / "ours", scheme=options.scheme))]
    if options.before:
        site = Site(RUN / "before", port=12571, scheme=options.scheme)
        ours.append(Ours("before", site, options.before.resolve()))
    ceilings: list[Contender] = (
        [Ceiling(durable=True), Ceiling(durable=False), Sendall()] if options.ceiling else []
    )
    peers = [Peer(name) for name in options.peers.split(",") if name]
    given = [Given(said) for said in options.given]
    return [*ours, *peers, *given, *ceilings]


class Rounds:
    """A B A B: every workload goes over all contenders in turn, round after round, one server up at a time."""

    def __init__(self, facts: dict[str, str], rounds: int) -> None:
        self.facts, self.rounds = facts, rounds
        self.rows: list[Row] = []
        RESULTS.mkdir(exist_ok=True)
        self.out = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"

    def run(
        self, works: Sequence[Workload], rivals: Sequence[Contender], options: argparse.Namespace
    ) -> list[Row]:
        """All rows; those of the first of several rounds are marked as warm-up and hold the peak PSS."""
        load = Load(options.messages, mailbox=options.mailbox)
        with sink(needed=any(one.needs == "relay" for one in works)):
            for number in range(self.rounds):
                load.pss = warm_up = number == 0 and self.rounds > 1
                for work in works:
                    for rival in rivals:
                        if work.suits(rival.speaks):
                            self._measure(work, rival, load, {"round": number, "warm_up": warm_up})
        return self.rows

    def _measure(self, work: Workload, rival: Contender, load: Load, place: Row) -> None:
        try:
            try:
                rows = list(work.run(rival.start(), load))
            finally:
                rival.stop()
        except (CannotRunError, OSError, subprocess.SubprocessError) as error:
            # One that fails must not end an hour's run.
            rows = [{"work": work.name, "bad": str(error)}]
        for row in rows:
            self.rows.append({"label": rival.label, **row, **place})
            print(self._progress(self.rows[-1]), file=sys.stderr)
        self.out.write_text(json.dumps({**self.facts, "rows": self.rows}, indent=1))

    def _progress(self, row: Row) -> str:
        said = f"{row['value']} {row['unit']}" if not row.get("bad") else f"bad: {row['bad']}"
        return f"round {row['round']}{' (warm-up)' if row['warm_up'] else ''} {row['work']} {row['label']}: {said}"


@contextmanager
def sink(*, needed: bool) -> Iterator[None]:
    """Where relayed mail goes, the same for everybody."""
    if not needed:
        yield
        return
    peer = Peer("sink")
    peer.start()
    try:
        yield
    finally:
        peer.stop()


def machine() -> str:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return (
        f"{len(model)} × {model[0].partition(': ')[2] if model else platform.machine()}, {platform.release()}"
    )


if __name__ == "__main__":
    main()
