"""Account files of other servers → addresses with the stored forms of their passwords.

A line is ``name:hash`` and whatever follows behind another colon: vpopmail's vpasswd, Dovecot's passwd-file,
/etc/shadow. Empty lines and those that begin with ``#`` say nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from mailserver.cli.failure import fail

BATCH = 500  # accounts of one request to the server, which takes 1 MiB
FIELD_MAX = 500  # octets of a name or hash
_DES = re.compile(r"[./0-9A-Za-z]{13}\Z")  # bare in such files; else it is taken for a password


def read(path: str) -> str:
    """The file's text, standard input's for "-"; the command fails where there is none."""
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except UnicodeDecodeError:
        fail(f"{path}: not UTF-8 text")


def entries(text: str, domain: str | None) -> Iterator[tuple[str, str]]:
    """``domain`` completes names without one."""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, stored = (field[:FIELD_MAX] for field in f"{line}::".split(":", 2)[:2])
        if _DES.match(stored):
            stored = "{CRYPT}" + stored
        yield name if "@" in name or domain is None else f"{name}@{domain}", stored


def batches(users: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """So many as one request may hold."""
    for start in range(0, len(users), BATCH):
        yield users[start : start + BATCH]
