"""Reading a Maildir: which messages lie in it, in delivery order, and how large each is on the wire.

Compiled code (listing.c) takes 1 µs a message. What it cannot do is done here: it is not there, a name tells no
time, or two files may be one message or claim one unique-id.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Sequence
from contextlib import suppress

from mailserver.store import maildir
from mailserver.store.content import READ_ONLY
from mailserver.store.files import Files
from mailserver.store.maildir import base_name, natural_uid, other_uid
from mailserver.store.steps import STEPS, Steps
from mailserver.store.work import Listing

_TIME = re.compile(r"(\d{1,15})\.([^.,:]*)", re.ASCII)
_USEC = re.compile(r"M(\d{1,9})", re.ASCII)
_SERIAL = re.compile(r"Q(\d{1,9})", re.ASCII)
_WIRE = re.compile(r",W=(\d{1,15})(?=,|\Z)", re.ASCII)
_STEM = re.compile(r"[^,:]*")
_MEASURED = 250  # files read by one call


def scan(path: str, old: Files, steps: Steps | None = STEPS, listing: Listing | None = None) -> Files:
    """What the Maildir holds; ``old`` itself if that is still true. Sizes that names do not tell are taken from
    ``old``, else the files are read and counted. ``listing``: if that is made already. Blocking, raises OSError."""
    files, complete = _read(path, old, listing or _listed(path, steps), steps)
    if not complete:  # a file is gone or not ours to read; or another program moved it, and it is found now
        files, _ = _read(path, files, _listed(path, steps), steps)
    return old if files == old else files


def recall(listing: Listing, old: Files) -> Files | None:
    """The same where neither names nor ``old`` leave a size open; None: files have to be read. Never blocks."""
    files = Files()
    files.names, files.sizes = listing.columns()
    if _recall(files, old):
        return None
    files.octets = sum(size >> 1 for size in files.sizes)
    return old if files == old else files


def _listed(path: str, steps: Steps | None) -> Listing | None:
    return None if steps is None else steps.maildir(path)


def _read(path: str, old: Files, listing: Listing | None, steps: Steps | None) -> tuple[Files, bool]:
    """What scan() returns, and whether every file that was listed could be read."""
    files = Files()
    if listing is None:
        new, cur = maildir.listing(path)
        if old.is_just(new, cur):
            return old, True
        files.names, files.sizes = _arranged(path, new, cur)
    else:
        files.names, files.sizes = listing.columns()
    listed = len(files.names)
    if unread := _recall(files, old):
        _measure(path, files, unread, steps)
    files.octets = sum(size >> 1 for size in files.sizes)
    if listing is None:
        files.uids = _uids(files.names)
    return files, len(files.names) == listed


def _arranged(path: str, new: list[str], cur: list[str]) -> tuple[list[str], array[int]]:
    """As Steps.maildir does, and one of all files that have the same base name."""
    by_base = {base_name(name): (name, True) for name in new}
    by_base.update((base_name(name), (name, False)) for name in cur)
    names: list[str] = []
    sizes = array("q")
    for base, (name, fresh) in sorted(by_base.items(), key=lambda item: _order(path, *item[1])):
        found = _WIRE.search(base)
        names.append(name)
        sizes.append((int(found[1]) if found else -1) << 1 | fresh)
    return names, sizes


def _order(path: str, name: str, new: bool) -> tuple[int, int, int, bytes, str]:
    """Delivery order: the time in the name, else the file's; then microsecond, counter, what precedes the fields."""
    seconds = usec = serial = 0
    if time := _TIME.match(name):
        seconds = int(time[1])
        usec, serial = (int(found[1]) if (found := mark.search(time[2])) else 0 for mark in (_USEC, _SERIAL))
    else:
        with suppress(OSError):
            seconds = int(os.lstat(f"{path}/{'new' if new else 'cur'}/{name}").st_mtime)
    stem = _STEM.match(name)
    return seconds, usec, serial, os.fsencode(stem[0]) if stem else b"", name


def _recall(files: Files, old: Files) -> list[int]:
    """Sizes that the names do not tell, from ``old``. The indexes of those that are not known there either."""
    names, sizes = files.names, files.sizes
    if not sizes or min(sizes) >= 0:
        return []
    before: Sequence[int] = old.sizes
    if names != old.names:
        known = {
            base_name(name): size
            for name, size in zip(old.names, old.sizes, strict=True)
            if ",W=" not in name
        }
        before = [known.get(base_name(name), -1) for name in names]
    unread = []
    for index, (size, earlier) in enumerate(zip(sizes, before, strict=True)):
        if size < 0 <= earlier:
            sizes[index] = earlier & ~1 | size & 1
        elif size < 0:
            unread.append(index)
    return unread


def _measure(path: str, files: Files, unread: Sequence[int], steps: Steps | None) -> None:
    """Read those files. What cannot be read is gone, or not a message we could serve."""
    names, sizes = files.names, files.sizes
    for start in range(0, len(unread), _MEASURED):
        some = unread[start : start + _MEASURED]
        files_there = [f"{'new' if sizes[index] & 1 else 'cur'}/{names[index]}" for index in some]
        for index, size in zip(some, wire_sizes(path, files_there, steps), strict=True):
            sizes[index] = size << 1 | sizes[index] & 1
    if min(sizes) < 0:
        files.names = [name for name, size in zip(names, sizes, strict=True) if size >= 0]
        files.sizes = array("q", [size for size in sizes if size >= 0])


def _uids(names: Sequence[str]) -> dict[str, str]:
    """Unique-ids by base name, of those whose natural one another message has."""
    taken, others = set[str](), dict[str, str]()
    for name in names:
        uid = natural = natural_uid(name)
        attempt = 0
        while uid in taken:
            uid = other_uid(name, attempt)
            attempt += 1
        taken.add(uid)
        if uid != natural:
            others[base_name(name)] = uid
    return others


def wire_sizes(folder: str, paths: Sequence[str], steps: Steps | None = STEPS) -> list[int]:
    """Octets of files below ``folder`` when every bare LF is sent as CRLF, and a last line without an end gets one
    (RFC 1939 3); -1: the file cannot be read. Blocking."""
    if steps is not None:
        return steps.wire_sizes(folder, paths)
    return [_wire_size(f"{folder}/{path}") for path in paths]


def _wire_size(path: str) -> int:
    size = offset = 0
    last = b""
    try:
        fd = os.open(path, READ_ONLY)
        try:
            while piece := os.pread(fd, 1 << 20, offset):
                bare = piece.count(b"\n") - piece.count(b"\r\n") - (last == b"\r" and piece[:1] == b"\n")
                offset += len(piece)
                size += len(piece) + bare
                last = piece[-1:]
        finally:
            os.close(fd)
    except OSError:
        return -1
    return size + (2 if last not in {b"", b"\n"} else 0)
