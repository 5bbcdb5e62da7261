"""Workers: what is done beside the loop is done, told once, and to the right one; both ways are the same."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailserver.store import maildir
from mailserver.store.steps import STEPS
from mailserver.store.workers import THREADS, Workers

WAYS = {"python": None} | ({} if STEPS is None else {"compiled": STEPS})
compiled = pytest.mark.skipif(STEPS is None, reason="no compiled code")


@pytest.fixture(params=WAYS)
async def workers(request: pytest.FixtureRequest) -> AsyncIterator[Workers]:
    with ThreadPoolExecutor(2) as executor:
        made = Workers(asyncio.get_running_loop(), executor, WAYS[request.param])
        yield made
        made.close()


async def test_each_removal_is_told_of_its_own_files(workers: Workers, tmp_path: Path) -> None:
    """Of many at once: one file is there, one is missing, one is a folder (unlink(2): EISDIR on Linux)."""
    for number in range(200):
        (tmp_path / f"{number} ü").touch()
        (tmp_path / f"{number}.d").mkdir()

    async def remove(number: int) -> list[int]:
        names = [f"{number} ü", f"{number}.missing", f"{number}.d"][: number % 4]
        return await workers.remove([f"{tmp_path}/{name}" for name in names])

    found = await asyncio.gather(*map(remove, range(200)))
    assert found == [[0, errno.ENOENT, errno.EISDIR][: number % 4] for number in range(200)]
    assert len(os.listdir(tmp_path)) == 200 + 50


@pytest.mark.parametrize("way", WAYS)
async def test_a_removal_nobody_waits_for_is_done(tmp_path: Path, way: str) -> None:
    paths = [tmp_path / str(number) for number in range(100)]
    for path in paths:
        path.touch()
    with ThreadPoolExecutor(2) as executor:
        workers = Workers(asyncio.get_running_loop(), executor, WAYS[way])
        waiting = [asyncio.ensure_future(workers.remove([str(path)])) for path in paths]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        workers.close()
    assert not os.listdir(tmp_path)


async def test_a_path_that_no_file_can_have_removes_nothing(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="null"):
        await workers.remove([f"{tmp_path}/a\0b"])
    assert (tmp_path / "a").exists()


@compiled
async def test_an_executor_that_hangs_does_not_hold_up_the_compiled_threads(tmp_path: Path) -> None:
    blocked = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        workers = Workers(asyncio.get_running_loop(), executor)
        maildir.make(str(tmp_path / "box"))
        stuck = asyncio.ensure_future(workers.run(blocked.wait))
        listing = await workers.maildir(str(tmp_path / "box"))
        assert listing is not None
        assert listing.count == 0
        assert not stuck.done()
        blocked.set()
        await stuck
        workers.close()


@compiled
async def test_close_finishes_what_was_begun_and_ends_the_threads(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(1) as executor:
        workers = Workers(asyncio.get_running_loop(), executor)
        assert len(set(os.listdir("/proc/self/task")) - before) == THREADS
        for number in range(300):
            (tmp_path / str(number)).touch()
        waiting = [asyncio.ensure_future(workers.remove([f"{tmp_path}/{number}"])) for number in range(300)]
        await asyncio.sleep(0)
        workers.close()
        assert await asyncio.gather(*waiting) == [[0]] * 300
        with pytest.raises(RuntimeError):
            await workers.remove([])
    assert set(os.listdir("/proc/self/task")) <= before


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param("Workers(loop, None)", "no thread can be started", marks=compiled),
        ("Durable(loop)", "no commit thread: can't start new thread"),
    ],
)
def test_a_limit_that_permits_no_thread_is_told_as_such(what: str, said: str) -> None:
    """RLIMIT_NPROC binds ordinary users only. OSError ends a start with one sentence (app.py, STOPPERS)."""
    script = f"""if True:
        import asyncio, os, resource
        from mailserver.store.durable import Durable
        from mailserver.store.workers import Workers
        if os.getuid() == 0:
            os.setresuid(54321, 54321, 54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        loop, before = asyncio.new_event_loop(), os.listdir("/proc/self/fd")
        try:
            {what}
        except OSError as error:
            print(error.strerror, os.listdir("/proc/self/fd") == before)
    """
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout == f"{said} True\n"
