"""A Python program of ours under load: started in its own control group, ended by its pid."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.meter import Meter, group_folder, make_group, remove_group
from bench.places import ROOT, CannotRunError

READY = 120.0  # seconds a server may take to say "ready": 1,000,000 messages, 100,000 queued
_READY = re.compile(rb"\bready\b")  # not "already"
STOP = 40.0  # seconds to drain after SIGTERM


class Child:
    """``python -m MODULE ARGUMENTS`` that says "ready" on standard error, which is kept in ``log``."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, root: Path = ROOT) -> None:
        self.name, self.log = name, log
        grouped = make_group(name)
        procs = str(group_folder(name) / "cgroup.procs")

        def join() -> None:
            with open(procs, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))

        began = time.monotonic()
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=root, stderr=said,
                env=os.environ | {"PYTHONPATH": str(root)}, preexec_fn=join if grouped else None,  # noqa: PLW1509 - no threads
            )  # fmt: skip
        self.meter = Meter(group=name) if grouped else Meter(pid=self.process.pid)
        self._until_ready(began + READY)
        self.start_s = time.monotonic() - began  # from exec to ready

    def _until_ready(self, deadline: float) -> None:
        while not _READY.search(self.log.read_bytes()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotRunError(f"{self.name} did not start: {self.log.read_text()[-500:]}")
            time.sleep(0.001)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not end it."""
        self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        remove_group(self.name)
