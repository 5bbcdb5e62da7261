"""Where files begin: as many folders as wanted, the same after a restart, and nothing else left lying about."""

from __future__ import annotations

import os
from pathlib import Path

from mailserver.store.nursery import FOLDERS, prepare


def test_folders_stay_the_same(tmp_path: Path) -> None:
    root = tmp_path / "nursery"
    folders = prepare(f"{root}")
    assert len(set(folders)) == FOLDERS
    assert sorted(f"{path}" for path in root.iterdir()) == sorted(folders)
    assert folders == sorted(folders, key=lambda folder: os.stat(folder).st_ino)
    assert all(os.path.isdir(folder) for folder in folders)
    assert prepare(f"{root}") == folders


def test_what_a_crash_or_somebody_left_is_put_right(tmp_path: Path) -> None:
    root = tmp_path / "nursery"
    for number in range(FOLDERS - 3, FOLDERS + 200):  # the surplus of a start that was killed
        (root / f"{number:03x}").mkdir(parents=True)
    (root / "000").write_text("no folder")
    folders = prepare(f"{root}")
    assert len({folder for folder in folders if os.path.isdir(folder)}) == FOLDERS
    assert (root / "000").read_text() == "no folder"


def test_without_the_right_to_write_there_are_no_folders_but_a_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not any(os.path.isdir(folder) for folder in prepare(f"{tmp_path}/file/nursery"))
