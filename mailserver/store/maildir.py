"""Maildir knowledge: folders, file names, scanning. https://cr.yp.to/proto/maildir.html, Dovecot's ,S= and
,W=.

A message's identity is its base name, the file name up to ":". Other programs may move a file from new/ to
cur/ and change the flags behind the colon at any moment; they never change the base. Two files with one
base (a scan that runs while another program moves the file sees it twice) are one message. Names may hold
any octet but "/" and NUL: they travel as str with surrogateescape.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from operator import eq
from typing import NamedTuple, overload

from mailserver.store import durable
from mailserver.store.steps import STEPS

TMP_AGE = 36 * 3600  # seconds: "you should ignore/delete tmp files that have not been accessed in 36 hours"
_OURS = re.compile(r"^\d{10}\.M\d{6}P[!-+\--9;-~]{1,51},S=\d+,W=(\d{1,15})(?::[^\n]*)?\n", re.M)
_TIME = re.compile(r"(\d{1,15})\.([^.,:]*)")
_USEC = re.compile(r"M(\d{1,9})")
_SERIAL = re.compile(r"Q(\d{1,9})")
_WIRE = re.compile(r",W=(\d{1,15})(?=,|\Z)")
_USUAL_UID = re.compile(r"^([!-+\--9;-~]{1,70})(?:,[SW]=\d+)*(?::[^\n]*)?\n", re.M)
_FIELDS = re.compile(r",[SW]=\d+(?=,|\Z)")
_CHUNK = 4096
_UID = re.compile(r"[\x21-\x7e]{1,70}\Z")


class Entry(NamedTuple):
    """One message. ``name``: file name with flags; ``size``: octets on the wire (CRLF); ``uid``: for UIDL;
    ``new``: the file lies in new/, else in cur/."""

    name: str
    size: int
    uid: str
    new: bool


class Files:
    """What a Maildir holds, in columns, in delivery order. ``sizes``: octets on the wire, times two, plus
    one for a file in new/. ``uids``: unique-ids by base name, only those that are not natural_uid(name)."""

    __slots__ = ("names", "octets", "sizes", "uids")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes = array("q")
        self.octets = 0  # sum of the sizes
        self.uids: dict[str, str] = {}

    def add(self, name: str, size: int, new: bool) -> None:
        """One more at the end."""
        self.names.append(name)
        self.sizes.append(size << 1 | new)
        self.octets += size

    def without(self, names: set[str]) -> Files:
        """A copy that lacks ``names``."""
        rest = Files()
        for name, size in zip(self.names, self.sizes, strict=True):
            if name not in names:
                rest.add(name, size >> 1, bool(size & 1))
        rest.uids = self.uids
        return rest

    def is_just(self, new: list[str], cur: list[str]) -> bool:
        """Whether it holds exactly these files."""
        if len(new) + len(cur) != len(self.names):
            return False
        fresh = {name for name, size in zip(self.names, self.sizes, strict=True) if size & 1}
        return fresh == set(new) and set(self.names) - fresh == set(cur)

    def entry(self, index: int) -> Entry:
        """The message at ``index`` (0 and up)."""
        name, size = self.names[index], self.sizes[index]
        uid = self.uids.get(base_name(name)) if self.uids else None
        return Entry(name, size >> 1, uid or natural_uid(name), bool(size & 1))

    def unique_ids(self, start: int, stop: int) -> list[str]:
        """Those of a range: one search over many names costs a quarter of as many entries."""
        some = self.names[start:stop]
        found = [] if self.uids else _USUAL_UID.findall("\n".join(some) + "\n")
        if len(found) == len(some):
            return found
        return [self.entry(index).uid for index in range(start, start + len(some))]


class Entries(Sequence[Entry]):
    """The messages of a snapshot; each Entry is made when asked for."""

    __slots__ = ("_count", "_files")

    def __init__(self, files: Files) -> None:
        # ``files`` only ever grows at its end (a deletion makes new Files), so the count freezes it.
        self._files, self._count = files, len(files.names)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return [self._files.entry(number) for number in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return self._files.entry(index % self._count)

    def sizes(self, start: int, stop: int) -> list[int]:
        """Of the messages in a range, for listings: no Entry is made."""
        return [size >> 1 for size in self._files.sizes[start : min(stop, self._count)]]

    def unique_ids(self, start: int, stop: int) -> list[str]:
        """Of the messages in a range, for listings: no Entry is made."""
        return self._files.unique_ids(start, min(stop, self._count))


class NameSource:
    """Makes unique file names: time, process, counter, random number, host (RFC-less, but so agreed since
    1995)."""

    __slots__ = ("_end", "_kin", "_usec", "issued", "mark")

    def __init__(self, hostname: str) -> None:
        host = hostname.replace("/", r"\057").replace(":", r"\072").replace(",", r"\054")
        self.issued = self._usec = 0
        self.mark = f"P{os.getpid()}Q"
        self._end = f"R{os.urandom(4).hex()}.{host}"
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
        _, mark, rest = name.partition(self.mark)
        number, _, rest = rest.partition("R")
        return int(number) if mark and number.isdigit() and f"R{rest}".startswith(self._end + ",") else 0


def make(path: str) -> None:
    """An empty Maildir, or what is missing of one; mode 0700, durable. Blocking, raises OSError."""
    for folder in ("tmp", "cur", "new"):
        durable.make_directory(f"{path}/{folder}")


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


def arrange(path: str, new: list[str], cur: list[str], known: Mapping[str, int]) -> Files:
    """A ``listing`` in delivery order, with sizes. ``known``: sizes on the wire by base name, for files whose names
    do not tell them; those it lacks too are read and counted. Blocking."""
    return _read_plain(new, cur) or _read_any(path, new, cur, known)


def _read_plain(new: list[str], cur: list[str]) -> Files | None:
    """The fast way, 2 µs a message: every file is named as NameSource does, and none is there twice."""
    files = Files()
    files.names = [*new, *cur]
    files.names.sort()  # such names sort by time as they stand
    found: list[str] = []
    for start in range(0, len(files.names), _CHUNK):
        # One search over many names: no call per name, yet other threads get their turn in between.
        some = files.names[start : start + _CHUNK]
        found += _OURS.findall("\n".join(some) + "\n")
        if len(found) != start + len(some):  # also when a name has a line feed inside
            return None
    moments = [name[:18] for name in files.names]
    if any(map(eq, moments, moments[1:])):  # two of one microsecond: look closer
        return None
    if new and cur:
        fresh = set(new)
        sizes = [int(size) << 1 | (name in fresh) for size, name in zip(found, files.names, strict=True)]
    else:
        sizes = [int(size) << 1 | (not cur) for size in found]
    files.sizes = array("q", sizes)
    files.octets = (sum(sizes) - len(new)) // 2
    return files


def _read_any(path: str, new: list[str], cur: list[str], known: Mapping[str, int]) -> Files:
    by_base = {base_name(name): (name, True) for name in new}
    by_base.update((base_name(name), (name, False)) for name in cur)
    files = Files()
    taken: set[str] = set()
    for base, (name, fresh) in sorted(by_base.items(), key=lambda item: _order(path, *item[1])):
        found = _WIRE.search(base)
        size = int(found[1]) if found else known.get(base, -1)
        if size < 0:
            try:
                size = wire_size(f"{path}/{'new' if fresh else 'cur'}/{name}")
            except OSError:  # gone, or not ours to read: not a message we could serve
                continue
        files.add(name, size, fresh)
        uid = distinct_uid(name, taken)
        if uid != natural_uid(name):
            files.uids[base] = uid
    return files


def distinct_uid(name: str, taken: set[str]) -> str:
    """The natural uid unless ``taken`` holds it; what is returned is added."""
    uid = natural_uid(name)
    attempt = 0
    while uid in taken:
        uid = other_uid(name, attempt)
        attempt += 1
    taken.add(uid)
    return uid


def wire_size(path: str) -> int:
    """Octets of the file when every bare LF is sent as CRLF, and a last line without an end gets one (RFC 1939 3).
    Blocking, raises OSError."""
    size = 0
    last = b""
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            bare = piece.count(b"\n") - piece.count(b"\r\n") - (last == b"\r" and piece[:1] == b"\n")
            size += len(piece) + bare
            last = piece[-1:]
    return size + (2 if last not in {b"", b"\n"} else 0)


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
    if STEPS is not None and (found := STEPS.names(folder)) is not None:
        return found
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.is_file(follow_symlinks=False) and e.name[0] != "."]


def _order(path: str, name: str, new: bool) -> tuple[int, int, int, str]:
    """Delivery order: the time in the name, else the file's; then microsecond, counter, name."""
    if time := _TIME.match(name):
        usec, serial = _USEC.search(time[2]), _SERIAL.search(time[2])
        return int(time[1]), int(usec[1]) if usec else 0, int(serial[1]) if serial else 0, name
    seconds = 0
    with suppress(OSError):
        seconds = int(os.lstat(f"{path}/{'new' if new else 'cur'}/{name}").st_mtime)
    return seconds, 0, 0, name
