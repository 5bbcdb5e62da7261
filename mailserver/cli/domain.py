"""domain add, list, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import Columns, escaped, moment, print_listing

app = family("Our domains: mail for them is ours to keep.")
COLUMNS: Columns = {
    "DOMAIN": lambda domain: domain["name"],
    "USERS": lambda domain: domain["users"],
    "ALIASES": lambda domain: domain["aliases"],
    "CATCH-ALL": lambda domain: domain["catch_all"],
    "KEPT IN": lambda domain: domain["source"],
    "CREATED": lambda domain: moment(domain["created"]),
}
NameArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="example.test")]


@app.command()
def add(domain: NameArgument, config: ConfigOption = None) -> None:
    """Take mail for a domain from now on.

    \b
    mailserver domain add example.test
    """
    result, remark = site.accounts_command(config, "domain.add", name=domain)
    print(f"added {escaped(result['name'])} ({remark})")


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show our domains, the first one completes bare names.

    \b
    mailserver domain list --json
    """
    domains, _ = site.accounts_command(config, "domain.list")
    print_listing(domains, COLUMNS, as_json=json)


@app.command()
def remove(domain: NameArgument, config: ConfigOption = None) -> None:
    """Stop taking mail for a domain; it must have no accounts and aliases any more.

    \b
    mailserver domain remove example.test
    """
    result, remark = site.accounts_command(config, "domain.remove", name=domain)
    print(f"removed {escaped(result['name'])} ({remark})")
