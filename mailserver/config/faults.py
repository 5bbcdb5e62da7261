"""What is wrong with a configuration: every fault says where, what, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

_GUESSABLE = 2000


class Fault(NamedTuple):
    """``str()`` is the contract's ``file:line: key: what is wrong, what would be right``. Warnings have
    this form too."""

    file: str
    line: int
    key: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.wrong}, {self.right}"


class ConfigError(Exception):
    """All faults of one configuration, in the order of their lines, and the warnings there are besides."""

    def __init__(self, faults: Iterable[Fault], warnings: Iterable[Fault] = ()) -> None:
        self.warnings = tuple(warnings)
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.file, fault.line)))
        super().__init__("\n".join(map(str, self.faults)))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None where there are too many to compare in no time."""
    known = list(known)
    if len(known) > _GUESSABLE:
        return None
    names = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold().replace("-", "_"), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None
