"""What a crash worker acknowledged, and whether the disk agrees."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from crash_worker import content

from mailserver.events import Event
from mailserver.queue.spool import Spool

WORKER = Path(__file__).with_name("crash_worker.py")


def lines(said: bytes) -> list[tuple[str, str]]:
    """(word, key) of every whole line."""
    whole = said.decode().split("\n")[:-1]
    return [(word, key) for word, _, key in (line.partition(" ") for line in whole)]


class Ledger:
    """What has been acknowledged so far, and whether the disk agrees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: dict[str, set[str]] = {word: set() for word in "LRPDSE"}

    def add(self, said: Iterable[tuple[str, str]]) -> None:
        for word, key in said:
            self.said[word].add(key)

    def check(self) -> None:
        assert not self.said["E"]  # nothing was damaged, so nothing was quarantined at a start
        self.check_maildir()
        self.check_spool()

    def check_maildir(self) -> None:
        box = self.root / "mail/example.test/alice"
        for path in [*box.glob("new/*"), *box.glob("cur/*")]:
            assert path.read_bytes() == content(path.name.removesuffix("b:2,"))
        for key in self.said["L"]:
            assert (box / "new" / key).samefile(box / "cur" / f"{key}b:2,")

    def check_spool(self) -> None:
        events: list[Event] = []
        spool = Spool(str(self.root / "queue"), emit=events.append)
        seen = {loaded.envelope.id for loaded in spool.load(read_only=True)}
        loaded = {loaded.envelope.id: loaded for loaded in spool.load()}
        assert seen == set(loaded)
        assert list(spool.scrub()) == []
        assert events == []
        assert self.said["R"] - self.said["D"] <= set(loaded)
        for key, item in loaded.items():
            assert spool.content(item.envelope).read() == content(key)
        for key in (self.said["P"] - self.said["D"]) & set(loaded):
            assert loaded[key].attempts == 1
        queue = self.root / "queue"
        assert not list((queue / "tmp").iterdir())
        assert not list((queue / "quarantine").iterdir())
        states = {path.stem for path in (queue / "msg").glob("*.state")}
        assert states <= set(loaded)
