"""What a Maildir holds, as the index keeps it: columns, from which a message is put together when asked for."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple, overload

from mailserver.store.maildir import base_name, natural_uid
from mailserver.store.steps import STEPS, Steps

_USUAL_UID = re.compile(r"^([!-+\--9;-~]{1,70})(?:,[SW]=\d+)*(?::[^\n]*)?\n", re.M | re.ASCII)


class Entry(NamedTuple):
    """One message. ``name``: file name with flags; ``size``: octets on the wire (CRLF); ``new``: the file lies in
    new/, else in cur/; ``other``: its unique-id where that is not natural_uid(name)."""

    name: str
    size: int
    new: bool
    other: str = ""

    @property
    def uid(self) -> str:
        """For UIDL; RETR and DELE need none."""
        return self.other or natural_uid(self.name)


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
        stays = [name not in names for name in self.names]
        rest.names.extend(compress(self.names, stays))
        rest.sizes.extend(compress(self.sizes, stays))
        rest.octets = sum(size >> 1 for size in rest.sizes)
        rest.uids = self.uids
        return rest

    def is_just(self, new: list[str], cur: list[str]) -> bool:
        """Whether it holds exactly these files, in whatever order."""
        if len(new) + len(cur) != len(self.names):
            return False
        fresh = {name for name, size in zip(self.names, self.sizes, strict=True) if size & 1}
        return fresh == set(new) and set(self.names) - fresh == set(cur)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same, in the same order."""
        if not isinstance(other, Files):
            return NotImplemented
        return self.names == other.names and self.sizes == other.sizes and self.uids == other.uids

    __hash__ = None  # type: ignore[assignment]  # it changes

    def entry(self, index: int) -> Entry:
        """The message at ``index`` (0 and up)."""
        name, size = self.names[index], self.sizes[index]
        other = self.uids.get(base_name(name), "") if self.uids else ""
        return Entry(name, size >> 1, bool(size & 1), other)

    def unique_ids(self, start: int, stop: int) -> list[str]:
        """Those of a range: one search over many names costs a quarter of as many entries."""
        some = self.names[start:stop]
        text = "\n".join(some) + "\n"
        usual = not self.uids and text.count("\n") == len(some)  # a name may have a line feed inside
        found = _USUAL_UID.findall(text) if usual else []
        if len(found) == len(some):
            return found
        return [self.entry(index).uid for index in range(start, start + len(some))]

    def lines(self, start: int, stop: int, steps: Steps, *, unique_ids: bool) -> bytes | None:
        """Those of UIDL or LIST for a range, in a tenth of the time; None: to be made one by one."""
        if not unique_ids:
            return steps.size_lines(self.sizes[start:stop], start + 1)
        return None if self.uids else steps.uid_lines(self.names[start:stop], start + 1)


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

    def lines(self, start: int, stop: int, *, unique_ids: bool, steps: Steps | None = STEPS) -> bytes | None:
        """Of UIDL or LIST, "NUMBER VALUE" for each message of a range, where compiled code can make them."""
        if steps is None:
            return None
        return self._files.lines(start, min(stop, self._count), steps, unique_ids=unique_ids)
