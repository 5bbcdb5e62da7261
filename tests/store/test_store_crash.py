"""SIGKILL at every crash point and at random: acknowledged means present, and every state on disk is a legal one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crash_worker import content

from mailserver.events import Event
from mailserver.queue.spool import Spool
from mailserver.store.durable import CRASH_POINTS

WORKER = Path(__file__).with_name("crash_worker.py")
PROJECT = WORKER.parents[2]


def run(root: Path, *, crash_at: str = "", seconds: float = 0.0) -> list[tuple[str, str]]:
    """Let the worker work until it kills itself, or for ``seconds`` of acknowledging; what it said."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "MAILSERVER_CRASH_AT": crash_at}
    with subprocess.Popen([sys.executable, WORKER, root], env=environment, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        first = worker.stdout.readline()
        if seconds:
            threading.Timer(seconds, worker.kill).start()
        said = (first + worker.stdout.read()).decode().split("\n")[:-1]
    assert worker.returncode == -signal.SIGKILL
    return [(word, key) for word, _, key in (line.partition(" ") for line in said)]


class Ledger:
    """What has been acknowledged so far, and whether the disk agrees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: dict[str, set[str]] = {word: set() for word in "LRPDSE"}

    def add(self, said: list[tuple[str, str]]) -> None:
        for word, key in said:
            self.said[word].add(key)

    def check(self) -> None:
        assert not self.said["E"]  # nothing was damaged, so nothing was quarantined at a start
        self.check_maildir()
        self.check_spool()

    def check_maildir(self) -> None:
        box = self.root / "mail/example.test/alice"
        for path in [*box.glob("new/*"), *box.glob("cur/*")]:
            assert path.read_bytes() == content(path.name.removesuffix("b:2,"))
        for key in self.said["L"]:
            assert (box / "new" / key).samefile(box / "cur" / f"{key}b:2,")

    def check_spool(self) -> None:
        events: list[Event] = []
        spool = Spool(str(self.root / "queue"), emit=events.append)
        seen = {loaded.envelope.id for loaded in spool.load(read_only=True)}
        loaded = {loaded.envelope.id: loaded for loaded in spool.load()}
        assert seen == set(loaded)
        assert list(spool.scrub()) == []
        assert events == []
        assert self.said["R"] - self.said["D"] <= set(loaded)
        for key, item in loaded.items():
            assert spool.content(item.envelope).read() == content(key)
        for key in (self.said["P"] - self.said["D"]) & set(loaded):
            assert loaded[key].attempts == 1
        queue = self.root / "queue"
        assert not list((queue / "tmp").iterdir())
        assert not list((queue / "quarantine").iterdir())
        states = {path.stem for path in (queue / "msg").glob("*.state")}
        assert states <= set(loaded)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_killed_at_every_crash_point(tmp_path: Path, point: str, count: int) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(run(tmp_path, crash_at=f"{point}:{count}"))
    ledger.check()
    if count == 1:
        ledger.add(run(tmp_path, crash_at="after-report:3"))  # it starts again and goes on
        ledger.check()


def test_killed_at_random_again_and_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    chance = random.Random(5)
    for _ in range(30):
        ledger.add(run(tmp_path, seconds=chance.uniform(0.001, 0.06)))
    ledger.check()
    assert len(ledger.said["L"]) > 100
    assert len(ledger.said["R"]) > 100


def test_an_unknown_crash_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(tmp_path, crash_at="nowhere")
