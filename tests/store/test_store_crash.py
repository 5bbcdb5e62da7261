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
from ledger import WORKER, Ledger, lines

from mailserver.store.durable import CRASH_POINTS

# With 42 kills at crash points below, and 14 and 40 of a whole server (tests/crash), more than 200.
KILLS = 110
PROJECT = WORKER.parents[2]


def run(root: Path, *options: str, crash_at: str = "", seconds: float = 0.0) -> list[tuple[str, str]]:
    """Let the worker work until it kills itself, or for ``seconds`` of acknowledging; what it said."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "MAILSERVER_CRASH_AT": crash_at}
    with subprocess.Popen(
        [sys.executable, WORKER, root, *options], env=environment, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        first = worker.stdout.readline()
        if seconds:
            threading.Timer(seconds, worker.kill).start()
        said = first + worker.stdout.read()
    assert worker.returncode == -signal.SIGKILL
    return lines(said)


@pytest.mark.parametrize("code", ["compiled", "interpreted"])
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_killed_at_every_crash_point(tmp_path: Path, point: str, count: int, code: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(run(tmp_path, code, crash_at=f"{point}:{count}"))
    ledger.check()
    if count == 1:
        ledger.add(run(tmp_path, code, crash_at="after-report:3"))  # it starts again and goes on
        ledger.check()


@pytest.mark.timeout(240)
def test_killed_at_random_again_and_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    chance = random.Random()
    for number in range(KILLS):
        code = chance.choice(("compiled", "interpreted"))
        ledger.add(run(tmp_path, code, seconds=chance.uniform(0.001, 0.03)))
        if number % 10 == 0:
            ledger.check()
    ledger.check()
    assert len(ledger.said["L"]) > 100
    assert len(ledger.said["R"]) > 100


def test_an_unknown_crash_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(tmp_path, crash_at="nowhere")
