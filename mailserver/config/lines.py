"""On which line of a TOML text a key stands, so that a fault found in the parsed tree can point at it.

A scanner for text that ``tomllib`` has accepted already: it knows where keys and values begin and end and
nothing of what values mean. Paths are tuples as the parsed tree is walked: ``("relay", 2, "from")``. Linear
in the text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import NamedTuple

Path = tuple[str | int, ...]

# No possessive group: Python before 3.11.5 (Debian 12 has 3.11.2) lets what is inside backtrack and loses its way.
_SPACE = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*")
_BLANK = re.compile(r"[ \t]*+")
_BASIC = r'[^"\\]*+(?:\\.[^"\\]*+)*'
_KEY = re.compile(rf"""([A-Za-z0-9_-]++)|"({_BASIC})"|'([^']*+)'""")
_VALUE = re.compile(
    r'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*"""(?:"{0,2})'
    r"|'''[^']*+(?:'(?!'')[^']*+)*'''(?:'{0,2})"
    rf'|"{_BASIC}"'
    r"|'[^']*+'"
    r"|[^,\]}#\n\r]++",
    re.DOTALL,
)


def locate(text: str) -> dict[Path, int]:
    """Every table, key and array element of a valid TOML text → its line, counted from 1.

    What is valid but deeper than Python's stack raises RecursionError, as tomllib does.
    """
    return _Scanner(text).run()


class Statement(NamedTuple):
    """The last statement of a text: the line it begins on, and whether the text holds all of it."""

    line: int
    complete: bool


def last_statement(text: str) -> Statement:
    """For text that tomllib refuses: what was being read where it ends."""
    scanner = _Scanner(text)
    try:
        scanner.run()
    except (ValueError, IndexError, RecursionError):
        return Statement(scanner.statement, False)
    return Statement(scanner.statement, True)


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of ``path`` or, where it is missing from the text, of the nearest table around it; else 1."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def dotted(path: Path) -> str:
    """A path as people read it: ``relay[3].from`` counts from 1, names that are no bare keys are quoted."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part + 1}]"
        else:
            out += ("." if out else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"')
    return out


class _Scanner:
    """One pass over one text. ``_at`` is where it is, ``_line`` the line of that place."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self.statement = 1  # the line on which the current statement begins
        self._lengths: dict[Path, int] = {}  # arrays of tables → tables so far
        self.found: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        """The whole text."""
        table: Path = ()
        self._skip(_SPACE)
        while self._at < len(self._text):
            self.statement = self._line
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SPACE)
        return self.found

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"line {self._line}: this is no TOML that tomllib accepts")
        self._at = match.end()
        self._line += match[0].count("\n")
        return match[0]

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]`` → the path that the following keys belong to."""
        array = self._text.startswith("[[", self._at)
        self._at += 1 + array
        keys = self._keys()
        self._at += 1 + array
        path: Path = ()
        for n, key in enumerate(keys):
            path = (*path, key)
            self.found.setdefault(path, self._line)
            last = n == len(keys) - 1
            if last and array:
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        self.found[path] = self._line
        return path

    def _keys(self) -> list[str]:
        """A dotted key with the blanks around it."""
        keys = []
        while True:
            self._skip(_BLANK)
            match = _KEY.match(self._text, self._at)
            if match is None:
                raise ValueError(f"line {self._line}: this is no key that tomllib accepts")
            self._at = match.end()
            keys.append(_plain(match))
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _pair(self, table: Path) -> None:
        """``key = value``."""
        path = table
        for key in self._keys():
            path = (*path, key)
            self.found.setdefault(path, self._line)
        self._at += 1
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._members(path, "]")
        elif first == "{":
            self._members(path, "}")
        else:
            self._skip(_VALUE)

    def _members(self, path: Path, end: str) -> None:
        """The elements of an array, or the pairs of an inline table."""
        self._at += 1
        index = 0
        while True:
            self._skip(_SPACE)
            if self._text[self._at] == end:
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
            elif end == "}":
                self._pair(path)
            else:
                self.found[(*path, index)] = self._line
                self._value((*path, index))
                index += 1


def _plain(match: re.Match[str]) -> str:
    """A key's meaning: bare, literal, or basic with its escapes undone."""
    bare, basic, literal = match.groups()
    if bare is not None:
        return str(bare)
    if literal is not None:
        return str(literal)
    return next(iter(tomllib.loads(f'"{basic}" = 0'))) if "\\" in basic else str(basic)
