"""Durable beside a dict to which the same jobs are done one after the other: jobs of all kinds, turns of any length."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.durable import Durable, FileSlice, Job, NewFile
from mailserver.store.steps import STEPS

T = TypeVar("T")
IMPOSSIBLE = "\ud800", "half\0name", "absent/folder"


class Asked(NamedTuple):
    """A file: its content, its names, and how it is made."""

    content: list[bytes]
    names: list[str]
    kind: str


def mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One of ``other`` in 16: such a file makes its whole turn one that compiled code leaves to Python."""
    return st.integers(0, 15).flatmap(lambda number: other if number == 15 else usual)


name = st.sampled_from([*"abcd", "\udcff"])
content = mostly(
    st.lists(st.sampled_from([b"", b"1", b"a\0b", b"y" * 5_000]), max_size=3), st.just([b"."] * 65)
)
names = mostly(st.lists(name, min_size=1, max_size=2), st.sampled_from([["a", bad] for bad in IMPOSSIBLE]))
file = st.builds(Asked, content, names, mostly(st.just("new"), st.sampled_from(["adopt", "slice"])))
replaced = st.builds(Asked, content, st.lists(name, min_size=1, max_size=1), st.just("replace"))
# What replaced another name stays when its job fails; alone it cannot.
job = st.tuples(
    mostly(st.lists(file, max_size=2), st.lists(replaced, max_size=1)), st.lists(name, max_size=2)
)
turns = st.lists(st.lists(job, min_size=1, max_size=4), min_size=3, max_size=8)


class Model:
    """``files``: what lies in new/ at the end."""

    def __init__(self, root: str) -> None:
        self.root, self.files, self.count = root, dict[str, bytes](), 0

    def job(self, asked: list[Asked], removed: list[str]) -> tuple[Job, bool]:
        """The job, and whether it must succeed; then its effect is in ``files``."""
        new, after, well = [self._file(one) for one in asked], dict(self.files), True
        for one in asked:
            for name in one.names:
                well = well and name not in IMPOSSIBLE and (one.kind == "replace" or name not in after)
                after[name] = b"".join(one.content)
        if well:
            self.files = {name: content for name, content in after.items() if name not in removed}
        return Job(tuple(new), tuple(f"{self.root}/new/{name}" for name in removed)), well

    def _file(self, asked: Asked) -> NewFile:
        self.count += 1
        path, whole = f"{self.root}/src/{self.count}", b"".join(asked.content)
        tmp, names = f"{self.root}/tmp/{self.count}", tuple(f"{self.root}/new/{name}" for name in asked.names)
        if asked.kind in {"adopt", "slice"}:
            Path(path).write_bytes(whole)
        if asked.kind == "adopt":
            return NewFile((), tmp, names, adopt=path)
        if asked.kind == "slice":
            return NewFile((FileSlice(path, 0, len(whole)),), tmp, names)
        return NewFile(tuple(asked.content), tmp, names, replace=asked.kind == "replace")


async def run(root: str, turns: list[list[Job]], *, compiled: bool) -> list[bool]:
    """Which jobs succeeded."""
    durable = Durable(asyncio.get_running_loop(), [f"{root}/nursery"], steps=STEPS if compiled else None)
    futures = list[asyncio.Future[None]]()
    # While this is written the others wait, and come together.
    large = durable.commit(Job((NewFile((bytes(1 << 22),), f"{root}/src/tmp", (f"{root}/src/large",)),)))
    await asyncio.sleep(0)
    for turn in turns:
        futures += map(durable.commit, turn)
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 30)
    await large
    durable.close()
    return [answer is None for answer in answers]


@pytest.mark.parametrize("compiled", [False, True])
@settings(max_examples=40, deadline=None)
@given(turns=turns)
def test_jobs_have_the_effect_of_one_after_the_other(
    compiled: bool, turns: list[list[tuple[list[Asked], list[str]]]]
) -> None:
    if compiled and STEPS is None:
        pytest.skip("no C compiler was there when this was installed")
    with TemporaryDirectory() as root:
        for folder in ("tmp", "new", "src", "nursery"):
            Path(root, folder).mkdir()
        model = Model(root)
        told = [[model.job(*asked) for asked in turn] for turn in turns]
        done = asyncio.run(run(root, [[job for job, _ in turn] for turn in told], compiled=compiled))
        assert done == [well for turn in told for _, well in turn]
        assert {path.name: path.read_bytes() for path in Path(root, "new").iterdir()} == model.files
        assert not list(Path(root, "tmp").iterdir())
