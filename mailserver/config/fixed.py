"""What a running server cannot take over from a changed file."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.config.schema import Config
from mailserver.config.shape import Finding

_KEYS = ("hostname", "data_dir", "run_as")


def fixed(old: Config, new: Config) -> Iterator[Finding]:
    """A fault for each key that only a restart changes; ``old`` is in force."""
    for key in _KEYS:
        have, wanted = getattr(old, key), getattr(new, key)
        if have != wanted:
            wrong = f"cannot change while the server runs, {have or 'none'} stays in force"
            yield Finding((key,), wrong, "restart the server, or put the old value back")
