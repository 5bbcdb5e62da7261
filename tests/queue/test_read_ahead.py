"""Files that nobody has read yet are in memory when their turn comes."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

from mailserver.queue.read_ahead import PORTION, read_ahead

LIBC = ctypes.CDLL(None, use_errno=True)


def resident(path: str) -> bool:
    """Whether the first page is in memory: mincore(2) looks and fetches nothing."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE) as pages:
        found = ctypes.c_ubyte()
        assert LIBC.mincore(ctypes.byref(ctypes.c_char.from_buffer(pages)), 4096, ctypes.byref(found)) == 0
        return bool(found.value & 1)


def test_cold_files_are_fetched_and_all_paths_come_in_order(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/{n}" for n in range(3 * PORTION)]
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"x" * 5000)
            file.flush()
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    gone = {paths[PORTION + 5], paths[2 * PORTION]}
    for path in gone:
        os.unlink(path)
    there = [path for path in paths[PORTION:] if path not in gone]
    assert not any(map(resident, there))
    assert list(read_ahead(paths, 4096, waited=iter([0.0, 0.01]).__next__)) == paths
    assert not any(map(resident, there)), "the device is fast enough: nothing is done"
    assert list(read_ahead(paths, 4096, waited=iter([0.0, 0.1]).__next__)) == paths
    end = time.monotonic() + 10
    while not all(map(resident, there)):
        assert time.monotonic() < end
        time.sleep(0.01)  # the device's work cannot be awaited


def test_few_files_and_none() -> None:
    assert list(read_ahead([], 4096)) == []
    assert list(read_ahead(["/nowhere"], 4096)) == ["/nowhere"]
