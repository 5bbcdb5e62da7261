"""Maildir knowledge: folders and file names. https://cr.yp.to/proto/maildir.html, Dovecot's ,S= and
,W=.

A message's identity is its base name, the file name up to ":". Other programs may move a file from new/ to
cur/ and change the flags behind the colon at any moment; they never change the base. Two files with one
base (a scan that runs while another program moves the file sees it twice) are one message. Names may hold
any octet but "/" and NUL: they travel as str with surrogateescape.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import sha256

from mailserver.store import durable

TMP_AGE = 36 * 3600  # seconds: "you should ignore/delete tmp files that have not been accessed in 36 hours"
_FIELDS = re.compile(r",[SW]=\d+(?=,|\Z)", re.ASCII)
_UID = re.compile(r"[\x21-\x7e]{1,70}\Z")
NAME_MAX = 250  # octets of a folder's name; file systems allow 255
_SAFE = re.compile(rb"[^A-Za-z0-9_+=.-]")


class NameSource:
    """Makes unique file names: time, process, counter, random number, host (RFC-less, but so agreed since
    1995)."""

    __slots__ = ("_end", "_kin", "_own", "_usec", "issued", "mark")

    def __init__(self, hostname: str) -> None:
        host = hostname.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
        self.issued = self._usec = 0
        self.mark = f"P{os.getpid()}Q"
        self._end = f"R{os.urandom(4).hex()}.{host}"
        self._own = re.compile(rf"{self.mark}(\d+){re.escape(self._end)},")
        self._kin = re.compile(rf"\d{{10}}\.M\d{{6}}P\d+Q\d+R[0-9a-f]{{8}}\.{re.escape(host)},S=\d+,W=\d+\Z")

    def next(self, now: float, size: int, wire_size: int) -> str:
        """A name for a message of ``size`` octets on disk and ``wire_size`` with CRLF; ``now``: Unix
        seconds."""
        self.issued += 1
        # Later names sort later, as strings too, even when the clock stands still.
        self._usec = usec = max(int(now * 1e6), self._usec + 1)
        seconds, usec = divmod(usec, 1_000_000)
        return f"{seconds:010}.M{usec:06}{self.mark}{self.issued}{self._end},S={size},W={wire_size}"

    def left_behind(self, name: str) -> bool:
        """Whether an earlier process of ours on this host made the name."""
        return self._end not in name and bool(self._kin.match(name))

    def own(self, names: list[str]) -> list[str]:
        """Those of ``names`` that this source has made."""
        return [name for name in names if self._end in name]

    def serial(self, name: str) -> int:
        """The counter of a name of ours, 0 for anybody else's."""
        found = self._own.search(name)
        return int(found[1]) if found else 0


def make(path: str) -> None:
    """An empty Maildir, or what is missing of one; mode 0700, durable. Blocking, raises OSError."""
    for folder in ("tmp", "cur", "new"):
        durable.make_directory(f"{path}/{folder}")


def folder_name(text: str) -> str:
    """A file name for any text: letters, digits and _+=.- stay, all else becomes %XX (UTF-8); no name
    begins with a dot; what would be too long ends in a hash."""
    octets = text.encode("utf-8", "surrogatepass")
    name = _SAFE.sub(lambda match: b"%%%02X" % match[0][0], octets).decode()
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > NAME_MAX:
        # "%-" is in no other name, so this cannot be mistaken for one.
        name = f"{name[: NAME_MAX - 66]}%-{sha256(octets).hexdigest()}"
    return name or "%"


def base_name(name: str) -> str:
    """The part that never changes."""
    return name.partition(":")[0]


def natural_uid(name: str) -> str:
    """The unique-id of RFC 1939 7: the base name without its size fields, where that is 1 to 70 printable
    octets."""
    uid = _FIELDS.sub("", base_name(name))
    return uid if _UID.match(uid) else other_uid(name)


def other_uid(name: str, attempt: int = 0) -> str:
    """A unique-id for base names that are none themselves, or whose natural one is taken."""
    text = os.fsencode(base_name(name)) + b"\0" * attempt
    return sha256(text).hexdigest()


def listing(path: str) -> tuple[list[str], list[str]]:
    """The names in new/ and in cur/. Blocking, raises OSError."""
    # new/ first: a file that is moved to cur/ meanwhile is seen twice rather than not at all.
    return names(f"{path}/new"), names(f"{path}/cur")


def clean_tmp(path: str, now: float, source: NameSource | None = None) -> int:
    """Unlink what was left in tmp/ 36 hours ago, and whatever an earlier process named as ``source`` does,
    which is dead, for there is one at a time (host/lock.py); how many. ``now``: Unix seconds. Blocking, raises
    OSError."""
    removed = 0
    folder = f"{path}/tmp"  # noqa: S108 - the Maildir's own
    for name in names(folder):
        file = f"{folder}/{name}"
        with suppress(FileNotFoundError):
            status = os.lstat(file)
            ours = source is not None and source.left_behind(name)
            if ours or max(status.st_atime, status.st_mtime) < now - TMP_AGE:
                durable.discard(file)
                removed += 1
    return removed


def names(folder: str) -> list[str]:
    """The regular files in a folder, hidden ones left out. Blocking, raises OSError."""
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.is_file(follow_symlinks=False) and e.name[0] != "."]
