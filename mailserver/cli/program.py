"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver import __version__
from mailserver.cli import alias, config, domain, explain, guard, maildirmake, queue, sendmail, server, user

EPILOGUE = """\b
First steps:
  mailserver check                                  what is wrong with ./config.toml
  mailserver serve                                  run in the foreground
  mailserver user add alice@example.test            asks for a password
  mailserver queue list                             what waits, and why
"""

app = typer.Typer(
    help="SMTP, queue, delivery and POP3 in one process.",
    epilog=EPILOGUE,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def about(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """SMTP, queue, delivery and POP3 in one process."""


server.register(app)
app.add_typer(user.app, name="user")
app.add_typer(domain.app, name="domain")
app.add_typer(alias.app, name="alias")
app.add_typer(queue.app, name="queue")
app.add_typer(guard.app, name="guard")
app.add_typer(config.app, name="config")
explain.register(app)
maildirmake.register(app)
sendmail.register(app)
