"""serve, check, health, status, reload, stop."""

from __future__ import annotations

import sys
from collections.abc import Set
from typing import TYPE_CHECKING, Annotated

import typer

from mailserver.cli import site
from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption, JsonOption
from mailserver.cli.output import escaped, print_json, print_tree

if TYPE_CHECKING:
    from mailserver.accounts.accounts import Accounts
    from mailserver.config.faults import Fault
    from mailserver.config.units import SocketAddress


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


def check(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Find every mistake in the configuration; exit 2 if there is one.

    \b
    mailserver check -c config.toml
    Each is one line: file:line: key: what is wrong, what would be right
    It also looks at what the file names: certificates, the user, data_dir, addresses to listen on, and whether
    secrets are kept from others. Warnings are printed, too, and change nothing about the exit code.
    """
    from mailserver.accounts.known import known
    from mailserver.config.faults import ConfigError
    from mailserver.config.load import load
    from mailserver.host.surroundings import everything

    path = site.config_path(config)
    conflicts: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    try:
        loaded = load(path, known, everything(path, _taken_by_us(config)))
        warnings, conflicts = loaded.warnings, site.with_accounts(loaded.config, _conflicts)
    except ConfigError as error:
        faults, warnings = error.faults, error.warnings
    if json:
        rest = [
            {"file": str(path), "line": None, "key": None, "wrong": text, "right": None} for text in conflicts
        ]
        print_json(
            {"faults": [f._asdict() for f in faults], "warnings": [f._asdict() for f in warnings] + rest}
        )
    else:
        for fault in faults:
            print(escaped(str(fault)), file=sys.stderr)
        for warning in (*map(str, warnings), *conflicts):
            print(f"warning: {escaped(warning)}", file=sys.stderr)
        if not faults:
            print(f"{escaped(str(path))}: no mistakes")
    if faults:
        raise typer.Exit(2)


async def _conflicts(accounts: Accounts) -> tuple[str, ...]:
    return accounts.merged.conflicts


def _taken_by_us(config: str | None) -> Set[SocketAddress] | None:
    """The addresses of the running server, none where there is no server; None: one is there and does not say."""
    from mailserver.config.faults import ConfigError
    from mailserver.config.units import SocketAddress
    from mailserver.control.client import CommandFailed, ServerDown

    try:
        return {SocketAddress(one["host"], one["port"]) for one in site.ask(config, "health")}
    except (ServerDown, ConfigError):
        return frozenset()
    except CommandFailed:
        return None


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
    """What the running server is doing; exit 1 when it is not running.

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
        raise typer.Exit(1) from None
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

    if not site.with_server(config, lambda path: client.stop(path, timeout=timeout)):
        fail(f"the server is still draining after {timeout:g} seconds")
    print("stopped")
