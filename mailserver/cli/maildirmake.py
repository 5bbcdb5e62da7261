"""maildirmake: an empty Maildir."""

from __future__ import annotations

import errno
import os
from typing import Annotated

import typer

from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption


def register(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command()(maildirmake)


def maildirmake(
    directory: Annotated[str, typer.Argument(metavar="DIR")],
    config: ConfigOption = None,  # noqa: ARG001 - every command has -c
) -> None:
    """Make an empty Maildir (tmp, new, cur).

    \b
    mailserver maildirmake ~/Maildir
    """
    from mailserver.store import maildir

    if not directory:
        fail("maildirmake: name the folder, such as ~/Maildir", 2)
    try:
        maildir.make(directory)
    except OSError as error:
        fail(f"cannot make a Maildir in {directory}: {_reason(error)}")


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOTDIR:
            return f"{os.path.dirname(error.filename)} is a file, not a folder"
        case errno.EACCES | errno.EPERM:
            return f"you may not write in {os.path.dirname(os.path.abspath(error.filename))}"
        case errno.ENOSPC | errno.EDQUOT:
            return "the disk is full"
        case errno.EROFS:
            return "the file system is read-only"
    return (error.strerror or str(error)).lower()
