"""What takes many steps, in C (all .c files here): one call for all, most of them without the interpreter's lock.

Each system call of a commit takes microseconds, but from Python each gives the lock away and has to wait for the event
loop's thread to get it back; what is done with the name of every message of a mailbox takes a tenth of the time, and
nobody has to wait for it. The compiled file is made when the package is installed and a C compiler is there
(packaging/compile_steps.py). Without it the same is done call by call: STEPS is None.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

from mailserver.store import crash
from mailserver.store.job import Job
from mailserver.store.parcel import FORM_TYPES, How, Progress, ProgressForm, form, path_of
from mailserver.store.work import Incoming, Listing, Removal

VERSION = 8  # of steps.c
COMPILED = Path(__file__).with_name("_steps.so")
WIRE_MAX = 64 << 10  # octets that change their form at once: in the processor's cache
LINE_MAX = 96  # octets of a line of LIST or UIDL, more than there can be


class _Room(threading.local):
    """Each thread's own."""

    def __init__(self) -> None:
        self.octets = ctypes.create_string_buffer(2 * WIRE_MAX + 1)


class Steps:
    """The functions of the .c files. Raises OSError when the compiled file is missing or of another version."""

    def __init__(self, path: Path = COMPILED) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        if ctypes.c_int.in_dll(library, "steps_version").value != VERSION:
            raise OSError(errno.ENOEXEC, "of another version", str(path))
        self._commit, self._link, self._close = library.commit_parcel, library.link_files, library.close_files
        self._parcel = library.parcel_new
        self._parcel.argtypes, self._parcel.restype = FORM_TYPES, ctypes.c_void_p
        self._commit.argtypes = (
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ProgressForm)
        )  # fmt: skip
        self._unlink, self._read = library.unlink_files, library.read_cached
        self._read_files = library.read_files
        self._read.argtypes = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long
        self._list, self._free, self._measure = library.list_maildir, library.free_listing, library.wire_sizes
        self._unlink.argtypes, self._list.argtypes = (ctypes.POINTER(Removal),), (ctypes.POINTER(Listing),)
        self._free.argtypes = (ctypes.POINTER(Listing),)
        self._size_lines, self._uid_lines = library.size_lines, library.uid_lines
        self._size_lines.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p
        self._uid_lines.argtypes = ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p
        # Has not to wait for the interpreter's lock again afterwards, which may take longer than the work.
        short = ctypes.PyDLL(str(path))
        self._wire, self._stored = short.wire_form, short.stored_form
        self._wire.argtypes = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_char_p
        self._stored.argtypes = ctypes.POINTER(Incoming), ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p
        self._room = _Room()
        for function in (self._read, self._size_lines, self._uid_lines, self._wire, self._stored):
            function.restype = ctypes.c_long
        self._read_files.argtypes = (
            ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_char_p, ctypes.c_long, ctypes.c_long,
            ctypes.POINTER(ctypes.c_long),
        )  # fmt: skip
        if crash.ARMED is not None:
            library.arm_crash(*crash.ARMED)

    def commit(self, folder: str, jobs: Sequence[Job], how: How) -> Progress:
        """The files of ``jobs``, which begin without a name in ``folder``: write and name them, and sync. Nothing is
        done if there are none, or some that only Python can do."""
        parcel = form(jobs)
        if parcel is None or not parcel.files:
            return Progress()
        fds, progress = (ctypes.c_int * parcel.files)(), ProgressForm(error=-1)
        self._commit(self._parcel(*parcel), path_of(folder), how, fds, progress)
        return progress.read(fds)

    def link(self, files: Sequence[tuple[int, Sequence[str]]]) -> int:
        """Give the file behind each descriptor its names. Returns how many names were made, the first ones."""
        count = len(files)
        names = [path_of(name) for _, names in files for name in names]
        done: int = self._link(
            (ctypes.c_int * count)(*[fd for fd, _ in files]),
            (ctypes.c_int64 * count)(*[len(names) for _, names in files]),
            (ctypes.c_char_p * len(names))(*names), count,
        )  # fmt: skip
        return done

    def close(self, fds: Sequence[int]) -> None:
        """Close files of which nothing is expected any more."""
        self._close((ctypes.c_int * len(fds))(*fds), len(fds))

    def unlink(self, paths: Sequence[str]) -> list[int]:
        """Remove all of them; what prevented each (errno), 0 where nothing did."""
        removal = Removal(paths)
        self._unlink(removal)
        return removal.result()

    def listing(self, path: str) -> Listing:
        """For what lies in the Maildir ``path``; not made yet."""
        return Listing(path_of(f"{path}/new"), path_of(f"{path}/cur"), self._free)

    def maildir(self, path: str) -> Listing | None:
        """What lies in it. None: to be found out in another way."""
        listing = self.listing(path)
        self._list(listing)
        return None if listing.count < 0 else listing

    def wire_sizes(self, folder: str, paths: Sequence[str]) -> list[int]:
        """Octets on the wire of files below ``folder``; -1 where one cannot be read."""
        count = len(paths)
        sizes = (ctypes.c_int64 * count)()
        self._measure(path_of(folder), (ctypes.c_char_p * count)(*map(path_of, paths)), count, sizes)
        return list(sizes)

    def size_lines(self, sizes: array[int], number: int) -> bytes:
        """The lines of LIST for the messages from ``number`` on; ``sizes`` as in Files."""
        lines = ctypes.create_string_buffer(len(sizes) * LINE_MAX)
        used = self._size_lines(sizes.buffer_info()[0], len(sizes), number, lines)
        return ctypes.string_at(lines, used)

    def uid_lines(self, names: Sequence[str], number: int) -> bytes | None:
        """The lines of UIDL for the messages from ``number`` on; None: one has not the unique-id that its name gives
        it."""
        lines = ctypes.create_string_buffer(len(names) * LINE_MAX)
        used = self._uid_lines(os.fsencode("\0".join(names)), len(names), number, lines)
        return None if used < 0 else ctypes.string_at(lines, used)

    def read_cached(self, path: str, room: ctypes.Array[ctypes.c_char], most: int) -> bytes | None:
        """The whole file if it has at most ``most`` octets, one less than there is ``room``, and all are in memory."""
        got = self._read(path_of(path), room, most)
        return None if got < 0 else ctypes.string_at(room, got)

    def wire_form(self, data: bytes | bytearray, *, at_line_start: bool) -> bytes:
        """What becomes of ``data`` on the wire (store/wire.py). Raises ValueError above WIRE_MAX octets."""
        if len(data) > WIRE_MAX:
            raise ValueError("too many octets")
        if not data:  # has no address
            return b""
        room = self._room.octets
        where = data if isinstance(data, bytes) else ctypes.addressof(ctypes.c_char.from_buffer(data))
        return ctypes.string_at(room, self._wire(where, len(data), at_line_start, room))

    def stored_form(self, incoming: Incoming, wire: bytes) -> bytes:
        """What becomes of ``wire`` from ``incoming.start`` on, of WIRE_MAX octets of it at most (store/wire.py)."""
        room = self._room.octets
        end = min(len(wire), incoming.start + WIRE_MAX)
        return ctypes.string_at(room, self._stored(incoming, wire, end, room))

    def read_files(
        self, paths: Sequence[str], room: ctypes.Array[ctypes.c_char], most: int
    ) -> list[bytes | None]:
        """The content of the first of ``paths``: as many as are certain to fit into ``room``, which must be larger
        than ``most``. None for a file that is empty, has more than ``most`` octets, or cannot be read just so."""
        count = len(paths)
        names = (ctypes.c_char_p * count)(*map(path_of, paths))
        lengths = (ctypes.c_long * count)()
        done = self._read_files(names, count, room, len(room), most, lengths)
        found, view, position = list[bytes | None](), memoryview(room), 0
        for length in lengths[:done]:
            found.append(bytes(view[position : position + length]) if length >= 0 else None)
            position += max(length, 0)
        return found


def _loaded() -> Steps | None:
    try:
        return Steps()
    except (OSError, ValueError, AttributeError):  # none, or one of another version
        return None


STEPS = _loaded()
