"""The spool: what was written comes back, anything else is found out, set aside and told; nothing is deleted."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.events import Event, Problem, Quarantined
from mailserver.message.envelope import Envelope, Local, Recipient, Remote, State
from mailserver.queue import spool as module
from mailserver.queue import spool_format as form
from mailserver.queue.read_ahead import read_ahead
from mailserver.queue.spool import Spool, SpoolDamaged, checksum
from mailserver.store.durable import Durable, FileSlice, Job, NewFile, RemovalFailed

TEXT = b"Subject: x\n\nline\n"
SEALED = crc32(TEXT)


def envelope(id: str = "A1", size: int = len(TEXT), people: int = 2) -> Envelope:
    routes = (Remote("remote.test"), Local("bob@example.test"))
    recipients = [Recipient(n, f"r{n}@remote.test", routes[n % 2], notify=("NEVER",)) for n in range(people)]
    return Envelope(id, None, recipients, 1_700_000_000.5, size=size, body="8BITMIME", envid="+3D")


class Office:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.spool = Spool(str(root), emit=self.events.append)
        assert list(self.spool.load()) == []

    def write(self, *files: NewFile) -> None:
        self.commit(Job(files))

    def commit(self, job: Job) -> None:
        async def commit() -> None:
            durable = Durable(asyncio.get_running_loop())
            try:
                await durable.commit(job)
            finally:
                durable.close()

        asyncio.run(commit())

    def load(self) -> dict[str, tuple[object, ...]]:
        again = Spool(str(self.root), emit=self.events.append)
        return {loaded.envelope.id: tuple(loaded) for loaded in again.load()}

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    yield Office(tmp_path / "queue")


def test_what_was_written_comes_back(office: Office) -> None:
    one, two = envelope("A1"), envelope("A2")
    office.write(office.spool.new_file(one, (TEXT[:5], TEXT[5:])), office.spool.new_file(two, (TEXT,)))
    assert office.load() == {"A1": (one, 0, one.accepted, False), "A2": (two, 0, two.accepted, False)}
    one.recipients[1].state, one.recipients[1].last_reply = State.DELIVERED, "250 ök"
    one.recipients[0].status, one.recipients[0].delay_notified = "4.4.1", True
    for attempts in (1, 2):
        office.write(office.spool.progress(one, attempts=attempts, due=1.7e9 + 60, held=True))
    assert office.load()["A1"] == (one, 2, 1.7e9 + 60, True)
    assert office.spool.content(one).read() == TEXT
    office.commit(office.spool.removal("A1"))
    assert set(office.load()) == {"A2"}
    assert office.events == []


def test_streamed_content_is_adopted_or_copied(office: Office, tmp_path: Path) -> None:
    big = os.urandom(300_000)
    path = tmp_path / "body"
    path.write_bytes(big)
    crc = checksum(str(path), len(big))
    assert crc == crc32(big)
    parts = (b"head\n", FileSlice(str(path), 0, len(big)))
    copied = office.spool.new_file(envelope("C", len(big) + 5), parts, crc=crc32(big, crc32(b"head\n")))
    office.write(copied)
    office.write(office.spool.adopt(envelope("B", len(big)), str(path), crc=crc))
    assert not path.exists()
    spool = Spool(str(office.root), emit=office.events.append)
    loaded = {item.envelope.id: item.envelope for item in spool.load()}
    assert list(spool.scrub()) == []
    assert spool.content(loaded["B"]).read() == big
    assert b"".join(spool.content(loaded["C"]).chunks()) == b"head\n" + big
    with pytest.raises(ValueError, match=r"envelope\.size"):
        office.spool.new_file(envelope(size=1), (TEXT,))


def test_many_recipients(office: Office) -> None:
    many = envelope(people=3000)
    office.write(office.spool.new_file(many, (TEXT,)))
    assert office.load()["A1"][0] == many


@pytest.mark.parametrize("read_only", [True, False])
def test_start_up_brings_the_disk_into_a_legal_state(office: Office, read_only: bool) -> None:
    office.write(
        office.spool.new_file(envelope("good"), (TEXT,)), office.spool.new_file(envelope("bad"), (TEXT,))
    )
    office.write(office.spool.new_file(envelope("tried"), (TEXT,)))
    office.write(office.spool.progress(envelope("tried"), attempts=3, due=2e9, held=False))
    msg = office.root / "msg"
    (office.root / "tmp" / "half").write_bytes(b"x")
    (msg / "orphan.state").write_bytes((msg / "tried.state").read_bytes())
    (msg / "tried.state").write_bytes((msg / "tried.state").read_bytes()[:-5])
    (msg / "bad.state").write_bytes(b"x")
    (msg / "bad").write_bytes(b"nonsense")
    (msg / "other").write_bytes((msg / "good").read_bytes())
    (office.root / "quarantine" / "bad").write_bytes(b"an older one")
    before = office.files()
    spool = Spool(str(office.root), emit=office.events.append)
    loaded = {item.envelope.id: item for item in spool.load(read_only=read_only)}
    assert set(loaded) == {"good", "tried"}
    assert loaded["tried"] == (envelope("tried"), 0, envelope("tried").accepted, False)
    if read_only:
        assert office.files() == before
        assert office.events == []
        return
    aside = {
        "bad": b"nonsense",
        "bad.state": b"x",
        "other": before["msg/good"],
        "tried.state": before["msg/tried.state"],
    }
    kept = {name: before[name] for name in ("msg/good", "msg/tried")}
    names = {"bad": "bad.1"}
    assert office.files() == kept | {"quarantine/bad": b"an older one"} | {
        f"quarantine/{names.get(name, name)}": text for name, text in aside.items()
    }
    told = {event.path: event for event in office.events if isinstance(event, Quarantined)}
    assert {os.path.basename(path) for path in told} == set(aside)
    assert all(event.reason and os.path.exists(event.moved_to) for event in told.values())
    assert set(office.load()) == {"good", "tried"}


def test_what_is_no_file_of_ours_neither_stops_the_start_nor_is_deleted(office: Office) -> None:
    for id in ("A1", "A2", "A3"):
        office.write(office.spool.new_file(envelope(id), (TEXT,)))
    messages = office.root / "msg"
    (messages / "B1.state").mkdir()
    (messages / "B2.state").symlink_to("/etc/hostname")
    (messages / "B3.state").write_text("an administrator's notes")
    (messages / "A1.state").mkdir()
    os.mkfifo(messages / "A2.state")
    with (messages / "A3.state").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    (office.root / "tmp" / "folder").mkdir()
    assert office.load().keys() == {"A1", "A2", "A3"}
    assert sorted(p.name for p in messages.iterdir()) == ["A1", "A2", "A3"]
    set_aside = {p.name for p in (office.root / "quarantine").iterdir()}
    assert set_aside == {f"{id}.state" for id in ("A1", "A2", "A3", "B1", "B2", "B3")}
    assert {Path(e.path).name for e in office.events if isinstance(e, Quarantined)} == set_aside


def test_damage_in_large_content_is_found_by_scrub_and_before_sending(office: Office) -> None:
    large = b"0123456789\n" * 20_000
    for name in ("big", "fine"):
        office.write(office.spool.new_file(envelope(name, len(large)), (large,)))
    with open(office.root / "msg" / "big", "r+b") as file:
        file.seek(100_000)
        file.write(b"!")
    spool = Spool(str(office.root), emit=office.events.append)
    loaded = {item.envelope.id: item.envelope for item in spool.load()}
    assert set(loaded) == {"big", "fine"}
    with pytest.raises(SpoolDamaged):
        spool.content(loaded["big"])
    assert spool.content(loaded["fine"]).read() == large
    ((id, reason),) = spool.scrub()
    assert (id, list(spool.scrub()), office.events) == ("big", [], [])
    spool.quarantine(id, reason)
    assert [type(event) for event in office.events] == [Quarantined]
    assert set(office.load()) == {"fine"}


def test_progress_outlives_a_message_that_cannot_be_removed(office: Office) -> None:
    """Its progress is what keeps it from being sent again (S3 → S4 → S0, never S3 → S2)."""
    office.write(office.spool.new_file(envelope(), (TEXT,)))
    office.write(office.spool.progress(envelope(), attempts=1, due=2e9, held=False))
    message = office.root / "msg" / "A1"
    message.rename(office.root / "away")
    message.mkdir()  # unlink says EISDIR, as EIO or EPERM would come on a sick disk
    with pytest.raises(RemovalFailed):
        office.commit(office.spool.removal("A1"))
    assert (office.root / "msg" / "A1.state").exists()


def test_progress_that_cannot_be_opened_for_a_moment_is_not_set_aside(office: Office) -> None:
    """Without it the message would be sent again to those who have it."""
    for id in ("A1", "A2"):
        office.write(office.spool.new_file(envelope(id), (TEXT,)))
        tried = envelope(id)
        tried.recipients[0].state, tried.recipients[0].last_reply = State.DELIVERED, "x" * 20_000
        office.write(office.spool.progress(tried, attempts=1, due=2e9, held=False))
    spool = Spool(str(office.root), emit=office.events.append)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    messages = spool.load()
    found = [next(messages)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        with pytest.raises(OSError, match="Too many open files"):
            next(messages)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    found += spool.load_rest()
    assert {(loaded.envelope.id, loaded.attempts, loaded.envelope.recipients[0].state) for loaded in found} == {
        ("A1", 1, State.DELIVERED), ("A2", 1, State.DELIVERED),
    }  # fmt: skip
    assert office.events == [] and len(os.listdir(office.root / "msg")) == 4


def test_a_message_that_cannot_be_set_aside_does_not_stop_the_start(office: Office) -> None:
    office.write(office.spool.new_file(envelope("good"), (TEXT,)))
    (office.root / "msg" / "bad").write_bytes(b"x")
    (office.root / "msg" / "bad.state").write_bytes(b"its progress stays with it")
    (office.root / "quarantine").rmdir()
    (office.root / "quarantine").write_bytes(b"not a folder")
    assert set(office.load()) == {"good"}
    (problem,) = office.events
    assert isinstance(problem, Problem)
    assert {"bad", "bad.state"} < {p.name for p in (office.root / "msg").iterdir()}


def whole(people: int = 1) -> bytes:
    return TEXT + form.seal(envelope(people=people), len(TEXT), SEALED)


def check(data: bytes) -> Envelope:
    """What load() does with a file of that content."""
    tail = form.read_trailer(data, len(data))
    if crc32(data[: tail.content]) != tail.crc:
        raise SpoolDamaged("content")
    return form.read_envelope(data, tail, "A1")


@settings(max_examples=400)
@given(st.integers(0, len(whole()) - 1), st.integers(1, 255))
def test_any_changed_octet_is_found(place: int, difference: int) -> None:
    data = bytearray(whole())
    data[place] ^= difference
    with pytest.raises(SpoolDamaged):
        check(bytes(data))


def test_every_flipped_bit_of_the_trailer_and_every_truncation_is_found() -> None:
    data = whole()
    assert check(data) == envelope(people=1)
    for place in range(len(data) - form.TRAILER, len(data)):
        for bit in range(8):
            with pytest.raises(SpoolDamaged):
                check(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    for length in range(len(data)):
        with pytest.raises(SpoolDamaged):
            check(data[:length])
        with pytest.raises(SpoolDamaged):
            check(data[length + 1 :])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_octets_are_never_a_message(head: bytes, rest: bytes) -> None:
    for data in (head, head + whole()[len(TEXT) :], head + form._MAGIC + rest):
        try:
            assert data[: len(TEXT)] == TEXT
            assert check(data)
        except (SpoolDamaged, AssertionError):
            continue
    with pytest.raises(SpoolDamaged):
        form.read_progress(head + rest)


@given(st.binary(max_size=80))
def test_a_sealed_record_of_another_kind_is_refused(record: bytes) -> None:
    """The sums are right but the JSON is not an envelope: another version, or somebody's joke."""
    head = b"%s%s%016x %016x %08x" % (record, form._MAGIC, 0, len(record), 0)
    data = b"%s %08x\n" % (head, crc32(head))
    with pytest.raises(SpoolDamaged):
        check(data)
    with pytest.raises(SpoolDamaged):
        form.read_progress(data)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["A1", "A1.state"])
def test_what_cannot_be_read_is_no_damage(
    office: Office, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """Not even of the progress alone: without it, who has got the message would get it again."""
    office.write(
        office.spool.new_file(envelope("A1"), (TEXT,)), office.spool.new_file(envelope("A2"), (TEXT,))
    )
    office.write(office.spool.progress(envelope("A1"), attempts=3, due=1.7e9, held=False))
    before, really = office.files(), os.open

    def sick(path: str, flags: int, *more: int) -> int:
        if path == str(office.root / "msg" / name):
            raise OSError(number, os.strerror(number), path)
        return really(path, flags, *more)

    with monkeypatch.context() as disk:
        disk.setattr(os, "open", sick)
        disk.setattr(
            module, "read_ahead", lambda paths, most: read_ahead(paths, most, None)
        )  # calls this open
        assert set(office.load()) == {"A2"}
    (problem,) = office.events
    assert isinstance(problem, Problem) and os.strerror(number) in problem.text
    assert office.files() == before
    assert office.load()["A1"][1] == 3
