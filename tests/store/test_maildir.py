"""Maildir names and scanning; https://cr.yp.to/proto/maildir.html, RFC 1939 7 (unique-ids) and 11 (octets)."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailserver.pop3.stuffing import dot_stuff
from mailserver.store import maildir
from mailserver.store.content import Content
from mailserver.store.files import Entry, Files
from mailserver.store.maildir import NameSource
from mailserver.store.scan import scan, wire_sizes
from mailserver.store.steps import STEPS, Steps

WAYS = [None] if STEPS is None else [None, STEPS]


def entries(path: Path | str) -> list[Entry]:
    """Every message in delivery order: with and without compiled code the same."""
    first, *others = [scan(str(path), Files(), steps) for steps in WAYS]
    assert all(other == first and other.octets == first.octets for other in others)
    assert all(scan(str(path), first, steps) is first for steps in WAYS)
    found = [first.entry(index) for index in range(len(first.names))]
    assert first.unique_ids(0, len(found)) == [entry.uid for entry in found]  # UIDL and UIDL n, RFC 1939 7
    return found


UID = re.compile(r"[\x21-\x7e]{1,70}\Z")  # RFC 1939 7


def test_names_are_unique_and_sort_by_delivery() -> None:
    source = NameSource("mx:1/a,b")
    names = [source.next(now, 100, 103) for now in (1.0, 1.5, 1.5, 1.5, 1.4, 2.0, 1_700_000_000.25)]
    assert sorted(set(names)) == names
    assert re.fullmatch(
        r"1700000000\.M250000P\d+Q7R[0-9a-f]+\.mx\\0721\\057a\\054b,S=100,W=103", names[-1]
    ), names[-1]
    assert [source.serial(name) for name in names] == [1, 2, 3, 4, 5, 6, 7]
    assert NameSource("mx").serial(names[0]) == 0
    assert source.serial(f"{names[2]}:2,S") == 3


def test_make_and_make_again(tmp_path: Path) -> None:
    for _ in range(2):
        maildir.make(f"{tmp_path}/a/b/box")
    assert {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "a/b/box").iterdir()} == dict.fromkeys(
        ("tmp", "new", "cur"), 0o700
    )  # fmt: skip


def test_foreign_files_are_ordered_measured_and_named(tmp_path: Path) -> None:
    maildir.make(str(tmp_path))
    source = NameSource("mx")
    ours = source.next(1500000000.0, 4, 6)
    files = {
        "cur/1500000002.M7P1.dovecot,S=10,W=12:2,RS": b"",
        "cur/1500000001.M9P1.dovecot,S=6:2,S": b"a\nb\nc\n",
        "new/1500000001.2345.qmail": b"a\r\nb\n",
        "cur/1400000000.x,W=5": b"",
        "cur/1500000003.y,W=7z,X=1:2,W=8,": b"1234567\n",
        "cur/no-time:2,": b"last\n",
        "cur/.hidden": b"",
        f"new/{ours}": b"1\n2\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    os.utime(tmp_path / "cur/no-time:2,", (0, 1600000000))
    (tmp_path / "new" / "folder").mkdir()
    (tmp_path / "new" / "link").symlink_to("/etc/passwd")
    expected = [
        ("1400000000.x", 5, False),
        (ours.partition(",")[0], 6, True),
        ("1500000001.2345.qmail", 6, True),
        ("1500000001.M9P1.dovecot", 9, False),
        ("1500000002.M7P1.dovecot", 12, False),
        ("1500000003.y,W=7z,X=1", 9, False),
        ("no-time", 6, False),
    ]
    assert [(entry.uid, entry.size, entry.new) for entry in entries(tmp_path)] == expected
    (tmp_path / "cur/no-time:2,").unlink()  # compiled code leaves such a name to Python
    assert [(entry.uid, entry.size, entry.new) for entry in entries(tmp_path)] == expected[:-1]


def test_one_message_for_one_base_name_and_one_uid_for_one_message(tmp_path: Path) -> None:
    maildir.make(str(tmp_path))
    names = [
        "new/1.a", "cur/1.a:2,S", "cur/1.a:2,",  # three times the same message, as a racing scan may see it
        "new/1.b,S=1", "new/1.b,S=2", "new/1.b",  # three messages whose natural unique-id is the same
        "new/1." + "c" * 80, "new/1.d e",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = entries(tmp_path)
    assert [entry.name for entry in found] == sorted(["1.a:2,", *(name[4:] for name in names[3:])])
    assert len({entry.uid for entry in found}) == 6
    assert all(UID.match(entry.uid) for entry in found)


hostile = st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name and b"/" not in name)
shaped = st.builds(
    lambda sec, usec, rest, size, flags: b"%d.M%06dP1Q2R3.%b,S=1,W=%d%b" % (sec, usec, rest, size, flags),
    st.integers(10**9, 10**9 + 2), st.integers(0, 2), hostile, st.integers(0, 9),
    st.sampled_from([b"", b":2,", b":2,S"]),
)  # fmt: skip


@settings(max_examples=100)
@given(st.sets(hostile | shaped, max_size=8), st.sets(hostile | shaped, max_size=8))
@example({b"1.a\n1.b", b"1.b", b"1.\x80"}, set())
@example({b"1000000000.M000000P1.\n,S=1,W=1"}, {b"1000000000.M000000P1.\n,S=1,W=1:2,"})
def test_any_names_can_be_scanned(new: set[bytes], cur: set[bytes]) -> None:
    with TemporaryDirectory() as where:
        maildir.make(where)
        for folder, names in (("new", new), ("cur", cur)):
            for name in names - {b".", b".."}:
                Path(os.fsdecode(os.fsencode(f"{where}/{folder}/") + name)).write_bytes(b"\n")
        found = entries(where)
        bases = {name.partition(b":")[0] for name in new | cur if not name.startswith(b".")}
        assert {os.fsencode(maildir.base_name(entry.name)) for entry in found} == bases
        assert len(found) == len(bases) == len({entry.uid for entry in found})
        for entry in found:
            assert UID.match(entry.uid)
            path = f"{where}/{'new' if entry.new else 'cur'}/{entry.name}"
            assert Content(path, 0, 1).read() == b"\n"
        assert found == entries(where)


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"]), max_size=30).map(b"".join),
    st.sampled_from([0, 65_534, 65_535, 131_071]),  # around what is read at once
)
def test_size_on_the_wire_is_that_of_what_is_sent(text: bytes, before: int) -> None:
    with TemporaryDirectory() as where:
        path, text = Path(where) / "x", b"x" * before + text
        path.write_bytes(text)
        whole = text if not text or text.endswith(b"\n") else text + b"\r\n"  # RFC 1939 3
        for steps in WAYS:
            sizes = wire_sizes(where, ["x", "missing"], steps)
            assert sizes == [len(re.sub(rb"(?<!\r)\n", b"\r\n", whole)), -1]
            assert sizes[0] == len(dot_stuff(text))  # there are no dots


@pytest.mark.parametrize("steps", WAYS)
def test_a_fifo_in_the_place_of_a_message_is_not_waited_for(tmp_path: Path, steps: Steps | None) -> None:
    os.mkfifo(tmp_path / "x")
    assert wire_sizes(f"{tmp_path}", ["x"], steps) == [-1]
    if steps is not None:
        assert steps.read_cached(f"{tmp_path}/x", ctypes.create_string_buffer(9), 8) is None
    with pytest.raises(OSError, match="seek"):
        Content(f"{tmp_path}/x", 0, 1).read()


def test_only_old_files_leave_tmp(tmp_path: Path) -> None:
    maildir.make(str(tmp_path))
    for name, age in (("old", 37), ("young", 35)):
        (tmp_path / "tmp" / name).write_bytes(b"")
        os.utime(tmp_path / "tmp" / name, (1e9 - age * 3600,) * 2)
    assert maildir.clean_tmp(str(tmp_path), 1e9) == 1
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["young"]


def test_what_a_dead_process_of_ours_left_in_tmp_goes_at_once(tmp_path: Path) -> None:
    maildir.make(str(tmp_path))
    earlier, elsewhere, now = (maildir.NameSource(host) for host in ("mx.test", "other.test", "mx.test"))
    kept = {elsewhere.next(1e9, 1, 1), now.next(1e9, 1, 1), "1000000000.M1P1.mx.test", "x.mx.test,S=1,W=1"}
    for name in (*kept, earlier.next(1e9, 1, 1)):
        (tmp_path / "tmp" / name).write_bytes(b"x")
        os.utime(tmp_path / "tmp" / name, (1e9,) * 2)
    assert maildir.clean_tmp(str(tmp_path), 1e9, now) == 1
    assert {path.name for path in (tmp_path / "tmp").iterdir()} == kept


def test_content_in_pieces_survives_removal(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    pieces = Content(str(path), 1, 8).chunks(3)
    assert next(pieces) == b"123"
    shutil.rmtree(tmp_path)
    assert list(pieces) == [b"456", b"78"]


@pytest.mark.skipif(STEPS is None, reason="no compiled code")
@pytest.mark.parametrize("count", [0, 700, 1_500])
def test_compiled_code_lists_a_maildir_of_any_size(tmp_path: Path, count: int) -> None:
    """There is room for 512 files and 32 KiB of names at first; the second is more files, the third also more names."""
    maildir.make(str(tmp_path))
    files = [f"1700000000.M{number:06}P1.\udcff{'x' * 20}" for number in range(count)]
    for number, name in enumerate(files):
        (tmp_path / ("new" if number % 3 else "cur") / name).touch()
    (tmp_path / "new/.hidden").touch()
    (tmp_path / "new/1700000000.folder").mkdir()
    (tmp_path / "new/1700000000.link").symlink_to(tmp_path / "new/.hidden")
    assert STEPS is not None
    found = STEPS.maildir(str(tmp_path))
    assert found is not None
    names, sizes = found.columns()
    assert names == files
    assert list(sizes) == [-1 if number % 3 else -2 for number in range(count)]
    assert [entry.name for entry in entries(tmp_path)] == files


@pytest.mark.skipif(STEPS is None, reason="no compiled code")
@given(st.lists(hostile | shaped, max_size=8), st.integers(0, 10**15))
@example([b"1.%b,S=1,X,W=22:2,S" % (b"u" * 66)], 10**15)
@example([b"1.%b,S=1,W=22:2,S" % (b"u" * 69)], 0)
def test_compiled_lines_for_uidl_and_list_are_those_of_the_entries(names: list[bytes], size: int) -> None:
    assert STEPS is not None
    files = Files()
    for name in names:
        files.add(os.fsdecode(name), size, True)
    expected = "".join(f"{number} {files.entry(number - 1).uid}\r\n" for number in range(1, len(names) + 1))
    natural = all(
        UID.match(re.sub(r",[SW]=\d+(?=,|\Z)", "", maildir.base_name(name))) for name in files.names
    )
    lines = files.lines(0, len(names), STEPS, unique_ids=True)
    assert lines == (expected.encode() if natural else None)
    lines = files.lines(1, len(names), STEPS, unique_ids=False)
    assert lines == b"".join(b"%d %d\r\n" % (number, size) for number in range(2, len(names) + 1))


@pytest.mark.parametrize("steps", WAYS)
def test_what_another_program_moves_to_cur_meanwhile_is_in_the_listing(
    tmp_path: Path, steps: Steps | None
) -> None:
    """Its name tells no size: it is read after it was listed, and then it lies elsewhere."""
    maildir.make(str(tmp_path))
    names = {f"{number}.M1P1.other" for number in range(2000)}
    for name in names:
        (tmp_path / "new" / name).write_bytes(b"ab\n")
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(
            lambda: [(tmp_path / "new" / name).rename(tmp_path / "cur" / f"{name}:2,") for name in names]
        )
        while not moving.done():
            files = scan(str(tmp_path), Files(), steps)
            assert {maildir.base_name(name) for name in files.names} == names
            assert files.octets == 4 * len(names)
