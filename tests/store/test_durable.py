"""Durable's contract: all or nothing for each job, in order, on both loops; errors from the real kernel."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mailserver.store import nursery
from mailserver.store import sync as module
from mailserver.store.belt import CompiledBelt, Orders, PythonBelt
from mailserver.store.durable import Durable, FileSlice, Job, NewFile, RemovalFailed
from mailserver.store.parcel import How
from mailserver.store.steps import COMPILED, STEPS, Steps
from mailserver.store.sync import Sync
from mailserver.store.task import Task


def one_log(_device: int) -> bool:
    """As on ext4 with a journal, whatever this disk is."""
    return True


class Make:
    """Makes a Durable of the kind ``way`` says."""

    def __init__(self, way: str, root: Path) -> None:
        self.folders = nursery.prepare(f"{root}/nursery") if way != "below tmp" else []
        compiled, _, log = way.partition(", ")
        self.compiled, self.log, self.made = compiled == "compiled", one_log if log else None, list[Durable]()

    def __call__(self, log: Callable[[int], bool] | None = None, sick: Steps | None = None) -> Durable:
        """``log``, ``sick``: instead of the usual, where there is compiled code."""
        found = log or self.log
        sync = Sync(self.folders, time.monotonic, found) if found else None
        steps = (sick or STEPS) if self.compiled else None
        made = Durable(asyncio.get_running_loop(), self.folders, sync=sync, steps=steps)
        self.made.append(made)
        return made


@pytest.fixture(params=["below tmp", "without a name", "compiled", "compiled, one log"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    make = Make(request.param, tmp_path)
    if make.compiled and STEPS is None:
        pytest.skip("no C compiler was there when this was installed")
    open_before = len(os.listdir("/proc/self/fd"))
    yield make
    for durable in make.made:
        durable.close()
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert [names for *_, names in os.walk(tmp_path / "nursery") if names] == []


@pytest.fixture
async def durable(make: Make) -> Durable:
    return make()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    for folder in ("tmp", "new"):
        (tmp_path / folder).mkdir()
    return tmp_path


def file(box: Path, name: str, *parts: bytes | FileSlice, **more: object) -> NewFile:
    return NewFile(parts, f"{box}/tmp/{name}", (f"{box}/new/{name}",), **more)  # type: ignore[arg-type]


def shown(box: Path) -> dict[str, bytes]:
    assert not list((box / "tmp").iterdir())
    return {path.name: path.read_bytes() for path in (box / "new").iterdir()}


@pytest.mark.parametrize("count", [1, 2, 3, 40])  # file by file, and with syncfs
async def test_every_file_is_there_when_its_future_says_so(durable: Durable, box: Path, count: int) -> None:
    await asyncio.gather(*(durable.commit(Job((file(box, f"{n}", b"%d" % n, b"!"),))) for n in range(count)))
    assert shown(box) == {f"{n}": b"%d!" % n for n in range(count)}
    assert durable.status()["jobs"] == count
    assert durable.status()["batches"] <= 2


async def test_one_content_many_names_slices_and_modes(durable: Durable, box: Path) -> None:
    (box / "source").write_bytes(b"0123456789" * 300_000)
    whole = NewFile(
        (b"head\n", FileSlice(f"{box}/source", 2, 2_500_000), b"end"), f"{box}/tmp/a", (f"{box}/new/a", f"{box}/new/b"),
    )  # fmt: skip
    await durable.commit(Job((whole,)))
    assert shown(box)["a"] == b"head\n" + (b"0123456789" * 300_000)[2:2_500_002] + b"end"
    assert os.stat(box / "new/a").st_ino == os.stat(box / "new/b").st_ino
    assert os.stat(box / "new/a").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("others", [0, 5])
async def test_one_job_fails_alone_and_leaves_nothing(durable: Durable, box: Path, others: int) -> None:
    (box / "new" / "taken").write_bytes(b"old")
    adopted = box / "adopted"
    adopted.write_bytes(b"streamed")
    bad = Job((
        file(box, "first", b"1"),
        NewFile((b" and sealed",), "", (f"{box}/new/second",), adopt=str(adopted)),
        file(box, "taken", b"new"),
    ))  # fmt: skip
    good = [durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(others)]
    with pytest.raises(FileExistsError):
        await durable.commit(bad)
    await asyncio.gather(*good)
    assert shown(box) == {"taken": b"old"} | {f"{n}": b"x" for n in range(others)}
    assert adopted.read_bytes() == b"streamed"
    bad.files[2].names = (f"{box}/new/third",)
    await durable.commit(bad)
    assert shown(box)["second"] == b"streamed and sealed"
    assert not adopted.exists()


async def test_jobs_take_effect_in_order(durable: Durable, box: Path) -> None:
    name = f"{box}/new/state"
    futures = []
    for n in range(6):
        new = NewFile((b"%d" % n,), f"{box}/tmp/{n}", (name,), replace=True)
        futures.append(durable.commit(Job((new,))))
    futures.append(durable.commit(Job(remove=(name,))))
    futures.append(durable.commit(Job((file(box, "state", b"again"),))))  # waits for the removal
    futures.append(durable.commit(Job(remove=(f"{box}/new/never-was",))))
    await asyncio.gather(*futures)
    assert shown(box) == {"state": b"again"}


async def test_new_names_stand_when_a_removal_fails(durable: Durable, box: Path) -> None:
    (box / "folder").mkdir()
    with pytest.raises(RemovalFailed):
        await durable.commit(Job((file(box, "a", b"1"),), remove=(f"{box}/folder",)))
    assert shown(box) == {"a": b"1"}


async def test_a_message_of_many_pieces(durable: Durable, box: Path) -> None:
    """As one that came in a hundred chunks; C takes 64."""
    pieces = [b"%d." % n for n in range(2_000)]
    few, many = file(box, "few", *pieces[:65]), file(box, "many", *pieces)
    await asyncio.gather(*(durable.commit(Job((new,))) for new in (file(box, "one", b"1"), few, many)))
    assert shown(box) == {"one": b"1", "few": b"".join(pieces[:65]), "many": b"".join(pieces)}


async def test_octets_that_end_a_string_in_c(durable: Durable, box: Path) -> None:
    await durable.commit(Job((file(box, "\udcff", b"a\0b", b"", b"\0"),)))
    with pytest.raises(OSError, match="null byte"):
        await durable.commit(Job((file(box, "half\0name", b"x"),)))
    assert shown(box) == {"\udcff": b"a\0b\0"}


async def test_a_name_that_cannot_be_encoded_is_no_other_job_s(durable: Durable, box: Path) -> None:
    bad = durable.commit(Job((file(box, "\ud800", b"x"),)))
    same_turn = durable.commit(Job((file(box, "1", b"1"),)))
    await asyncio.sleep(0)
    next_turn = durable.commit(Job((file(box, "2", b"2"),)))
    answers = await asyncio.wait_for(asyncio.gather(bad, same_turn, next_turn, return_exceptions=True), 5)
    assert [getattr(answer, "errno", None) for answer in answers] == [errno.EINVAL, None, None]
    assert shown(box) == {"1": b"1", "2": b"2"}


async def test_one_file_asked_for_twice_is_had_once(durable: Durable, box: Path) -> None:
    new = file(box, "a", b"1")
    answers = await asyncio.gather(*(durable.commit(Job((new,))) for _ in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), FileExistsError]
    assert shown(box) == {"a": b"1"}


async def test_a_waiter_that_gives_up_does_not_stop_the_commit(durable: Durable, box: Path) -> None:
    future = durable.commit(Job((file(box, "a", b"1"),)))
    future.cancel()
    await durable.commit(Job((file(box, "b", b"2"),)))
    assert shown(box) == {"a": b"1", "b": b"2"}


async def test_close_finishes_what_was_submitted(box: Path) -> None:
    durable = Durable(asyncio.get_running_loop())
    futures = [durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(20)]
    durable.close()
    assert len(shown(box)) == 20
    await asyncio.gather(*futures)
    with pytest.raises(RuntimeError):
        durable.commit(Job())


async def test_where_links_are_impossible_the_content_is_copied(
    durable: Durable, box: Path, shm: Path
) -> None:
    names = (f"{box}/new/a", f"{shm}/new/a", f"{shm}/new/b")
    await durable.commit(Job((NewFile((b"text",), f"{box}/tmp/a", names),)))
    assert shown(box) == {"a": b"text"}
    assert shown(shm) == {"a": b"text", "b": b"text"}


@pytest.mark.parametrize("where", ["another file system", "gone"])
async def test_a_nursery_of_no_use(box: Path, shm: Path, where: str) -> None:
    durable = Durable(
        asyncio.get_running_loop(), [f"{shm}/tmp" if where == "another file system" else f"{box}/gone"]
    )
    await asyncio.gather(*(durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(5)))
    assert shown(box) == {f"{n}": b"x" for n in range(5)}
    durable.close()


@pytest.mark.parametrize("jobs", [1, 5])
async def test_a_file_too_large_is_an_error_and_leaves_nothing(
    durable: Durable, box: Path, jobs: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        small = [durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(jobs - 1)]
        with pytest.raises(OSError, match="too large") as caught:
            await durable.commit(Job((file(box, "big", b"y" * 9_999, b"z" * 9_999),)))
        assert caught.value.errno == errno.EFBIG
        await asyncio.gather(*small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(shown(box)) == jobs - 1


async def test_no_descriptors_left(durable: Durable, box: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, before[1]))
        await asyncio.gather(*(durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(50)))
        with suppress(OSError):
            while True:  # until there is none left, gaps in the numbers included
                held.append(os.open("/", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            await durable.commit(Job((file(box, "none", b"x"),)))
        for fd in held:
            os.close(fd)
        await durable.commit(Job((file(box, "again", b"x"),)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(shown(box)) == 51


@pytest.fixture
def shm(box: Path) -> Iterator[Path]:
    """Another file system."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(box).st_dev:
        pytest.skip("/dev/shm is no other file system")
    with TemporaryDirectory(dir="/dev/shm") as where:
        for folder in ("tmp", "new"):
            (Path(where) / folder).mkdir()
        yield Path(where)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    where = tmp_path / "tiny"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", where], check=False).returncode:
        pytest.skip("not allowed to mount")
    for folder in ("tmp", "new"):
        (where / folder).mkdir()
    yield where
    subprocess.run(["umount", where], check=True)


async def test_a_tmp_folder_that_was_tidied_away_is_made_again(durable: Durable, box: Path) -> None:
    (box / "tmp").rmdir()
    state = NewFile((b"state",), str(box / "tmp" / "a"), (str(box / "new" / "a"),), replace=True)
    await durable.commit(Job((state,)))
    assert shown(box) == {"a": b"state"}
    shutil.rmtree(box / "tmp")
    shutil.rmtree(box / "new")
    with pytest.raises(FileNotFoundError):
        await durable.commit(Job((state,)))


async def test_a_full_disk_and_its_recovery(durable: Durable, tiny: Path) -> None:
    results = await asyncio.gather(
        *(durable.commit(Job((file(tiny, f"{n}", b"x" * 20_000),))) for n in range(40)),
        return_exceptions=True,
    )
    stored = [n for n, result in enumerate(results) if result is None]
    assert all(r is None or (isinstance(r, OSError) and r.errno == errno.ENOSPC) for r in results)
    assert 5 < len(stored) < 20
    assert shown(tiny) == {f"{n}": b"x" * 20_000 for n in stored}
    (tiny / "new" / str(stored[0])).unlink()
    await durable.commit(Job((file(tiny, "fits", b"x" * 20_000),)))


SICK = """
#undef fsync
#undef syncfs
#undef sync_file_range
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
static int fails(int fd, const char *content, int error)
{
    char found[4];
    int so = pread(fd, found, 4, 0) == 4 && memcmp(found, content, 4) == 0;
    if (so)
        errno = error;
    return so;
}
int sick_fsync(int fd) { return fails(fd, "sick", EIO) ? -1 : fsync(fd); }
int sick_syncfs(int fd) { return fails(fd, "sick", EDQUOT) ? -1 : syncfs(fd); }
int sick_range(int fd, off64_t from, off64_t length, unsigned how)
{
    return how != SYNC_FILE_RANGE_WRITE && fails(fd, "torn", EIO) ? -1 : sync_file_range(fd, from, length, how);
}
"""


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Steps | None:
    """EIO from the disk itself cannot be had here: compiled code that has it with a file that begins with "sick" (the
    last step) or "torn" (its content). None where there is no compiled code."""
    compiler = shutil.which("cc")
    if STEPS is None or compiler is None:
        return None
    folder = tmp_path_factory.mktemp("sick")
    (folder / "sick.c").write_text(SICK)
    calls = "-Dfsync=sick_fsync", "-Dsyncfs=sick_syncfs", "-Dsync_file_range=sick_range"
    sources = *sorted(COMPILED.parent.glob("*.c")), folder / "sick.c"
    subprocess.run([compiler, "-shared", "-fPIC", *calls, "-o", folder / "steps.so", *sources], check=True)
    return Steps(folder / "steps.so")


def no_log(_device: int) -> bool:
    """As on ext4 without a journal."""
    return False


async def test_a_failing_syncfs_is_not_overruled_by_fsync(
    make: Make, box: Path, monkeypatch: pytest.MonkeyPatch, sick: Steps | None
) -> None:
    """ext4 without a journal: syncfs cannot write a block of inodes; then fsync of each of those files is fine, and
    they are lost. So all fail, and what comes next is synced file by file, where a failure is its job's."""
    durable = make(no_log, sick)

    def syncfs(_fd: int) -> int:
        ctypes.set_errno(errno.EDQUOT)
        return -1

    def fsync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == f"{box}/sick":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module._libc, "syncfs", syncfs, raising=False)
    monkeypatch.setattr(module.os, "fsync", fsync)
    (box / "sick").mkdir()
    answers = await asyncio.gather(
        *(durable.commit(Job((file(box, text.decode(), text),))) for text in (b"1", b"2", b"sick")),
        return_exceptions=True,
    )
    assert [getattr(answer, "errno", None) for answer in answers] == [errno.EDQUOT] * 3
    assert shown(box) == {}
    good = [durable.commit(Job((file(box, f"{n}", b"x"),))) for n in range(4)]
    with pytest.raises(OSError, match="Input/output"):
        await durable.commit(
            Job((file(box, "a", b"x"), NewFile((b"y",), f"{box}/tmp/b", (f"{box}/sick/b",))))
        )
    await asyncio.gather(*good)
    assert len(shown(box)) == 4
    assert not list((box / "sick").iterdir())


@pytest.mark.parametrize("compiled", [False, True])
async def test_a_failing_sync_of_the_one_log_undoes_all_that_waited_for_it(
    box: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, sick: Steps | None
) -> None:
    if compiled and sick is None:
        pytest.skip("no C compiler is here")
    folders = nursery.prepare(f"{box}/nursery") if compiled else []
    sync = Sync(folders, time.monotonic, one_log)
    durable = Durable(asyncio.get_running_loop(), folders, sync=sync, steps=sick if compiled else None)
    errors = iter([] if compiled else [OSError(errno.EIO, "Input/output error")])

    def fsync(fd: int) -> None:
        for error in errors:  # once: the kernel tells a descriptor only once, too
            raise error

    monkeypatch.setattr(module.os, "fsync", fsync)
    answers = await asyncio.gather(
        *(durable.commit(Job((file(box, text.decode(), text),))) for text in (b"1", b"2", b"sick")),
        return_exceptions=True,
    )
    assert [getattr(answer, "errno", None) for answer in answers] == [errno.EIO] * 3
    assert shown(box) == {}
    await durable.commit(Job((file(box, "later", b"x"),)))
    assert shown(box) == {"later": b"x"}
    durable.close()


async def test_content_that_does_not_reach_the_disk_is_written_anew(
    make: Make, box: Path, sick: Steps | None
) -> None:
    durable = make(sick=sick)
    contents = b"1", b"torn", b"3", b"4"
    await asyncio.gather(*(durable.commit(Job((file(box, text.decode(), text),))) for text in contents))
    assert shown(box) == {text.decode(): text for text in contents}


async def test_a_folder_that_may_not_be_written(durable: Durable, box: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await durable.commit(Job((NewFile((b"x",), f"{box}/tmp/x", (f"{box}/absent/x",)),)))
    with pytest.raises(OSError, match=r"denied|Read-only|permitted|No such"):
        await durable.commit(Job((NewFile((b"x",), f"{box}/tmp/x", ("/proc/x",)),)))
    assert shown(box) == {}


async def test_a_streamed_file_becomes_the_message_as_it_is(durable: Durable, box: Path, shm: Path) -> None:
    (box / "body").write_bytes(b"streamed")
    names = (f"{box}/new/a", f"{shm}/new/b")
    await durable.commit(Job((NewFile((), f"{box}/tmp/a", names, adopt=f"{box}/body"),)))
    assert shown(box) == {"a": b"streamed"}
    assert shown(shm) == {"b": b"streamed"}
    assert not (box / "body").exists()


async def test_a_job_that_fails_between_its_names_takes_no_name_of_the_next(
    durable: Durable, box: Path
) -> None:
    (box / "new" / "taken").write_bytes(b"old")
    bad = NewFile((b"new",), f"{box}/tmp/bad", (f"{box}/new/first", f"{box}/new/taken"))
    answers = await asyncio.gather(
        durable.commit(Job((file(box, "before", b"1"),))),
        durable.commit(Job((bad,))),
        durable.commit(Job((file(box, "after", b"2"),))),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [type(None), FileExistsError, type(None)]
    assert shown(box) == {"taken": b"old", "before": b"1", "after": b"2"}


@pytest.mark.parametrize(
    "last", ["its names are elsewhere", "its content was copied first", "it has no name"]
)
async def test_the_one_log_is_written_up_to_the_last_name_on_it(
    box: Path, shm: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    folders = nursery.prepare(f"{box}/nursery")
    durable = Durable(asyncio.get_running_loop(), folders, sync=Sync(folders, time.monotonic, one_log))
    here, there = file(box, "here", b"1"), NewFile((b"2",), f"{box}/tmp/there", (f"{shm}/new/there",))
    first = NewFile((b"3",), f"{box}/tmp/first", (f"{shm}/new/first", f"{box}/new/copied"))
    files = {"its names are elsewhere": (here, there), "its content was copied first": (first, here)}
    jobs = [Job((new,)) for new in files.get(last, (here, NewFile((b"4",), f"{box}/tmp/none", ())))]
    await asyncio.gather(*map(durable.commit, jobs))
    durable.close()
    assert os.stat(box / "new/here").st_ino in synced


async def test_what_one_device_has_failed_is_no_part_of_the_sync_of_another(
    make: Make, box: Path, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = make(one_log)
    home, really = os.stat(box).st_dev, os.fsync

    def fsync(fd: int) -> None:
        if os.fstat(fd).st_dev == home:
            raise OSError(errno.EIO, "Input/output error")
        really(fd)

    monkeypatch.setattr(module.os, "fsync", fsync)
    good = NewFile((b"1",), f"{shm}/tmp/good", (f"{shm}/new/good",), replace=True)
    both = NewFile((b"2",), f"{box}/tmp/both", (f"{box}/new/both", f"{shm}/new/both"))
    answers = await asyncio.gather(
        durable.commit(Job((good,))), durable.commit(Job((file(box, "a", b"x"),))), durable.commit(Job((both,))),
        return_exceptions=True,
    )  # fmt: skip
    assert [getattr(answer, "errno", None) for answer in answers] == [None, errno.EIO, errno.EIO]
    assert shown(shm) == {"good": b"1"}
    assert shown(box) == {}


async def test_a_batch_that_takes_all_descriptors_leaves_some_for_its_first_job(
    durable: Durable, box: Path
) -> None:
    (box / "body").write_bytes(b"streamed")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, before[1]))
    try:
        jobs = [Job((NewFile((), "", (f"{box}/new/a",), adopt=f"{box}/body"),))]
        jobs += [Job((file(box, f"{n}", b"x"),)) for n in range(40)]
        await asyncio.gather(*map(durable.commit, jobs))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(shown(box)) == 41


def test_which_call_makes_a_batch_durable_where_the_file_system_has_no_one_log(tmp_path: Path) -> None:
    """A lone message shall not wait for what others have written; a flow of mail, or many names, are synced at once."""
    folder = nursery.prepare(f"{tmp_path}/nursery")[0]
    sync = Sync([folder], time.monotonic, no_log)
    assert sync.orders().how is How.WHOLE
    assert sync.how(folder, 1, 1, rested=True) is How.NOTHING
    assert sync.how(folder, 1, 1, rested=False) is How.WHOLE
    assert sync.how(folder, 1, 100, rested=True) is How.WHOLE  # else up to 101 calls
    for _ in range(2):
        sync.was_fast()
        for _ in range(3):
            sync.took(0.5, 1, 0)  # seconds: somebody copies a film
    assert sync.orders().how is How.WHOLE
    sync.took(0.5, 1, 0)  # the fourth in a row
    assert sync.orders().how is How.NOTHING
    assert {sync.how(folder, 1, 100, rested=False) for _ in range(32)} == {How.NOTHING}
    assert sync.orders().how is sync.how(folder, 1, 100, rested=False) is How.WHOLE
    sync.took(0.5, 1, 0)
    assert sync.orders().how is How.NOTHING
    ordered = Sync([folder], time.monotonic, one_log)
    assert ordered.orders().how is ordered.how(folder, 1, 1, rested=True) is How.LAST


async def test_removals_alone_are_no_flow_of_mail(make: Make, box: Path) -> None:
    """A message that comes right after them comes alone."""
    report = os.eventfd(0)
    belt = CompiledBelt(STEPS, make.folders, report) if make.compiled and STEPS else PythonBelt(report)
    jobs = Job(remove=(f"{box}/new/a",)), Job((file(box, "a", b"x"),))  # two batches, for it is the same name

    def put() -> None:
        for job in jobs:
            belt.put([Task(job, asyncio.Future(loop=loop))])
        belt.close()

    loop, orders = asyncio.get_running_loop(), Orders(How.WHOLE, 0.001, 1.0, 1.0)
    threading.Timer(0.01, put).start()
    taken = belt.take(orders)
    if taken and taken.first == 0:
        belt.report(taken.parcels)
        taken = belt.take(orders)
    os.close(report)
    assert taken
    assert taken.rested
    assert not taken.progress.durable
