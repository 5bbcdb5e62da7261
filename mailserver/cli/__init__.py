"""The ``mailserver`` command. One file per command family; each imports what it needs when it is called, so
that ``--help`` stays fast and a command costs only its own imports."""

from __future__ import annotations

import sys


def main() -> None:
    """Console entry. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration (`status`: 3 = not
    running)."""
    from mailserver.cli.failure import explained
    from mailserver.cli.program import app

    try:
        app(prog_name="mailserver")
    except Exception as error:
        code = explained(error)
        if code is None:
            raise
        sys.exit(code)
