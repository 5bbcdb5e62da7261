"""serve, check, health, status, reload, stop."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption, JsonOption
from mailserver.cli.output import escaped, print_json, print_tree

STOPPED = 3  # exit code of `status`, as with systemctl and LSB init scripts


def register(app: typer.Typer) -> None:
    """Hang the commands into the tree."""
    for command in (serve, check, health, status, reload, stop):
        app.command()(command)


def serve(config: ConfigOption = None) -> None:
    """Run the server in the foreground, logging to standard error.

    \b
    mailserver serve -c config.toml
    It is ready when it says so and `mailserver health` exits 0. SIGTERM drains, SIGHUP reloads.
    """
    from mailserver.serve import serve as run

    raise typer.Exit(run(site.config_path(config)))


def check(config: ConfigOption = None) -> None:
    """Find every mistake in the configuration; exit 2 if there is one.

    \b
    mailserver check -c config.toml
    Each is one line: file:line: key: what is wrong, what would be right
    Secrets that others may read are warned of; a user database that others may read is a mistake.
    """
    from mailserver.accounts.known import known
    from mailserver.config.load import load
    from mailserver.host.secrets import exposed

    path = site.config_path(config)
    loaded = load(path, known)

    async def conflicts(accounts: object) -> tuple[str, ...]:
        return accounts.merged.conflicts  # type: ignore[attr-defined,no-any-return]  # imported when called only

    secrets = exposed(loaded.config, path)
    mistakes = [one for one in secrets if os.path.basename(one.path).startswith("accounts.sqlite")]
    for mistake in mistakes:
        print(escaped(str(mistake)), file=sys.stderr)
    if mistakes:
        raise typer.Exit(2)
    for warning in (*map(str, (*loaded.warnings, *secrets)), *site.with_accounts(loaded.config, conflicts)):
        print(f"warning: {escaped(warning)}", file=sys.stderr)
    print(f"{escaped(str(path))}: no mistakes")


def health(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Exit 0 when the running server answers on every listener, else 1.

    \b
    mailserver health || systemctl restart mailserver
    """
    from mailserver.cli.greeting import greetings

    listeners = site.ask(config, "health")
    answers = greetings(listeners)
    if json:
        print_json(answers)
    else:
        for answer in answers:
            print(escaped("  ".join((answer["service"], answer["address"], answer["said"]))))
    if not all(answer["healthy"] for answer in answers):
        raise typer.Exit(1)


def status(config: ConfigOption = None, json: JsonOption = False) -> None:
    """What the running server is doing; exit 3 when it is not running.

    \b
    mailserver status --json | jq .queue
    """
    from mailserver.control.client import ServerDown

    try:
        answer = site.ask(config, "status")
    except ServerDown:
        if json:
            print_json({"running": False})
        else:
            print("not running")
        raise typer.Exit(STOPPED) from None
    if json:
        print_json({"running": True, **answer})
    else:
        print_tree(answer)


def reload(config: ConfigOption = None) -> None:
    """Put the changed configuration in force, or change nothing and say why. No connection is dropped."""
    site.loaded(config)  # its faults are told here, as `check` tells them
    print(escaped(str(site.ask(config, "reload"))))


def stop(
    config: ConfigOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for its end.")] = 60.0,
) -> None:
    """Let the server finish what it does, then end it; returns when it has ended."""
    from mailserver.control import client

    if not client.stop(site.socket_path(config), timeout=timeout):
        fail(f"the server is still draining after {timeout:g} seconds")
    print("stopped")
