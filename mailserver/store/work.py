"""What compiled code is to do, and found, in the form in which C takes it (steps.c, listing.c, wire.c)."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence

_PIECE = 1 << 18  # octets of names that become strings before other threads get their turn


class Removal(ctypes.Structure):
    """``struct removal``: files to be unlinked. Raises ValueError for a path that no file can have."""

    _fields_ = (
        ("paths", ctypes.c_char_p), ("errors", ctypes.POINTER(ctypes.c_int)), ("count", ctypes.c_int),
        ("failed", ctypes.c_int),
    )  # fmt: skip

    def __init__(self, paths: Sequence[str]) -> None:
        text, count = os.fsencode("\0".join(paths)), len(paths)
        if text.count(b"\0") != max(count - 1, 0):
            raise ValueError("embedded null byte")
        super().__init__(text, (ctypes.c_int * count)(), count, 0)

    def result(self) -> list[int]:
        """What prevented each (errno), 0 where nothing did."""
        return self.errors[: self.count] if self.failed else [0] * self.count


class Incoming(ctypes.Structure):
    """``struct incoming``: a content that arrives piece by piece. ``place`` is one of those, or another."""

    LINE_START, IN_LINE, AFTER_CR = range(3)

    _fields_ = (
        ("start", ctypes.c_int64), ("lines", ctypes.c_int64), ("place", ctypes.c_int), ("dots", ctypes.c_int),
        ("bare", ctypes.c_int), ("eight_bit", ctypes.c_int), ("ended", ctypes.c_int),
    )  # fmt: skip


class Listing(ctypes.Structure):
    """``struct listing``: what lies in a Maildir. ``count``: messages; -1: to be found out in another way. ``free``:
    gives back what C holds for it."""

    _fields_ = (
        ("new", ctypes.c_char_p), ("cur", ctypes.c_char_p), ("new_time", ctypes.c_int64), ("cur_time", ctypes.c_int64),
        ("names", ctypes.c_void_p), ("sizes", ctypes.c_void_p), ("count", ctypes.c_long), ("length", ctypes.c_long),
        ("items", ctypes.c_void_p), ("names_room", ctypes.c_long), ("items_room", ctypes.c_long),
    )  # fmt: skip

    def __init__(self, new: bytes, cur: bytes, free: Callable[[Listing], object]) -> None:
        super().__init__(new, cur, count=-1)
        self._free = free

    def __del__(self) -> None:
        self._free(self)

    @property
    def times(self) -> tuple[int, int]:
        """st_mtime_ns of new/ and cur/ just before."""
        return self.new_time, self.cur_time

    def columns(self) -> tuple[list[str], array[int]]:
        """Names in delivery order, and sizes as in Files (store/files.py), negative where the name does not tell."""
        sizes = array("q", ctypes.string_at(self.sizes, 8 * self.count))
        names: list[str] = []
        done = 0
        while done < self.length:
            piece = ctypes.string_at(self.names + done, min(_PIECE, self.length - done))
            piece = piece[: piece.rindex(b"\0") + 1]
            names += os.fsdecode(piece).split("\0")[:-1]
            done += len(piece)
        return names, sizes
