"""Mailboxes: what the index says is what the Maildir holds, whoever works in it (RFC 1939, maildir(5))."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store import maildir
from mailserver.store.durable import Durable, Job, NewFile
from mailserver.store.index import Mailboxes
from mailserver.store.steps import STEPS, Steps
from mailserver.store.workers import Workers

BOX = "alice@example.test"
NOW = 1_700_000_000.0


class Store:
    """A real one, with a hand that delivers and the clock far ahead, so that file times are trusted at once."""

    def __init__(self, root: Path, memory: int = 1 << 20, steps: Steps | None = STEPS) -> None:
        loop = asyncio.get_running_loop()
        self.durable = Durable(loop)
        self.executor = ThreadPoolExecutor(2)
        self.workers = Workers(loop, self.executor, steps)
        self.ahead = 3_600_000_000_000
        self.mailboxes = Mailboxes(
            str(root), hostname="mx.test", memory=memory, workers=self.workers,
            now=self.clock,
        )  # fmt: skip
        self.now = NOW

    def clock(self) -> int:
        import time

        return time.time_ns() + self.ahead

    async def commit(self, text: bytes, box: str = BOX) -> tuple[str, int]:
        path = self.mailboxes.ready(box) or await self.mailboxes.ensure(box)
        self.now += 1
        wire = len(text) + text.count(b"\n")
        name = self.mailboxes.new_name(self.now, len(text), wire)
        await self.durable.commit(Job((NewFile((text,), f"{path}/tmp/{name}", (f"{path}/new/{name}",)),)))
        return name, wire

    async def deliver(self, text: bytes, box: str = BOX) -> str:
        name, wire = await self.commit(text, box)
        self.mailboxes.delivered(box, name, wire)
        return name

    def path(self, box: str = BOX) -> Path:
        return Path(self.mailboxes.directory(box))

    async def names(self, box: str = BOX) -> list[str]:
        snapshot = await self.mailboxes.open(box)
        try:
            assert snapshot.octets == sum(entry.size for entry in snapshot.entries)
            return [entry.name for entry in snapshot.entries]
        finally:
            snapshot.close()

    def close(self) -> None:
        self.durable.close()
        self.workers.close()
        self.executor.shutdown()


WAYS = {"python": None} | ({} if STEPS is None else {"compiled": STEPS})


@pytest.fixture(params=WAYS)
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = Store(tmp_path, steps=WAYS[request.param])
    yield made
    made.close()


async def test_a_delivery_is_seen_read_and_deleted(store: Store) -> None:
    name = await store.deliver(b"Subject: hi\n\nyou\n")
    snapshot = await store.mailboxes.open(BOX)
    (entry,) = snapshot.entries
    assert entry.name == name
    assert (entry.size, entry.new, snapshot.octets) == (20, True, 20)
    content = await store.mailboxes.read(BOX, entry)
    assert content.read() == b"Subject: hi\n\nyou\n"
    assert await store.mailboxes.delete(BOX, snapshot.entries) == (1, None)
    assert len(snapshot.entries) == 1  # what a session was told does not change
    assert not list(store.path().glob("new/*"))
    assert await store.names() == []
    snapshot.close()


async def test_an_open_mailbox_keeps_its_snapshot_and_the_next_session_sees_the_delivery(
    store: Store,
) -> None:
    first = await store.deliver(b"1\n")
    old = await store.mailboxes.open(BOX)
    second = await store.deliver(b"22\n")
    third = await store.mailboxes.open(BOX)
    assert [entry.name for entry in old.entries] == [first]
    assert [entry.name for entry in third.entries] == [first, second]
    assert len({entry.uid for entry in third.entries}) == 2
    await store.mailboxes.delete(BOX, old.entries)
    assert [entry.name for entry in third.entries] == [first, second]
    assert await store.names() == [second]


async def test_another_program_moves_flags_adds_and_removes(store: Store) -> None:
    names = [await store.deliver(b"%d\n" % number) for number in range(4)]
    snapshot = await store.mailboxes.open(BOX)
    path = store.path()
    for name in names[:2]:  # mutt looks
        (path / "new" / name).rename(path / "cur" / f"{name}:2,")
    (path / "cur" / f"{names[0]}:2,").rename(path / "cur" / f"{names[0]}:2,S")
    (path / "new" / names[2]).unlink()
    (path / "cur" / "1700009999.M5P7.other:2,").write_bytes(b"a\nb\n")
    entries = list(snapshot.entries)
    assert (await store.mailboxes.read(BOX, entries[0])).read() == b"0\n"
    assert (await store.mailboxes.read(BOX, entries[1])).read() == b"1\n"
    with pytest.raises(FileNotFoundError):
        await store.mailboxes.read(BOX, entries[2])
    assert (await store.mailboxes.read(BOX, entries[3])).read() == b"3\n"
    after = await store.mailboxes.open(BOX)
    assert [entry.name for entry in after.entries] == [
        f"{names[0]}:2,S", f"{names[1]}:2,", names[3], "1700009999.M5P7.other:2,",
    ]  # fmt: skip
    assert [entry.uid for entry in after.entries][:2] == [entry.uid for entry in entries][:2]
    assert after.entries[3].size == 6
    assert await store.mailboxes.delete(BOX, entries) == (4, None)  # by the names of the first session
    assert [p.name for p in path.glob("*/*")] == ["1700009999.M5P7.other:2,"]
    assert await store.names() == ["1700009999.M5P7.other:2,"]


async def test_a_mailbox_without_changes_is_not_listed_again_and_a_young_time_is_not_trusted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.deliver(b"1\n")
    listed = []
    real = store.workers.maildir
    monkeypatch.setattr(store.workers, "maildir", lambda path: listed.append(path) or real(path))
    store.ahead = 0
    await store.names()
    await store.names()  # the time of new/ was too young at the first listing
    assert len(listed) == 2
    store.ahead = 3_600_000_000_000
    await store.names()
    listed.clear()
    await store.names()
    assert listed == []
    status = os.stat(store.path() / "new")
    (store.path() / "new" / "x").write_bytes(b"")
    os.utime(store.path() / "new", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len(await store.names()) == 2


async def test_deliveries_while_a_listing_runs_are_neither_lost_nor_doubled(store: Store) -> None:
    for number in range(50):
        await store.deliver(b"%d\n" % number)

    async def deliver(number: int) -> None:
        name, wire = await store.commit(b"%d\n" % number)
        for _ in range(number % 5):  # the news comes late, even after a listing that saw the file
            await asyncio.sleep(0)
        store.mailboxes.delivered(BOX, name, wire)

    async def look() -> None:
        for _ in range(10):
            names = await store.names()
            assert len(set(names)) == len(names)

    await asyncio.gather(look(), look(), *(deliver(number) for number in range(100)))
    assert sorted(await store.names()) == sorted(p.name for p in store.path().glob("new/*"))
    assert store.mailboxes.status()["messages"] == 150


async def test_late_news_of_a_file_a_listing_saw_already(store: Store) -> None:
    name, wire = await store.commit(b"1\n")
    assert await store.names() == [name]
    store.mailboxes.delivered(BOX, name, wire)
    assert await store.names() == [name]  # the folder has not changed, so no listing puts it right
    store.mailboxes.delivered(BOX, *(await store.commit(b"2\n")))
    assert len(await store.names()) == 2
    assert store.mailboxes.status()["messages"] == 2


async def test_the_first_opening_tidies_tmp_and_no_trouble_there_hides_the_mail(store: Store) -> None:
    name = await store.deliver(b"x\n")
    left = store.path() / "tmp" / maildir.NameSource("mx.test").next(NOW, 1, 1)
    foreign = store.path() / "tmp" / "1700000000.M1P1.dovecot"
    for path in (left, foreign):
        path.write_bytes(b"half")
    assert await store.names() == [name]
    assert not left.exists()
    assert foreign.exists()
    other = await store.deliver(b"y\n", "bob@example.test")
    (store.path("bob@example.test") / "tmp").rmdir()
    assert await store.names("bob@example.test") == [other]


async def test_memory_is_bounded_but_what_a_session_holds_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, memory=7000)
    held = await store.mailboxes.open(BOX)
    for number in range(10):
        await store.deliver(b"x\n", f"user{number}@example.test")
        await store.names(f"user{number}@example.test")
    status = store.mailboxes.status()
    assert status["evictions"] >= 7
    assert status["bytes"] <= 7000
    await store.deliver(b"mine\n")
    assert len(await store.names()) == 1
    held.close()
    await store.names("user1@example.test")
    assert store.mailboxes.status()["mailboxes"] <= 3
    store.close()


async def test_a_mailbox_that_vanished_is_made_again(store: Store) -> None:
    import shutil

    await store.deliver(b"1\n")
    await store.names()
    shutil.rmtree(store.path())
    assert await store.names() == []
    await store.mailboxes.ensure(BOX)
    await store.deliver(b"1\n")
    assert len(await store.names()) == 1


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_keys_never_leave_the_root_and_never_meet(keys: list[str]) -> None:
    mailboxes = Mailboxes("/mail", hostname="h", memory=0, workers=None)  # type: ignore[arg-type]
    paths = []
    for user in keys:
        path = mailboxes.directory(f"{user}@example.test")
        head, folder = os.path.split(path)
        assert head == "/mail/example.test"
        assert folder.isascii()
        assert len(folder) <= 255
        assert "\0" not in folder
        assert not folder.startswith(".")
        paths.append(path)
    assert paths[0] != paths[1]


def test_keys_by_example() -> None:
    mailboxes = Mailboxes("/mail", hostname="h", memory=0, workers=None)  # type: ignore[arg-type]
    assert mailboxes.directory("alice.b+c@example.test") == "/mail/example.test/alice.b+c"
    assert mailboxes.directory("../../etc@..") == "/mail/%2E./%2E.%2F..%2Fetc"
    assert mailboxes.directory('a@b"\0%@example.test') == "/mail/example.test/a%40b%22%00%25"
