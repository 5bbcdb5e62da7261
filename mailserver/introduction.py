"""What the person who started a new server sees once: the first account and three commands to try."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from mailserver.config.schema import Config
from mailserver.config.units import SocketAddress

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def introduction(config: Config, path: Path, address: str, password: str) -> str:
    """Commands that work as they stand, from the folder the server was started in. ``path``: the configuration."""
    program = sys.argv[0] if os.path.basename(sys.argv[0]) == "mailserver" else "mailserver"
    if os.sep in program:
        program = os.path.relpath(program) if os.path.abspath(program).startswith(os.getcwd()) else program
    option = "" if str(path) == "config.toml" else f" -c {shlex.quote(str(path))}"
    lines = [
        f"First account: {address}   password: {password}   (shown once)",
        "",
        f"  send   printf 'Subject: hello\\n\\nIt works.\\n' | {program} sendmail{option} {address}",
        f"  queue  {program} queue list{option}",
    ]
    if config.pop3.enabled and config.pop3.listen:
        host, port = config.pop3.listen[0]
        where = SocketAddress(ANY.get(host, host), port)
        lines.insert(3, f"  read   curl -u {address}:{password} pop3://{where}/1")
    return "\n" + "\n".join(lines) + "\n"
