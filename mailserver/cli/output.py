"""What people and programs read: plain aligned columns, or JSON. Nothing from outside reaches a terminal
raw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any


def escaped(text: str) -> str:
    """``text`` on one line: control, format and other invisible characters as ``\\xNN``, ``\\uNNNN``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    """Indented, pure ASCII."""
    print(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))


Columns = Mapping[str, Callable[[dict[str, Any]], Any]]  # head → the cell of one thing


def print_listing(found: Sequence[dict[str, Any]], columns: Columns, *, as_json: bool) -> None:
    """What every listing does: all of it for programs, ``columns`` for people."""
    if as_json:
        print_json(found)
    else:
        print_table(tuple(columns), ([cell(one) for cell in columns.values()] for one in found))


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their content; a line that says so when there are none."""
    lines = [[escaped("" if cell is None else str(cell)) for cell in row] for row in rows]
    if not lines:
        print("(none)")
        return
    widths = [max(len(line[n]) for line in [list(head), *lines]) for n in range(len(head))]
    for line in [list(head), *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_tree(value: Any, indent: str = "") -> None:
    """Nested objects as indented ``key: value`` lines."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        label = escaped(str(key)) if isinstance(value, dict) else "-"
        if isinstance(inner, (dict, list)) and inner:
            print(f"{indent}{label}:" if isinstance(value, dict) else f"{indent}-")
            print_tree(inner, indent + "  ")
        else:
            shown = "" if inner in (None, [], {}) else escaped(str(inner))
            print(f"{indent}{label}: {shown}".rstrip() if isinstance(value, dict) else f"{indent}- {shown}")


def moment(seconds: float | None) -> str:
    """Unix seconds as local time with its offset."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
