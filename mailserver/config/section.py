"""What all tables of the configuration file have in common."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from mailserver.config.units import Listen, OneOrMore

_EXACT: dict[Any, tuple[tuple[type, ...], LiteralString]] = {
    bool: ((bool,), "bool_type"),
    int: ((int,), "int_type"),
    float: ((int, float), "float_type"),
}
Listens = Annotated[tuple[Listen, ...], OneOrMore]


class Section(BaseModel):
    """A table of the file: unknown keys are faults, values never change."""

    # defer_build: one validator for the whole file instead of one more for each table; 30 ms of every start.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, populate_by_name=True, defer_build=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _exact(cls, value: Any, info: ValidationInfo) -> Any:
        """Switches and numbers as TOML has them: "yes", "5" and true are no numbers, 1 is no switch."""
        field = cls.model_fields[str(info.field_name)]
        if field.annotation not in _EXACT or any(isinstance(m, BeforeValidator) for m in field.metadata):
            return value  # sizes and times have their own ways of being written
        types, kind = _EXACT[field.annotation]
        if type(value) not in types:
            raise PydanticCustomError(kind, "wrong type")
        return value
