"""Limits of the process: as many open files as we may have."""

from __future__ import annotations

import resource
from typing import NamedTuple


class OpenFiles(NamedTuple):
    """RLIMIT_NOFILE ``before`` and ``now``: open files and connections, all together."""

    before: int
    now: int


def raise_nofile() -> OpenFiles:
    """Raise the soft limit on descriptors to the hard one; where that is refused, the old one stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a hard limit of "unlimited" above fs.nr_open, or a sandbox
        return OpenFiles(soft, soft)
    return OpenFiles(soft, hard)
