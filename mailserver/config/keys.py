"""The schema as a tree of keys: which table is at a path, and what its keys are called in the file."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mailserver.config.lines import Path
from mailserver.config.schema import Config
from mailserver.config.section import Section


def keys(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys of a table as the file writes them (``from``, not ``from_``)."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_at(path: Path) -> type[Section] | None:
    """The table a path leads to; list positions and free names (domains, users) are passed over."""
    annotation: Any = Config
    for part in path:
        annotation = _member(annotation, part)
    annotation = bare(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _member(annotation: Any, part: str | int) -> Any:
    annotation = bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        field = keys(annotation).get(str(part))
        return field.annotation if field else None
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    return None


def bare(annotation: Any) -> Any:
    """A type without Annotated and without ``| None``."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in {types.UnionType, Union}:
        return bare(next(a for a in get_args(annotation) if a is not type(None)))
    return annotation


def walk(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with its dotted name, tables before their keys: ``relay[].from``,
    ``domains."…".catch_all``."""
    for name, field in keys(section).items():
        dotted = f"{prefix}{name}"
        yield dotted, field
        inner = bare(field.annotation)
        if get_origin(inner) is tuple:
            inner, dotted = bare(get_args(inner)[0]), f"{dotted}[]"
        elif get_origin(inner) is dict:
            inner, dotted = bare(get_args(inner)[1]), f'{dotted}."…"'
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from walk(inner, f"{dotted}.")
