"""domain add, list, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import escaped, moment, print_json, print_table

app = family("Our domains: mail for them is ours to keep.")
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
    if json:
        print_json(domains)
        return
    rows = (
        (d["name"], d["users"], d["aliases"], d["catch_all"], d["source"], moment(d["created"]))
        for d in domains
    )
    print_table(("DOMAIN", "USERS", "ALIASES", "CATCH-ALL", "KEPT IN", "CREATED"), rows)


@app.command()
def remove(domain: NameArgument, config: ConfigOption = None) -> None:
    """Stop taking mail for a domain; it must have no accounts and aliases any more.

    \b
    mailserver domain remove example.test
    """
    result, remark = site.accounts_command(config, "domain.remove", name=domain)
    print(f"removed {escaped(result['name'])} ({remark})")
