"""Unlinking many files: not synced, for at worst a file is seen again that nobody wanted any more."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from mailserver.store.crash import crash_point
from mailserver.store.steps import STEPS, Steps


def unlink_each(paths: Sequence[str], steps: Steps | None = STEPS) -> list[int]:
    """Remove all of ``paths``; what prevented each (errno), 0 where nothing did. Blocking."""
    crash_point("before-remove")
    errors = steps.unlink(paths) if steps is not None else [_unlink(path) for path in paths]
    crash_point("after-remove")
    return errors


def _unlink(path: str) -> int:
    try:
        os.unlink(path)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
