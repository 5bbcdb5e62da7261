"""Every key with its type, default and meaning, straight from the schema: for the terminal and for the
manual."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from mailserver.config.faults import nearest
from mailserver.config.guide import GUIDE
from mailserver.config.keys import bare, walk
from mailserver.config.section import Section
from mailserver.config.units import (
    SocketAddress,
    parse_duration,
    parse_retention,
    parse_size,
    parse_socket_address,
)

_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}
_UNITS = {
    parse_duration: "time",
    parse_retention: 'time or "never"',
    parse_size: "size",
    parse_socket_address: "address",
}
_HEAD = ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
_TIMES = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def describe(key: str | None = None) -> str:
    """All keys, one paragraph each, or only ``key`` and what is below it. Raises LookupError saying what was
    meant.

    ``key`` is as in the file (``queue.retry``, ``relay.from``, ``domains."example.test".catch_all``).
    """
    entries = list(walk())
    if key is None:
        return "\n".join(_paragraph(name, field) for name, field in entries)
    wanted = _plain(key)
    found = [(n, f) for n, f in entries if _plain(n) == wanted or _plain(n).startswith(f"{wanted}.")]
    if not found:
        guess = nearest(
            wanted, {_plain(name) for name, _ in entries} | {_plain(n).rpartition(".")[2] for n, _ in entries}
        )
        raise LookupError(f'there is no key "{key}"' + (f', did you mean "{guess}"?' if guess else ""))
    return "\n".join(_paragraph(name, field) for name, field in found)


def _plain(name: str) -> str:
    """A dotted key without list marks and without the free names of domains and users."""
    out, quoted = "", False
    for character in name.replace("[]", ""):
        quoted ^= character == '"'
        if not quoted and character != '"':
            out += character
    return ".".join(part for part in out.split(".") if part)


def _paragraph(name: str, field: FieldInfo) -> str:
    header = _header(name, field)
    if header is not None:
        return f"{header}\n    {_meaning(field)}\n"
    return f"{name} = {default(field)}\n    {type_name(field)}. {_meaning(field)}\n"


def markdown() -> str:
    """docs/configuration.md: the guide, then every key in tables, one per section of the file."""
    out = [GUIDE.strip(), "", "## Every key", "", "### At the top of the file", "", *_HEAD]
    for name, field in walk():
        header = _header(name, field)
        if header is not None:
            out += ["", f"### `{header}`", "", _meaning(field)]
            out += ["", *_HEAD] if _section(field) else []
            continue
        cells = (f"`{name.rpartition('.')[2]}`", type_name(field), f"`{default(field)}`", _meaning(field))
        out.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(out) + "\n"


def _header(name: str, field: FieldInfo) -> str | None:
    """How the file begins the table of this key: ``[smtp]``, ``[[relay]]``, ``[users."…"]``; None = a plain
    key."""
    section, kind = _section(field), get_origin(bare(field.annotation))
    if kind is tuple and section:
        return f"[[{name}]]"
    if kind is dict:
        return f'[{name}."…"]' if section else f"[{name}]"
    return f"[{name}]" if section else None


def _section(field: FieldInfo) -> type[Section] | None:
    """The class of a table, of each table of a list, or of each table below a free name."""
    inner = bare(field.annotation)
    if get_origin(inner) in {tuple, dict}:
        arguments = get_args(inner)
        inner = bare(arguments[0] if get_origin(inner) is tuple else arguments[1])
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _meaning(field: FieldInfo) -> str:
    section = _section(field)
    return field.description or ((section.__doc__ or "").strip() if section else "")


def type_name(field: FieldInfo) -> str:
    """The type as an administrator says it: ``list of times``, ``one of text, json``."""
    return _type_name(field.annotation, field.metadata)


def _type_name(annotation: Any, metadata: Any = ()) -> str:
    unit = _unit(annotation, metadata)
    if unit is not None:
        return unit
    inner = bare(annotation)
    if get_origin(inner) is tuple:
        return f"one or more of: {_type_name(get_args(inner)[0])}"
    if get_origin(inner) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(inner))
    return _NAMES[inner]


def _unit(annotation: Any, metadata: Any) -> str | None:
    members = get_args(annotation) if type(None) in get_args(annotation) else (annotation,)
    validators = [*metadata, *(v for member in members for v in getattr(member, "__metadata__", ()))]
    functions = {v.func for v in validators if isinstance(v, BeforeValidator)}
    for function, name in _UNITS.items():
        if function in functions:
            return name
    return None


def default(field: FieldInfo) -> str:
    """The default as the file would write it; "required" and "none" stand for themselves."""
    if field.is_required():
        return "required"
    if field.default_factory is socket.gethostname:
        return "this machine's name"
    return _written(field.default, field.annotation, field.metadata)


def _written(value: Any, annotation: Any, metadata: Any = ()) -> str:
    if value is None:
        return "none"
    unit = _unit(annotation, metadata)
    if unit in {"time", _UNITS[parse_retention]}:
        return f'"{_time(value)}"'
    if unit == "size":
        return f'"{_size(value)}"'
    if isinstance(value, tuple) and not isinstance(value, SocketAddress):
        inner = get_args(bare(annotation))[0]
        return f"[{', '.join(_written(item, inner) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else f'"{value}"'


def _time(seconds: float) -> str:
    if seconds == math.inf:
        return "never"
    for unit, length in _TIMES:
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _size(octets: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if octets and octets % 1024**power == 0:
            return f"{octets // 1024**power} {unit}"
    return str(octets)
