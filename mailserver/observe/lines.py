"""One event → one log line: JSON for programs, text for people. Pure.

A line is printable ASCII and one final LF whatever a client sent, so no terminal escape, no line break and
no text direction trick gets through a log. It starts with the time (UTC, microseconds, zone) and the level.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from json.encoder import encode_basestring_ascii  # what json.dumps does for a str, at a fifth of its price
from operator import call
from typing import Any

import msgspec
from msgspec.structs import astuple

from mailserver.events import Event

Line = Callable[[float, Event], bytes]
_Field = Callable[[Any], str]

KEPT = 1024  # texts of one field that are remembered with their quoting
LONG = 200  # characters; longer texts are not remembered

_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_not_bare = re.compile(r"[^!#-+\--\[\]-~]").search  # not printable, or space, quote, comma, backslash
_THREE = [f"{number:03}" for number in range(1000)]  # formatting takes twice the time of two look-ups
_encode = msgspec.json.Encoder().encode


def _stamps() -> Callable[[float], str]:
    """RFC 3339 times; the part down to the second is made once a second."""
    second, text = math.inf, ""

    def stamp(time: float) -> str:
        nonlocal second, text
        fraction = time - second
        if not 0.0 <= fraction < 1.0:
            whole = int(time)
            text = datetime.fromtimestamp(whole, UTC).isoformat()[:19]
            second = float(whole)
            fraction = time - second
        micro = int(fraction * 1_000_000)
        return f"{text}.{_THREE[micro // 1000]}{_THREE[micro % 1000]}+00:00"

    return stamp


def json_lines() -> Line:
    """``{"time":…,"level":…,"event":…,<the event's fields>}``; fields at their default are left out."""
    stamp = _stamps()

    def line(time: float, event: Event) -> bytes:
        return b'{"time":"%b","level":"%b",%b\n' % (
            stamp(time).encode(),
            event.level.encode(),
            _fields(event)[1:],
        )

    return line


def _fields(event: Event) -> bytes:
    try:
        data = _encode(event)
    except UnicodeEncodeError:  # lone surrogates: octets that were no UTF-8, decoded with surrogateescape
        data = json.dumps(msgspec.to_builtins(event)).encode()
    if data.isascii() and b"\x7f" not in data:
        return data
    return _NOT_PRINTABLE.sub(_escape, data.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"


def text_lines() -> Line:
    """``TIME LEVEL EVENT key=value …``; values with anything unusual are quoted as JSON strings.

    Fields at their default are left out. Not thread-safe.
    """
    stamp = _stamps()
    field = cache(_field)  # kinds of events share what is remembered: an id is in several lines
    forms: dict[type[Event], tuple[str, tuple[_Field, ...]]] = {}

    def form_of(event: Event) -> tuple[str, tuple[_Field, ...]]:
        kind = type(event)
        forms[kind] = (
            f" {event.level} {kind.__struct_config__.tag}",
            tuple([field(f.name, f.type, f.default) for f in msgspec.structs.fields(kind)]),
        )
        return forms[kind]

    def line(time: float, event: Event) -> bytes:
        head, fields = forms.get(type(event)) or form_of(event)
        return f"{stamp(time)}{head}{''.join(map(call, fields, astuple(event)))}\n".encode("ascii")

    return line


def _field(name: str, kind: object, default: object) -> _Field:
    """What makes `` name=value`` of one field's value, or nothing of its default."""
    lead = f" {name}="
    if kind is int and default is msgspec.NODEFAULT:
        return f"{lead}%s".__mod__
    if kind is int:
        return lambda value: "" if value is default else f"{lead}{value}"
    if kind is float or name == "id":
        render = _word if name == "id" else _stamps() if name == "next_attempt" else _decimal
        return _one_after_the_other(lead, render, default)
    if kind == tuple[str, ...]:
        return lambda value: lead + _list(value)
    return _Words(lead, default).__getitem__


def _one_after_the_other(lead: str, render: _Field, default: object) -> _Field:
    """For values that are new with each message, but the same object in all its lines."""
    last, text = default, ""

    def field(value: object) -> str:
        nonlocal last, text
        if value is not last:
            last, text = value, "" if value is default else lead + render(value)
        return text

    return field


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


class _Words(dict[str | None, str]):
    """`` name=word`` for each text of a field that was seen before, up to KEPT. None is the null sender."""

    __slots__ = ("_always", "_lead")

    def __init__(self, lead: str, default: object = msgspec.NODEFAULT) -> None:
        self._lead = lead
        self._always: dict[str | None, str] = {None: f"{lead}<>"}
        if default is None or isinstance(default, str):
            self._always[default] = ""
        super().__init__(self._always)

    def __missing__(self, text: str) -> str:
        word = self._lead + _word(text)
        if len(text) <= LONG:
            if len(self) >= KEPT:
                self.clear()
                self.update(self._always)
            self[text] = word
        return word


def _word(text: str) -> str:
    if text and not _not_bare(text):
        return text
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def _list(texts: tuple[str, ...]) -> str:
    if all(texts) and not _not_bare("".join(texts)):  # one look at a hundred recipients
        return ",".join(texts)
    return ",".join(map(_word, texts))


FORMATS: dict[str, Callable[[], Line]] = {"json": json_lines, "text": text_lines}
