"""Names of Unix sockets that fit: sun_path holds 107 octets (unix(7)), a data_dir may be longer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SUN_PATH_MAX = 107


@contextlib.contextmanager
def short_name(path: str) -> Iterator[str]:
    """A name for ``path`` that bind and connect accept while the context lasts. Raises OSError when its
    folder cannot be opened. Needs /proc for long names."""
    if len(os.fsencode(path)) <= SUN_PATH_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
