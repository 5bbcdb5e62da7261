"""The accounts file: durable, private, and never overwritten when it is not what we think."""

from __future__ import annotations

import resource
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailserver.accounts.database import Database
from mailserver.accounts.errors import AccountsError, AccountsUnavailable


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "accounts.sqlite"


def test_looking_leaves_no_trace(file: Path) -> None:
    assert Database(str(file)).users() == []
    assert not file.parent.exists()


def test_what_is_written_is_found_by_another_process(file: Path) -> None:
    ours, theirs = Database(str(file)), Database(str(file))
    ours.add_domain("example.test", 1.0)
    ours.add_user("zoe@example.test", "hash-z", 2.0)
    ours.add_user("adam@example.test", "hash-a", 3.0)
    theirs.set_password("zoe@example.test", "new")
    theirs.set_alias("team@example.test", ["zoe@example.test", "x@remote.test"], 4.0)
    theirs.set_alias("team@example.test", ["adam@example.test"], 5.0)
    assert [u[:2] for u in ours.users()] == [("zoe@example.test", "new"), ("adam@example.test", "hash-a")]
    assert ours.aliases() == [("team@example.test", ("adam@example.test",), 4.0)]
    assert ours.domains() == [("example.test", 1.0)]
    theirs.remove_user("zoe@example.test")
    assert len(ours.users()) == 1


def test_nobody_else_may_read_it(file: Path) -> None:
    Database(str(file)).add_domain("example.test", 1.0)
    for path in file.parent.iterdir():  # the WAL holds hashes too
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_requests_that_make_no_sense(file: Path) -> None:
    database = Database(str(file))
    database.add_domain("a_b.test", 1.0)
    database.add_user("x@a_b.test", "hash", 1.0)
    database.add_domain("axb.test", 1.0)
    with pytest.raises(AccountsError, match="exists already"):
        database.add_user("x@a_b.test", "other", 2.0)
    with pytest.raises(AccountsError, match="no account"):
        database.remove_user("y@a_b.test")
    with pytest.raises(AccountsError, match="still has 1 accounts"):
        database.remove_domain("a_b.test")
    database.remove_domain("axb.test")
    assert database.users()[0].password == "hash"


@pytest.mark.parametrize(
    "content", [b"", b"not a database", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 6000]
)
def test_a_damaged_file_is_left_as_it_is(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    database = Database(str(file))
    for attempt in (database.check, lambda: database.add_domain("example.test", 1.0)):
        with pytest.raises(AccountsUnavailable, match=r"accounts\.sqlite is damaged .* left as it is"):
            attempt()
    assert file.read_bytes() == content


def test_two_that_make_it_at_once_do_not_find_it_empty(file: Path) -> None:
    """The server at its first start, and a command beside it."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: Database(str(file)).add_domain(f"d{n}.test", float(n)), range(40)))
    assert len(Database(str(file)).domains()) == 40


def test_a_first_start_on_a_full_disk_leaves_no_empty_file(file: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(AccountsUnavailable, match="too large"):
            Database(str(file)).add_domain("example.test", 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    Database(str(file)).add_domain("example.test", 1.0)


def test_a_damaged_page_is_noticed(file: Path) -> None:
    database = Database(str(file))
    for n in range(200):
        database.add_user(f"user{n}@example.test", "h" * 100, float(n))
    database.close()
    content = bytearray(file.read_bytes())
    content[4096:8192] = b"\x5a" * 4096
    file.write_bytes(content)
    with pytest.raises(AccountsUnavailable, match="damaged"):
        Database(str(file)).users()
    assert file.read_bytes() == content


def test_newer_and_foreign_files_are_refused(file: Path) -> None:
    Database(str(file)).add_domain("example.test", 1.0)
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(AccountsUnavailable, match="newer version"):
        Database(str(file)).domains()
    other = file.parent / "other.sqlite"
    with sqlite3.connect(other) as raw:
        raw.execute("CREATE TABLE songs (name)")
    raw.close()
    with pytest.raises(AccountsUnavailable, match="another program"):
        Database(str(other)).add_domain("example.test", 1.0)


def test_two_processes_may_make_it_at_once(file: Path) -> None:
    failures: list[BaseException] = []

    def add(n: int) -> None:
        try:
            Database(str(file)).add_domain(f"d{n}.test", float(n))
        except AccountsUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(Database(str(file)).domains()) == 8


def test_a_full_disk_is_not_called_damage(file: Path) -> None:
    database = Database(str(file))
    database.add_domain("example.test", 1.0)
    database.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    database = Database(str(file))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # writes fail from here on, as on a full disk
    try:
        with pytest.raises(AccountsUnavailable, match="cannot be used"):
            database.add_domain("second.test", 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        database.close()
    assert [domain[0] for domain in Database(str(file)).domains()] == ["example.test"]
