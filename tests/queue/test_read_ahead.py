"""Files read before their turn: every content at its place, whatever is wrong with some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.queue.read_ahead import AHEAD, PORTION, ROOM, read_ahead
from mailserver.store.steps import STEPS

MOST = 5000


def test_each_file_in_its_turn_and_none_for_what_has_to_be_looked_at(tmp_path: Path) -> None:
    if STEPS is None:
        pytest.skip("no C compiler was there when this was installed")
    paths = [f"{tmp_path}/{n}" for n in range((AHEAD + 3) * PORTION + 1)]
    for n, path in enumerate(paths):
        Path(path).write_bytes(b"%d" % n * 50)
    Path(paths[1]).write_bytes(b"")
    Path(paths[2]).write_bytes(b"x" * MOST)
    Path(paths[3]).write_bytes(b"x" * (MOST + 1))
    os.unlink(paths[PORTION])
    os.unlink(paths[7])
    os.mkfifo(paths[7])
    os.unlink(paths[8])
    os.symlink(paths[9], paths[8])
    found = list(read_ahead(paths, MOST))
    assert found[2] == b"x" * MOST
    special = {1, 2, 3, PORTION, 7, 8}
    assert [n for n, content in enumerate(found) if content is None] == sorted(special - {2})
    assert all(found[n] == b"%d" % n * 50 for n in range(len(paths)) if n not in special)


def test_more_than_there_is_room_for_at_once(tmp_path: Path) -> None:
    if STEPS is None:
        pytest.skip("no C compiler was there when this was installed")
    most = ROOM // 3
    paths = [f"{tmp_path}/{n}" for n in range(8)]
    for n, path in enumerate(paths):
        Path(path).write_bytes(bytes([n]) * most)
    assert list(read_ahead(paths, most)) == [bytes([n]) * most for n in range(8)]


def test_no_files_and_no_compiled_code() -> None:
    assert list(read_ahead([], MOST)) == []
    assert list(read_ahead(["/nowhere"], MOST)) == [None]
    assert list(read_ahead(["/a", "/b"], MOST, None)) == [None, None]
