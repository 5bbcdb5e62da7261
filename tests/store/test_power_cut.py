"""Power cuts on a real file system: whatever the disk's cache kept or lost, acknowledged means present.

A worker commits mail on a file system whose disk (a loop device) records every write and every flush
(recording_disk.py). A power cut at some moment leaves all that was written before the last flush and any part of
what was written since. Such disks are made, mounted, so that the file system repairs itself, and looked at.
A neighbour syncs its own file all the time, so journal commits fall between any two of our steps.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ledger import WORKER, Ledger, lines
from recording_disk import FLUSH, SAID, WRITE, Record, records

PROJECT = WORKER.parents[2]
SECTOR = 4096  # what a disk writes whole
NEIGHBOUR = """
import ctypes, os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
libc = ctypes.CDLL(None)
while True:
    os.pwrite(file, b"x", 0)
    os.fsync(file)
    libc.syncfs(file)  # btrfs commits its transaction only then
"""
FILE_SYSTEMS = {
    "ext4": (64 << 20, "mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": (320 << 20, "mkfs.xfs -q -K"),
    "btrfs": (192 << 20, "mkfs.btrfs -q -K -m single -d single"),
}


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    try:
        device = run("losetup", "-f", "--show", file)
    except AssertionError as reason:
        pytest.skip(f"no loop device here: {reason}")
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextmanager
def mounted(device: str | Path, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", *options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


@contextmanager
def recording(folder: Path, size: int, log: Path) -> Iterator[Path]:
    folder.mkdir()
    command = [sys.executable, WORKER.with_name("recording_disk.py"), folder, str(size), log]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as disk:
        assert disk.stdout is not None
        if not disk.stdout.readline():
            pytest.skip("no FUSE here")
        try:
            yield folder
        finally:
            run("umount", folder)


def work(disk: Path, folder: Path, seconds: float) -> None:
    """The worker, ``seconds`` from its first message on, and the neighbour."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with (disk / "said").open("wb", buffering=0) as said, ExitStack() as stack:
        neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, folder / "neighbour"])
        worker = subprocess.Popen([sys.executable, WORKER, folder], env=environment, stdout=said)
        for process in (neighbour, worker):
            stack.enter_context(process)
            stack.callback(process.kill)
        end = time.monotonic() + 30
        while not any(folder.glob("mail/*/*/new/*")):
            assert worker.poll() is None and time.monotonic() < end
            time.sleep(0.02)  # another process's start cannot be awaited
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(seconds)


def cuts(log: Path, image: Path, count: int, chance: random.Random) -> Iterator[list[tuple[str, str]]]:
    """``count`` times: make ``image`` what a power cut might have left, and give what had been said by then."""
    written = list(records(log))
    begin = next(n for n, record in enumerate(written) if record.kind == SAID)
    moments = sorted(chance.sample(range(begin, len(written)), count))
    base = image.with_suffix(".base")
    said, cached, done = b"", [], 0
    with base.open("wb") as disk:
        for moment in moments:
            for record in written[done:moment]:
                if record.kind == SAID:
                    said += record.data
                elif record.kind == WRITE:
                    cached.append(record)
                else:
                    write(disk.fileno(), cached)
                    cached = []
            done = moment
            run("cp", "--sparse=auto", base, image)
            lucky = chance.choice((0.0, 0.5, 0.9, 1.0))
            with image.open("r+b") as left:
                write(left.fileno(), [r for r in sectors(cached) if chance.random() < lucky])
            yield lines(said)


def sectors(cached: list[Record]) -> Iterator[Record]:
    for _, offset, data in cached:
        for at in range(0, len(data), SECTOR):
            yield Record(WRITE, offset + at, data[at : at + SECTOR])


def write(fd: int, cached: list[Record]) -> None:
    for _, offset, data in cached:
        os.pwrite(fd, data, offset)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("system", FILE_SYSTEMS)
def test_power_is_cut_at_any_moment(tmp_path: Path, system: str) -> None:
    size, mkfs = FILE_SYSTEMS[system]
    if os.getuid() != 0:
        pytest.skip("only root may mount")
    if shutil.which(mkfs.split()[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{mkfs.split()[0]} is not installed")
    log, image = tmp_path / "log", tmp_path / "image"
    with recording(tmp_path / "fuse", size, log) as disk, loop_device(disk / "disk") as device:
        run(*mkfs.split(), device)
        with mounted(device, tmp_path / "mounted") as folder:
            work(disk, folder, 1.0)
    assert {WRITE, FLUSH, SAID} == {record.kind for record in records(log)}
    seen = 0
    for said in cuts(log, image, 40, random.Random()):
        with mounted(image, tmp_path / "mounted", "-o", "loop") as folder:
            ledger = Ledger(folder)
            ledger.add(said)
            ledger.check()
            seen += len(said)
        if system == "ext4":
            run("e2fsck", "-fn", image)  # what was made is what such a file system survives
    assert seen > 1000
