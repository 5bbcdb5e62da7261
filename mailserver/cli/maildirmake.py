"""maildirmake: an empty Maildir."""

from __future__ import annotations

from typing import Annotated

import typer

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

    maildir.make(directory)
