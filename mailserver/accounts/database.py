"""Accounts, domains and aliases that the commands write: one SQLite file, ``data_dir/accounts.sqlite``.

The only importer of sqlite3. Every method blocks (a write until it is on disk: WAL, synchronous=FULL) and
may be called from any thread. The running server and commands beside it may have the file open at once. Keys
are normalised by the caller (``Address.key``, ``normalise_domain``). A file that is damaged, empty, foreign, or
written by a newer version is refused before anything in it is changed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from mailserver.accounts.errors import AccountsError, AccountsUnavailable
from mailserver.accounts.private_file import create_private, is_empty

_APPLICATION_ID = 0x6D61696C  # "mail": tells our file from any other SQLite file
_BUSY_MS = 5000

_VERSION_1 = """
CREATE TABLE users (address TEXT PRIMARY KEY, password TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE domains (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE aliases (address TEXT PRIMARY KEY, targets TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
"""
_VERSION_2 = """
ALTER TABLE users ADD COLUMN scram_sha256 TEXT;
ALTER TABLE users ADD COLUMN scram_sha1 TEXT;
CREATE TABLE app_passwords (address TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL,
  scram_sha256 TEXT NOT NULL, scram_sha1 TEXT NOT NULL, created REAL NOT NULL, used REAL, used_by TEXT,
  PRIMARY KEY (address, name)) WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
MIGRATIONS = (_VERSION_1, _VERSION_2)  # the n-th leads from schema version n to n + 1; append, never change


class Keys(NamedTuple):
    """SCRAM keys of one password in stored form (scram_keys.py), None where nobody has shown the password
    yet."""

    sha256: str | None = None
    sha1: str | None = None


NO_KEYS = Keys()


class StoredUser(NamedTuple):
    """``password``: a form passwords.py verifies. ``created``: Unix seconds, as everywhere here."""

    address: str
    password: str
    created: float
    keys: Keys = NO_KEYS


class StoredAppPassword(NamedTuple):
    """``scopes``: services it opens. ``used``: when last, by ``used_by`` ("pop3 192.0.2.7"); None = never."""

    address: str
    name: str
    scopes: tuple[str, ...]
    keys: Keys
    created: float
    used: float | None = None
    used_by: str | None = None


class StoredDomain(NamedTuple):
    name: str
    created: float


class StoredAlias(NamedTuple):
    address: str
    targets: tuple[str, ...]
    created: float


class Database:
    """Opens ``path`` at first use; creates it (mode 0600) with the first write only, so looking leaves no
    trace.

    Methods raise AccountsUnavailable when the file cannot be used, AccountsError for what cannot be granted.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise AccountsUnavailable now if the file exists and cannot be used."""
        with self._reading():
            pass

    def users(self) -> list[StoredUser]:
        """All accounts, the oldest first."""
        rows = self._rows("SELECT address, password, created, scram_sha256, scram_sha1 FROM users")
        return [
            StoredUser(address, password, created, Keys(*keys)) for address, password, created, *keys in rows
        ]

    def domains(self) -> list[StoredDomain]:
        """All domains, the oldest first."""
        return [StoredDomain(*row) for row in self._rows("SELECT name, created FROM domains")]

    def aliases(self) -> list[StoredAlias]:
        """All aliases, the oldest first."""
        rows = self._rows("SELECT address, targets, created FROM aliases")
        return [StoredAlias(a, tuple(msgspec.json.decode(t, type=list[str])), c) for a, t, c in rows]

    def add_user(self, address: str, password: str, created: float, keys: Keys = NO_KEYS) -> None:
        """``password`` is the stored form, never the password itself."""
        if not self.add_users([StoredUser(address, password, created, keys)]):
            raise AccountsError(f"the account {address} exists already")

    def add_users(self, users: Sequence[StoredUser]) -> int:
        """Those that do not exist yet; how many. App passwords of an earlier account of their names are gone."""
        added, insert = 0, "INSERT INTO users VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        with self._writing() as db:
            for user in users:
                if db.execute(insert, (*user[:3], *user.keys)).rowcount:
                    db.execute("DELETE FROM app_passwords WHERE address = ?", (user.address,))
                    added += 1
        return added

    def set_password(
        self, address: str, password: str, keys: Keys = NO_KEYS, *, instead_of: str | None = None
    ) -> None:
        """``instead_of``: only while this is the stored form; AccountsError otherwise."""
        self._change(
            "UPDATE users SET password = ?1, scram_sha256 = ?2, scram_sha1 = ?3"
            " WHERE address = ?4 AND password = coalesce(?5, password)",
            (password, *keys, address, instead_of),
            f"no account {address}",
        )

    def remove_user(self, address: str) -> None:
        with self._writing() as db:
            if db.execute("DELETE FROM users WHERE address = ?", (address,)).rowcount == 0:
                raise AccountsError(f"no account {address}")
            db.execute("DELETE FROM app_passwords WHERE address = ?", (address,))

    def app_passwords(self) -> list[StoredAppPassword]:
        """All of all accounts, the oldest first."""
        rows = self._rows(
            "SELECT address, name, scopes, scram_sha256, scram_sha1, created, used, used_by FROM app_passwords"
        )
        return [
            StoredAppPassword(address, name, tuple(scopes.split()), Keys(sha256, sha1), *rest)
            for address, name, scopes, sha256, sha1, *rest in rows
        ]

    def add_app_password(self, new: StoredAppPassword) -> None:
        """Its account may stand anywhere, that is the caller's to know."""
        self._change(
            "INSERT INTO app_passwords VALUES (?, ?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT DO NOTHING",
            (new.address, new.name, " ".join(new.scopes), *new.keys, new.created),
            f"{new.address} has an app password called {new.name} already",
        )

    def remove_app_password(self, address: str, name: str) -> None:
        self._change(
            "DELETE FROM app_passwords WHERE address = ? AND name = ?",
            (address, name),
            f"{address} has no app password called {name}",
        )

    def app_password_used(self, address: str, name: str, used: float, used_by: str) -> None:
        with self._writing() as db:
            db.execute(
                "UPDATE app_passwords SET used = ?, used_by = ? WHERE address = ? AND name = ?",
                (used, used_by, address, name),
            )

    def secret(self, name: str) -> bytes:
        """32 random octets of this installation, made when they are first asked for."""
        with self._writing() as db:
            db.execute("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, os.urandom(32)))
            return bytes(db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()[0])

    def add_domain(self, name: str, created: float) -> None:
        self._change(
            "INSERT INTO domains VALUES (?, ?) ON CONFLICT DO NOTHING",
            (name, created),
            f"the domain {name} exists already",
        )

    def remove_domain(self, name: str) -> None:
        """Refused while the database holds accounts or aliases of that domain."""
        suffix = "%@" + name.replace("\\", r"\\").replace("_", r"\_")
        with self._writing() as db:
            for table, what in (("users", "accounts"), ("aliases", "aliases")):
                query = f"SELECT count(*) FROM {table} WHERE address LIKE ? ESCAPE '\\'"  # noqa: S608 - our own names
                if count := db.execute(query, (suffix,)).fetchone()[0]:
                    raise AccountsError(f"the domain {name} still has {count} {what}; remove them first")
            if db.execute("DELETE FROM domains WHERE name = ?", (name,)).rowcount == 0:
                raise AccountsError(f"no domain {name}")

    def set_alias(self, address: str, targets: Sequence[str], created: float) -> None:
        """Make the alias, or give it new targets (its creation time stays)."""
        self._change(
            "INSERT INTO aliases VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET targets = excluded.targets",
            (address, msgspec.json.encode(list(targets)).decode(), created),
            "",
        )

    def remove_alias(self, address: str) -> None:
        self._change("DELETE FROM aliases WHERE address = ?", (address,), f"no alias {address}")

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._reading() as db:
            return [] if db is None else db.execute(f"{query} ORDER BY created, 1").fetchall()

    def _change(self, statement: str, values: tuple[object, ...], otherwise: str) -> None:
        with self._writing() as db:
            if db.execute(statement, values).rowcount == 0:
                raise AccountsError(otherwise)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection, or None while there is no file."""
        with self._lock, self._faults():
            if self._connection is None and os.path.exists(self.path):
                self._connection = self._open()
            yield self._connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back by any exception."""
        with self._lock, self._faults():
            if self._connection is None:
                create_private(self.path, _nothing())
                self._connection = self._open()
            with _transaction(self._connection):
                yield self._connection

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise AccountsUnavailable(_explain(self.path, error)) from error

    def _open(self) -> sqlite3.Connection:
        if is_empty(self.path):
            raise sqlite3.DatabaseError("it is empty")
        db = sqlite3.connect(
            f"file:{_uri(self.path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(db, self.path)
        except BaseException:
            db.close()
            raise
        return db


def _prepare(db: sqlite3.Connection, path: str) -> None:
    """Look first (a damaged file stays as it is), then switch to WAL and bring the schema up to date."""
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    db.execute("PRAGMA temp_store = MEMORY")  # else sorting many accounts needs files where we may not write
    # In this order: another process may be making the tables and our mark, in one transaction.
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
    if tables and application != _APPLICATION_ID:
        raise AccountsUnavailable(f"{path} is an SQLite file of another program; it was left as it is")
    if version > len(MIGRATIONS):
        raise AccountsUnavailable(
            f"{path} was written by a newer version (schema {version}); it was left as it is"
        )
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    if version < len(MIGRATIONS):
        _migrate(db)


def _migrate(db: sqlite3.Connection) -> None:
    with _transaction(db):
        for script in MIGRATIONS[
            _pragma(db, "user_version") :
        ]:  # asked again: another process may have been faster
            for statement in filter(str.strip, script.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _nothing() -> bytes:
    """What a database holds before its first table: SQLite takes an empty file for that, too, but then nobody could
    tell a new database from one that was lost."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        return db.serialize()


def _uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


# The disk is full, the file is locked …: nothing is wrong with what is in it.
_NOT_THE_FILE = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM,
    }
)  # fmt: skip


def _explain(path: str, error: Exception) -> str:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if isinstance(error, OSError) or code in _NOT_THE_FILE:
        return f"{path} cannot be used: {text}"
    return (
        f"{path} is damaged ({text}); it was left as it is: restore a copy, or move it away to start afresh"
    )
