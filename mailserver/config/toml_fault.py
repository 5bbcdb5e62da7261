"""What tomllib refuses, said with line, key and what would be right. Its own wording is kept where we know
none."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from mailserver.config.faults import Fault
from mailserver.config.lines import last_statement

_PLACE = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)\Z", re.DOTALL)
_LINE_KEY = re.compile(r"""\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[^=\s]+)?\s*=""")
_HEADER = re.compile(r"\s*\[+\s*([^\[\]#]+?)\s*(?:\]|$)")
_QUOTE = 'text, times, sizes and addresses stand in quotes: key = "5m"'
_MEANINGS = (
    ("Cannot overwrite", "given twice", "keep one of the two"),
    ("Cannot declare", "given twice", "keep one table; every relay rule begins with [[relay]]"),
    ("Expected '='", "no = after the key", "write key = value"),
    ("Expected newline", "more text than one value", _QUOTE),
    (
        "Expected ']' at",
        "no table name",
        'close the bracket, and quote names with dots or @: [users."a@b.test"]',
    ),
    ("Unescaped", "a backslash in double quotes", "double it, or use single quotes"),
    ("Illegal character '\\n'", "the quotes are not closed", "close them on the same line"),
    ("Illegal", "a control character", "remove it"),
    ("Unterminated", "the quotes are not closed", "close them"),
    ('Expected "\'"', "the quotes are not closed", "close them"),
    ("Unclosed", "never closed", "close its bracket or brace"),
    ("Invalid date", "no such date", _QUOTE),
    ("Invalid value", "no value", _QUOTE),
    ("Invalid statement", "no key", "write key = value, or a [table]"),
)


def toml_fault(error: ValueError, text: str, filename: str) -> Fault:
    """``error`` as tomllib raised it for ``text``."""
    match = _PLACE.match(str(error))
    message, at = (match[1], match[2]) if match else (str(error), None)
    lines = text.split("\n")
    number = int(at) if at else last_statement(text).line
    wrong, right = message[:1].lower() + message[1:], "see https://toml.io/en/v1.0.0"
    for start, known_wrong, known_right in _MEANINGS:
        if message.startswith(start):
            wrong, right = known_wrong, known_right
            break
    if at is None and message.startswith("Invalid value"):
        wrong, right = "never closed", "close its bracket, brace or quotes"
    elif at and message.startswith(("Invalid value", "Unclosed")):
        before = last_statement("\n".join(lines[: number - 1]))
        if not before.complete:  # a list goes on over several lines, and perhaps was not meant to
            right = f"close what line {before.line} opens; {_QUOTE}"
    return Fault(filename, number, _key_on(lines, number), wrong, right)


def _key_on(lines: list[str], number: int) -> str:
    """The key that stands on the line, with the table it is in; "TOML" where there is none to see."""
    if not 1 <= number <= len(lines):
        return "TOML"
    line = lines[number - 1]
    if header := _HEADER.match(line):
        return header[1]
    found = _LINE_KEY.match(line)
    for above in reversed(lines[: number - 1]):
        if header := _HEADER.match(above):
            return f"{header[1]}.{found[1]}" if found else header[1]
    return found[1] if found else "TOML"


def tree(text: str, filename: str) -> dict[str, Any] | Fault:
    """tomllib's tree or the one fault that keeps us from having it (TOML reading stops at the first)."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        return Fault(filename, 1, "TOML", "nested too deeply", "no setting needs more than four levels")
    except ValueError as error:
        return toml_fault(error, text, filename)
