"""One event → one log line: JSON for programs, text for people. Pure.

A line is printable ASCII and one final LF whatever a client sent, so no terminal escape, no line break and
no text direction trick gets through a log. It starts with the time (UTC, microseconds, zone) and the level.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii  # what json.dumps does for a str, at a fifth of its price

import msgspec

from mailserver.events import Event

Line = Callable[[float, Event], bytes]

_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_is_bare = re.compile(r"[!#-+\--\[\]-~]+").fullmatch  # printable without space, quote, comma, backslash
_encode = msgspec.json.Encoder().encode


class _Stamp:
    """RFC 3339 times; the part down to the second is made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def at(self, time: float) -> str:
        second = int(time)
        fraction = int((time - second) * 1_000_000)
        if second != self._second:
            self._second, self._text = second, f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        return f"{self._text}.{fraction:06}+00:00"


def json_lines() -> Line:
    """``{"time":…,"level":…,"event":…,<the event's fields>}``; fields at their default are left out."""
    stamp = _Stamp()

    def line(time: float, event: Event) -> bytes:
        return b'{"time":"%b","level":"%b",%b\n' % (
            stamp.at(time).encode(),
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
    """``TIME LEVEL EVENT key=value …``; values with anything unusual are quoted as JSON strings."""
    stamp = _Stamp()

    def line(time: float, event: Event) -> bytes:
        fields = msgspec.to_builtins(event)
        words = [stamp.at(time), event.level, fields.pop("event")]
        if "next_attempt" in fields:
            fields["next_attempt"] = stamp.at(fields["next_attempt"])
        # Nearly all values are words that were seen before, or whole numbers.
        words += [
            f"{key}={_word(value)}" if type(value) is str
            else f"{key}={value}" if type(value) is int
            else f"{key}={_value(value)}"
            for key, value in fields.items()
        ]  # fmt: skip
        return (" ".join(words) + "\n").encode("ascii")

    return line


@lru_cache(maxsize=1024)
def _word(text: str) -> str:
    return text if _is_bare(text) else encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    if isinstance(value, str):
        return _word(value)
    if value is None:
        return "<>"  # the only field of an event that can be None without being left out is a null sender
    if isinstance(value, list | tuple):
        return ",".join(map(_value, value))
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


FORMATS: dict[str, Callable[[], Line]] = {"json": json_lines, "text": text_lines}
