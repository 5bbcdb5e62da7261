"""Sites of a given size: accounts and aliases in the database, messages on disk, mail that waits in the queue."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bench.child import Child
from bench.mailbox import fill
from bench.maildirs import make_boxes
from bench.ours import OWNER, Site
from bench.places import PEERS_DIR, RUN, CannotRunError
from mailserver.accounts.database import Database
from mailserver.accounts.known import FILE
from mailserver.accounts.passwords import hash_password

DOMAIN = "bench.test"
NOWHERE = 12699  # nobody listens there: mail for later.test waits
HOLDERS = 1000  # mailboxes over which the messages on disk are spread
MESSAGE = 1024  # octets
FILL_CLIENTS, FILL_LIMIT, SETTLE = 20, 600, 300.0  # seconds


@dataclass(frozen=True)
class Size:
    """``aliases`` lead to accounts; ``messages`` are spread over the first mailboxes; ``queued``: tried once."""

    accounts: int = 10
    aliases: int = 0
    messages: int = 0
    queued: int = 0


@dataclass(frozen=True)
class SizedSite(Site):
    """A site with its accounts in the database."""

    size: Size = Size()

    def make(self, boxes: Iterable[str] = ()) -> None:
        super().make(boxes)
        self._write_database()
        holders = [f"{number}u" for number in range(min(self.size.accounts, HOLDERS))]
        make_boxes(self.mail, holders, OWNER)
        for box in holders if self.size.messages else ():
            fill(str(self.mail), box, self.size.messages // len(holders), MESSAGE, sized=True, sync=False)
        if self.size.queued:
            self._queue()

    def _write_database(self) -> None:
        path, now = self.data / FILE, time.time()
        database = Database(str(path))
        database.add_domain(DOMAIN, now)  # makes the file and its tables
        database.close()
        stored = hash_password("secret")
        with sqlite3.connect(path) as db:  # one transaction: 150,000 commands would take an hour
            db.executemany(
                "INSERT INTO users VALUES (?, ?, ?, NULL, NULL)",
                ((f"{number}u@{DOMAIN}", stored, now) for number in range(self.size.accounts)),
            )
            db.executemany(
                "INSERT INTO aliases VALUES (?, ?, ?)",
                (
                    (f"alias{number}@{DOMAIN}", f'["{number % self.size.accounts}u@{DOMAIN}"]', now)
                    for number in range(self.size.aliases)
                ),
            )
        db.close()
        for file in self.data.glob(f"{FILE}*"):
            shutil.chown(file, OWNER, OWNER)

    def _queue(self) -> None:
        """Through the front door: accepted, tried once, put off for an hour."""
        child = Child("filling", ["mailserver", "serve", "-c", str(self.config)], self.folder / "stderr")
        try:
            command = [
                str(PEERS_DIR / "bin" / "smtpload"), "-d", "-s", str(FILL_CLIENTS), "-m", str(self.size.queued), "-l",
                str(MESSAGE), "-k", "100", "-t", "%du@later.test", "-T", str(FILL_LIMIT), "127.0.0.1", str(self.smtp),
            ]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FILL_LIMIT + 60, check=False
            )
            if done.returncode:
                raise CannotRunError(f"the queue could not be filled: {done.stdout}")
            child.meter.settle(SETTLE)
        finally:
            child.stop()


def sized(name: str, port: int, size: Size) -> SizedSite:
    """A site below RUN whose queue waits for an hour."""
    return SizedSite(
        RUN / f"sized-{name}",
        port=port,
        routes=(("later.test", NOWHERE),),
        more='[queue]\nretry = "1h"\n',
        size=size,
    )
