"""CPU, memory and descriptors of all processes of a server: a control group of the peers folder, or a pid."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup/cpuacct")  # version 1, as peers/common.sh makes them
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Meter:
    """``group``: name of a control group of the peers folder; else the process ``pid``, without its children."""

    group: str = ""
    pid: int = 0

    def arguments(self) -> list[str]:
        """How peers/bench.py is told."""
        return ["--cg", self.group] if self.group else ["--pid", str(self.pid)]

    def pids(self) -> list[int]:
        if not self.group:
            return [self.pid]
        return [int(pid) for pid in (group_folder(self.group) / "cgroup.procs").read_text().split()]

    def cpu(self) -> float:
        """Seconds so far, user and system."""
        if self.group:
            return int((group_folder(self.group) / "cpuacct.usage").read_text()) / 1e9
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK

    def settle(self, limit: float = 20.0) -> None:
        """Wait until the server uses no CPU, or for ``limit`` seconds."""
        end, last = time.monotonic() + limit, self.cpu()
        while time.monotonic() < end:
            time.sleep(0.25)
            now = self.cpu()
            if now - last < 0.004:
                return
            last = now

    def pss(self) -> float:
        """MB (10^6), shared pages divided among those who share them."""
        return self._memory("smaps_rollup", r"^Pss: *(\d+)")

    def rss(self) -> float:
        """MB (10^6), shared pages counted in each process."""
        return self._memory("status", r"^VmRSS:\s*(\d+)")

    def descriptors(self) -> int:
        """Open files, sockets and the like."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def _memory(self, file: str, line: str) -> float:
        kib = 0
        for pid in self.pids():
            with suppress(OSError):
                found = re.search(line, Path(f"/proc/{pid}/{file}").read_text(), re.M)
                kib += int(found[1]) if found else 0
        return kib * 1024 / 1e6


def group_folder(name: str) -> Path:
    """Where the control group is, or would be."""
    return _GROUPS / f"peers-{name}"


def make_group(name: str) -> bool:
    """False where this machine has no such groups (version 2 only): CPU is then read from the process."""
    with suppress(OSError):
        group_folder(name).mkdir(exist_ok=True)
        return True
    return False


def remove_group(name: str) -> None:
    """It must be empty."""
    with suppress(OSError):
        group_folder(name).rmdir()
