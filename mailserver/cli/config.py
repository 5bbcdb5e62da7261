"""config describe."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption, family

app = family("The configuration file.")


@app.callback()
def about() -> None:
    """The configuration file."""


@app.command()
def describe(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="limits, or limits.message_size")] = None,
    config: ConfigOption = None,  # noqa: ARG001 - every command has -c
) -> None:
    """Print what a key means, its type and its default; without KEY, all of them.

    \b
    mailserver config describe queue.retry
    """
    from mailserver.config.describe import describe as text

    try:
        print(text(key))
    except LookupError as error:
        fail(str(error.args[0]), 2)
