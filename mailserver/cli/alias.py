"""alias set, list, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, OfDomain, family
from mailserver.cli.output import Columns, escaped, moment, print_listing

app = family("Aliases: addresses that lead to others.")
COLUMNS: Columns = {
    "ALIAS": lambda alias: alias["address"],
    "TARGETS": lambda alias: ", ".join(alias["targets"]),
    "KEPT IN": lambda alias: alias["source"],
    "CREATED": lambda alias: moment(alias["created"]),
}
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="name@domain of ours")]


@app.command("set")
def set_(
    address: AddressArgument,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET", help="Where its mail goes.")],
    config: ConfigOption = None,
) -> None:
    """Make an alias, or give it new targets. A bare name is of the alias's own domain.

    \b
    mailserver alias set team@example.test alice bob someone@remote.test
    """
    result, remark = site.accounts_command(config, "alias.set", address=address, targets=targets)
    print(f"{escaped(result['address'])} → {escaped(', '.join(result['targets']))} ({remark})")


@app.command("list")
def list_(domain: OfDomain = None, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show the aliases and where they lead.

    \b
    mailserver alias list example.test
    """
    aliases, _ = site.accounts_command(config, "alias.list", domain=domain)
    print_listing(aliases, COLUMNS, as_json=json)


@app.command()
def remove(address: AddressArgument, config: ConfigOption = None) -> None:
    """Remove an alias.

    \b
    mailserver alias remove team@example.test
    """
    result, remark = site.accounts_command(config, "alias.remove", address=address)
    print(f"removed {escaped(result['address'])} ({remark})")
