"""What all tables of the configuration file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from mailserver.config.units import Listen, OneOrMore

Listens = Annotated[tuple[Listen, ...], OneOrMore]


class Section(BaseModel):
    """A table of the file: unknown keys are faults, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, populate_by_name=True)
