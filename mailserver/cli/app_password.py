"""user app-password add, list, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import Columns, escaped, moment, print_json, print_listing

app = family("App passwords: random ones, each for one program of the user's.")
COLUMNS: Columns = {
    "NAME": lambda one: one["name"],
    "FOR": lambda one: " ".join(one["scopes"]),
    "CREATED": lambda one: moment(one["created"]),
    "LAST USED": lambda one: moment(one["used"]) if one["used"] else "never",
    "BY": lambda one: one["used_by"],
}
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="user@domain")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What it is for, like phone.")]


@app.command()
def add(
    address: AddressArgument,
    name: NameArgument,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="smtp or pop3; may be given twice. Without it: both.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make one and show it. It is shown this once.

    \b
    mailserver user app-password add bob@example.test phone --scope pop3
    """
    result, remark = site.accounts_command(
        config, "user.app-password.add", address=address, name=name, scopes=scope or []
    )
    if json:
        print_json(result)
        return
    scopes = " and ".join(result["scopes"])
    print(f"made {escaped(result['name'])} of {escaped(result['address'])} for {scopes} ({remark})")
    print(f"\n  {result['password']}\n\nIt is not shown again.")


@app.command("list")
def list_(address: AddressArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show an account's app passwords, what they are for and when each was used last.

    \b
    mailserver user app-password list bob@example.test
    """
    found, _ = site.accounts_command(config, "user.app-password.list", address=address)
    print_listing(found, COLUMNS, as_json=json)


@app.command()
def remove(address: AddressArgument, name: NameArgument, config: ConfigOption = None) -> None:
    """Remove one; it stops working at once.

    \b
    mailserver user app-password remove bob@example.test phone
    """
    result, remark = site.accounts_command(config, "user.app-password.remove", address=address, name=name)
    print(f"removed {escaped(name)} of {escaped(result['address'])} ({remark})")
