"""Which configuration file: ``-c``, then $MAILSERVER_CONFIG, ./config.toml, /etc/mailserver/config.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mailserver.config.faults import ConfigError, Fault

VARIABLE = "MAILSERVER_CONFIG"
PLACES = ("config.toml", "/etc/mailserver/config.toml")


def find(
    option: str | None,
    environ: Mapping[str, str],
    *,
    directory: Path = Path(),
    places: tuple[str, ...] = PLACES,
) -> Path:
    """The file to load. One that was asked for by name is returned even if it is missing, so that load()
    says so.

    ``directory``: what relative names start from. Raises ConfigError when nothing was named and nothing is
    there.
    """
    named = option or environ.get(VARIABLE)
    if named:
        return directory / named
    for place in places:
        if (directory / place).is_file():
            return directory / place
    wrong = f"none found: no -c, no ${VARIABLE}, no {', no '.join(places)}"
    raise ConfigError([Fault(places[0], 1, "file", wrong, "name one with -c")])
