"""The parsed tree against the schema: every unknown key, missing key and wrong type, said so that it can be
mended.

pydantic finds them all at once; here its findings become sentences, and a repaired copy of the tree lets
the checks of meaning (semantics) run on what is right, so one reading reports everything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import ValidationError

from mailserver.config.faults import nearest
from mailserver.config.keys import keys, section_at, walk
from mailserver.config.lines import Path, dotted
from mailserver.config.schema import Config

_ROUNDS = 5  # a repair may uncover one more fault; five levels are deeper than the schema
_HASH = "$argon2id$"
_STAND_INS: dict[str, Any] = {"from": "192.0.2.1", "action": "accept"}


class Finding(NamedTuple):
    """A fault at a path of the tree, not yet at a line. ``warning``: worth saying, no reason to stop."""

    path: Path
    wrong: str
    right: str
    warning: bool = False


def shaped(tree: dict[str, Any]) -> tuple[Config | None, list[Finding]]:
    """The settings and no finding; or findings and the settings of what is left when they are taken out."""
    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        told = error.errors(include_url=False)
        holed = {
            details["loc"][:-1] for details in told
        }  # lists that lost a wrong element: not empty by intention
        findings = [
            _finding(tree, details)
            for details in told
            if details["type"] != "too_short" or details["loc"] not in holed
        ]
        paths = [finding.path for finding in findings]
    tree = copy.deepcopy(tree)
    for _ in range(_ROUNDS):
        _repair(tree, paths)
        try:
            return Config.model_validate(tree), findings
        except ValidationError as error:
            paths = [_written(tree, tuple(details["loc"])) for details in error.errors(include_url=False)]
    return None, findings


def _finding(tree: dict[str, Any], details: Any) -> Finding:
    path = _written(tree, tuple(details["loc"]))
    wrong, right = _words(details["type"], path, details)
    return Finding(path, wrong, right)


def _words(kind: str, path: Path, details: Any) -> tuple[str, str]:  # noqa: PLR0911 - a table of sentences
    value, context = details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", _place_for(path, value)
    if kind == "missing":
        section = section_at(path[:-1])
        field = keys(section).get(str(path[-1])) if section else None
        return "missing", f"write {path[-1]} = … ({field.description if field else ''})"
    if kind == "value_error":
        return f"{show(value)} is not understood", str(context["error"])
    if kind == "literal_error":
        expected = context["expected"].replace("'", "").replace(" or ", ", ")
        guess = nearest(value, expected.split(", ")) if isinstance(value, str) else None
        return f"{show(value)} is not known", f'did you mean "{guess}"?' if guess else f"one of {expected}"
    if kind == "greater_than_equal":
        return f"{show(value)} is too small", f"at least {context['ge']:g}"
    if kind == "less_than_equal":
        return f"{show(value)} is too large", f"at most {context['le']:g}"
    if kind == "too_short":
        return "empty", "give at least one value"
    return f"{show(value)} has the wrong type", _type_words(kind, path, value, details["msg"])


def _type_words(kind: str, path: Path, value: Any, message: str) -> str:
    if isinstance(value, dict) and path[0] in {"routes", "domains"}:
        name = ".".join([str(path[-1]), *_single_names(value)])
        return f'quote a name that has dots: "{name}" = …'
    if kind == "tuple_type":
        return "begin every rule with [[relay]]" if path == ("relay",) else 'write a list: ["…", "…"]'
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        return (
            f"write [{dotted(path)}] and its keys below" if path[0] != "relay" else "begin it with [[relay]]"
        )
    for start, right in (
        ("int", "write a whole number without quotes"),
        ("float", "write a number without quotes"),
        ("bool", "write true or false"),
        ("string", 'write text in quotes: "…"'),
        ("path", 'write a path in quotes: "…"'),
    ):
        if kind.startswith(start):
            return right
    return message[:1].lower() + message[1:]


def _single_names(value: dict[str, Any]) -> list[str]:
    """What follows in ``a.b.c = …`` that should have been one quoted name."""
    names = []
    inner: Any = value
    while isinstance(inner, dict) and len(inner) == 1:
        ((name, inner),) = inner.items()
        names.append(name)
    return names


def _place_for(path: Path, value: Any) -> str:
    """Where an unknown key belongs: the nearest name here, the same name elsewhere, or all that are known
    here."""
    name, section = str(path[-1]), section_at(path[:-1])
    if path[0] == "domains" and isinstance(value, dict):
        return f'quote the name: [domains."{".".join(map(str, path[1:]))}"]'
    known = keys(section) if section else {}
    if guess := nearest(name, known):
        return f'did you mean "{guess}"?'
    for other, _ in walk():
        table, _, last = other.rpartition(".")
        if last == name:
            return f"it belongs in {'[' + table.replace('[]', '') + ']' if table else 'the top of the file'}"
    return f"known here: {', '.join(known)}"


def show(value: Any) -> str:
    """A value as the file would write it, short enough for a line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else str(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def _repair(tree: dict[str, Any], paths: Iterable[Path]) -> None:
    """Take the faulty values out. Rules and accounts keep their place, so that positions and names stay
    right."""
    for path in paths:
        parent: Any = tree
        for part in path[:-1]:
            parent = parent[part] if _holds(parent, part) else {}
        last = path[-1]
        if path[0] == "relay" and len(path) == 2 and isinstance(parent, list):
            parent[int(last)] = dict(_STAND_INS)
        elif path[0] == "relay" and last in _STAND_INS:
            parent[last] = _STAND_INS[str(last)]
        elif path[0] == "users" and len(path) == 2:
            parent[last] = {"password": _HASH}
        elif path[0] == "users" and last == "password":
            parent[last] = _HASH
        elif path[0] == "backends" and len(path) == 3 and last in {"type", "domains"}:
            tree["backends"].pop(path[1], None)
        elif isinstance(parent, list):
            parent.clear()
        else:
            parent.pop(last, None)


def _holds(parent: Any, part: str | int) -> bool:
    return part in parent if isinstance(parent, dict) else isinstance(part, int) and part < len(parent)


def _written(tree: dict[str, Any], path: Path) -> Path:
    """``path`` as the file has it: one value that stood alone was made a list of one for the schema."""
    parent: Any = tree
    for n, part in enumerate(path[:-1]):
        parent = parent[part] if _holds(parent, part) else {}
        if not isinstance(parent, (dict, list)):
            return path[: n + 1]
    return path
