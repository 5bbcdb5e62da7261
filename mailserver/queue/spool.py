"""Accepted mail that still has somewhere to go: one file per message, and its legal states on disk.

For a message ID, M = msg/ID, P = msg/ID.state, T = a file of ours in tmp/ (an anonymous one has no name at
all):

    state  T  M  P   meaning                        start-up
    S0     -  -  -   no such message                -
    S1     +  -  -   being written, or abandoned    unlinks T: nobody was told
    S2     ?  +  -   ours, not tried yet            unlinks T; all recipients pending, due now
    S3     ?  +  +   ours, tried                    unlinks T; goes on as P says
    S4     ?  -  +   settled, half removed          unlinks P if it is one, else S5
    S5     anything unreadable                      moves it to quarantine/, says so, goes on

    S0 → S1   open O_CREAT (or O_TMPFILE), write    content, then envelope, then the trailer
    S1 → S2   fdatasync or syncfs, then link        M exists ⇒ its content is on disk: existence is acceptance
              fsync of msg/ or syncfs               only now is the client told 250
              unlink of T                           (an adopted file or one written with a name)
    S2 → S3   rename of a synced file over P        likewise S3 → S3
    S2 → S0   unlink M                              settled without a delay
    S3 → S4   unlink M                              settled
    S4 → S0   unlink P                              never while M is there: M alone would be sent again

store/durable.py makes all these moves. Removal is not synced: power loss may bring S2 or S3 back and a
settled message is sent twice; it is never lost. An unreadable P is quarantined alone: the message is then
S2, that is, all its recipients are pending again, which may send twice but loses nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import NamedTuple
from zlib import crc32

from mailserver.events import Emit, Problem, Quarantined
from mailserver.message.envelope import Envelope
from mailserver.queue import spool_format as form
from mailserver.queue.read_ahead import read_ahead
from mailserver.queue.spool_format import SpoolDamaged
from mailserver.store import durable
from mailserver.store.content import Content
from mailserver.store.durable import FileSlice, Job, NewFile

__all__ = ["Loaded", "Spool", "SpoolDamaged", "checksum"]

WHOLE = 1 << 16  # octets: files up to this size are read and checked whole by load()
_SMALL = 1 << 14  # octets: files up to this size are read before their turn
_TAIL = 1 << 13  # octets of a larger file that are read first
_CHUNK = 1 << 20
_PROGRESS_MAX = 1 << 26  # octets
_OURS = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}  # the file is not at fault
_UNREADABLE = {errno.EACCES, errno.EPERM, errno.EIO}  # it may be whole: rights and disks can be mended


class Loaded(NamedTuple):
    """One message of the spool. ``due``: Unix seconds of the next attempt."""

    envelope: Envelope
    attempts: int
    due: float
    held: bool


class Spool:
    """The files below ``root`` (data_dir/queue): tmp/, msg/, quarantine/.

    Methods that make a NewFile touch nothing; the caller hands it to Durable. The others block, raise
    OSError, and emit their events in the thread that calls them.
    """

    def __init__(self, root: str, *, emit: Emit) -> None:
        self.root, self._emit = root, emit
        self._messages, self._tmp = f"{root}/msg", f"{root}/tmp"  # noqa: S108 - our own
        self._serial = count()
        self._pid = os.getpid()
        self._found: list[str] = []  # ids, while load() goes through them
        self._passed = 0  # it is done with so many of them
        self._states: set[str] = set()  # ids that have a progress file
        self._unchecked: list[str] = []  # ids whose content load() has not read

    # ---- writing: what Durable is to do --------------------------------------------------------------------
    def new_file(
        self, envelope: Envelope, parts: tuple[bytes | FileSlice, ...], *, crc: int | None = None
    ) -> NewFile:
        """The spool file of ``envelope`` with the content ``parts``. ``crc``: CRC-32 of the content (see
        ``checksum``), needed as soon as a part is a FileSlice. Raises ValueError when envelope.size is
        wrong."""
        length = 0
        if crc is None:
            crc = 0
            for part in parts:
                assert isinstance(part, bytes), "content in a file: give its crc"
                crc = crc32(part, crc)
        for part in parts:
            length += part.length if isinstance(part, FileSlice) else len(part)
        return NewFile(
            (*parts, self._seal(envelope, length, crc)), self._unique(envelope.id), (self.path(envelope.id),)
        )

    def adopt(self, envelope: Envelope, path: str, *, crc: int) -> NewFile:
        """The same for content streamed to ``path``, which becomes the spool file. ``crc``: its CRC-32."""
        seal = self._seal(envelope, envelope.size, crc)
        return NewFile((seal,), self._unique(envelope.id), (self.path(envelope.id),), adopt=path)

    def progress(self, envelope: Envelope, *, attempts: int, due: float, held: bool) -> NewFile:
        """The progress file that replaces the one there is. ``due``: Unix seconds."""
        seal = form.seal(form.progress_of(envelope, attempts=attempts, due=due, held=held), 0, 0)
        return NewFile((seal,), self._unique(envelope.id), (self.path(envelope.id) + ".state",), replace=True)

    def removal(self, id: str) -> Job:
        """What to do when all recipients are settled."""
        path = self.path(id)
        return Job(remove=(path,), remove_then=(path + ".state",))

    def path(self, id: str) -> str:
        """Where the message lies."""
        return f"{self._messages}/{id}"

    def _unique(self, id: str) -> str:
        return f"{self._tmp}/{id}.{self._pid}.{next(self._serial)}"

    def _seal(self, envelope: Envelope, length: int, crc: int) -> bytes:
        if length != envelope.size:
            raise ValueError(f"{envelope.id}: envelope.size is {envelope.size}, content has {length} octets")
        return form.seal(envelope, length, crc)

    # ---- reading -------------------------------------------------------------------------------------------
    def content(self, envelope: Envelope) -> Content:
        """The message's content, just checked against its CRC: read from disk whole, so beyond 256 KiB call
        this in a thread. Raises SpoolDamaged (then quarantine it), FileNotFoundError, OSError."""
        path = self.path(envelope.id)
        self._check(path)
        return Content(path, 0, envelope.size)

    def load(self, *, read_only: bool = False) -> Iterator[Loaded]:
        """Every message, in no particular order, after bringing the disk into the states S0, S2 and S3.

        Files up to WHOLE octets are checked whole, of larger ones the envelope; ``scrub`` does the rest.
        Damaged ones are quarantined; those that cannot be read stay where they are, for a later start, and that is
        said. ``read_only`` changes nothing on disk and emits nothing: damaged ones
        are just not there.
        """
        if not read_only:
            for path in (self._tmp, self._messages, f"{self.root}/quarantine"):
                durable.make_directory(path)
            with os.scandir(self._tmp) as entries:
                abandoned = [entry.path for entry in entries if not entry.is_dir(follow_symlinks=False)]
            for path in abandoned:
                durable.discard(path)
        self._found, self._states = self._list()
        self._unchecked, self._passed = [], 0
        yield from self.load_rest(read_only=read_only)

    def load_rest(self, *, read_only: bool = False) -> Iterator[Loaded]:
        """What load() found and had not come to when it raised an error, which is no fault of the file it was at."""
        names, states = self._found[self._passed :], self._states
        paths = [path for name in names for path in self._paths(name, name in states)]
        contents = read_ahead(paths, _SMALL)
        for name in names:
            data, state = next(contents), next(contents) if name in states else None
            loaded: Loaded | None
            try:
                loaded = self._load_one(name, data, name in states, state, read_only)
            except FileNotFoundError:  # settled meanwhile (read_only beside a running server)
                loaded = None
            except (SpoolDamaged, OSError) as error:
                if isinstance(error, OSError) and error.errno in _OURS:
                    raise
                loaded = None
                if not read_only and not self._stays(name, error):
                    self.quarantine(name, str(error))
            self._passed += 1
            if loaded is not None:
                yield loaded
        if not read_only:
            for name in states.difference(self._found):
                with suppress(OSError):  # unreadable: it stays
                    if (
                        self._load_progress(name, read_only) is not None
                    ):  # else it is none of ours, and set aside
                        durable.discard(f"{self._messages}/{name}.state")
        self._found, self._states = [], set()

    def abandon_scrub(self) -> None:
        """A running scrub ends after the file it is at."""
        self._unchecked.clear()

    def scrub(self) -> Iterator[tuple[str, str]]:
        """Read the content of what was too large for load(): id and reason of what belongs into quarantine."""
        while self._unchecked:
            try:
                id = self._unchecked.pop()
            except IndexError:  # abandoned in this very moment
                break
            try:
                self._check(self.path(id))
            except FileNotFoundError:
                continue  # settled meanwhile
            except (SpoolDamaged, OSError) as error:
                if isinstance(error, OSError) and error.errno in _OURS:
                    continue  # content() will look again before it is sent
                if not self._stays(id, error):
                    yield id, str(error)

    def _stays(self, id: str, error: SpoolDamaged | OSError) -> bool:
        """Whether a message is not damaged, as far as can be known, but cannot be read; that is said."""
        if not isinstance(error, OSError) or error.errno not in _UNREADABLE:
            return False
        text = f"{self.path(id)} cannot be read: {error}; it is kept, and will be delivered when it can"
        self._emit(Problem("spool", text, id=id))
        return True

    def quarantine(self, id: str, reason: str) -> None:
        """Move the message and then its progress aside, untouched, and say so."""
        if self._set_aside(id, id, reason) and os.path.lexists(self.path(id) + ".state"):
            self._set_aside(id + ".state", id, reason)

    def _set_aside(self, name: str, id: str, reason: str) -> bool:
        path, target = f"{self._messages}/{name}", f"{self.root}/quarantine/{name}"
        try:
            durable.make_directory(f"{self.root}/quarantine")
            for number in count(1):
                if not os.path.lexists(target):
                    break
                target = f"{self.root}/quarantine/{name}.{number}"
            durable.move(path, target)
        except OSError as error:
            self._emit(
                Problem("spool", f"{path} is damaged ({reason}) and cannot be moved aside: {error}", id=id)
            )
            return False
        self._emit(Quarantined(path, target, reason, id))
        return True

    def _list(self) -> tuple[list[str], set[str]]:
        """Message ids by inode, which is about their order on disk; ids that have a progress file."""
        found: list[tuple[int, str]] = []
        states: set[str] = set()
        with suppress(FileNotFoundError), os.scandir(self._messages) as entries:
            for entry in entries:
                if entry.name.endswith(".state"):
                    states.add(entry.name[:-6])
                elif entry.is_file(follow_symlinks=False):
                    found.append((entry.inode(), entry.name))
        found.sort()
        return [name for _, name in found], states

    def _paths(self, id: str, tried: bool) -> tuple[str, ...]:
        path = self.path(id)
        return (path, path + ".state") if tried else (path,)

    def _load_one(
        self, id: str, data: bytes | None, tried: bool, state: bytes | None, read_only: bool
    ) -> Loaded:
        """``data`` and ``state`` are the two files' whole content, where that is at hand."""
        data, size = (data, len(data)) if data is not None else _read_end(self.path(id), WHOLE)
        tail = form.read_trailer(data, size)
        if len(data) == size:
            if crc32(memoryview(data)[: tail.content]) != tail.crc:
                raise SpoolDamaged("the content is damaged")
        elif not read_only:
            self._unchecked.append(id)
        if len(data) < tail.record + form.TRAILER:  # many recipients
            with open(self.path(id), "rb") as file:
                file.seek(tail.content)
                data = file.read()
        envelope = form.read_envelope(data, tail, id)
        progress = self._load_progress(id, read_only, state) if tried else None
        if progress is None:
            return Loaded(envelope, 0, envelope.accepted, bool(envelope.hold))
        form.apply(progress, envelope)
        envelope.hold = envelope.hold if progress.held else ""
        return Loaded(envelope, progress.attempts, progress.due, progress.held)

    def _load_progress(self, id: str, read_only: bool, state: bytes | None = None) -> form.Progress | None:
        try:
            return form.read_progress(state or _read_progress(self.path(id) + ".state"))
        except FileNotFoundError:
            return None
        except (SpoolDamaged, OSError) as error:
            if isinstance(error, OSError) and error.errno in _UNREADABLE | _OURS:
                raise  # without it nobody knows who has got the message already
            if not read_only:
                self._set_aside(id + ".state", id, str(error))
            return None

    def _check(self, path: str) -> None:
        data, size = _read_end(path, WHOLE)
        tail = form.read_trailer(data, size)
        found = crc32(memoryview(data)[: tail.content]) if len(data) == size else checksum(path, tail.content)
        if found != tail.crc:
            raise SpoolDamaged("the content is damaged")


def checksum(path: str, length: int) -> int:
    """CRC-32 of the first ``length`` octets. Blocking, about 1 GB/s; raises OSError (EIO: too short)."""
    crc = 0
    for piece in Content(path, 0, length).chunks(_CHUNK):
        crc = crc32(piece, crc)
    return crc


def _read_progress(path: str) -> bytes:
    """The whole file; one that cannot be a progress file is not waited for and not read."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SpoolDamaged("no file")
        if status.st_size > _PROGRESS_MAX:
            raise SpoolDamaged("too large for a progress file")
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


def _read_end(path: str, whole: int) -> tuple[bytes, int]:
    """(the file, its size) when it has up to ``whole`` octets, else (its last ones, its size)."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(fd, whole + 1)
        if len(data) <= whole:
            return data, len(data)
        size = os.fstat(fd).st_size
        return os.pread(fd, _TAIL, size - _TAIL), size
    finally:
        os.close(fd)
