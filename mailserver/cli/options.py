"""Options that several commands share."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

import typer

from mailserver.cli.failure import fail

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help="Configuration file [default: $MAILSERVER_CONFIG, ./config.toml, /etc/mailserver/config.toml]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
OfDomain = Annotated[str | None, typer.Argument(help="Only this domain's.", show_default=False)]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]
Hashed = Annotated[
    bool,
    typer.Option(
        "--hashed", help="What is read is a hash from elsewhere ($6$…, $y$…, {SSHA}…), kept as it is."
    ),
]


def family(help: str) -> typer.Typer:  # noqa: A002 - typer's own word
    """A group of commands."""
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def read_old_password(from_stdin: bool) -> str:
    """From the first line of standard input, or asked for on the terminal."""
    if not from_stdin and not sys.stdin.isatty():
        fail("standard input is no terminal: give --password-stdin to read the passwords from it", 2)
    return sys.stdin.readline().rstrip("\r\n") if from_stdin else getpass("Old password: ")


def read_password(from_stdin: bool) -> str:
    """From the next line of standard input, or asked for twice on the terminal."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif not sys.stdin.isatty():
        fail("standard input is no terminal: give --password-stdin to read the password from it", 2)
    else:
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            fail("the two passwords differ")
    if not password:
        fail("the password is empty")
    return password
