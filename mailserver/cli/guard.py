"""guard list, clear."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import Columns, moment, print_listing

app = family("Who is slowed down after failed logins.")
COLUMNS: Columns = {
    "ADDRESS": lambda row: row["address"],
    "ACCOUNT": lambda row: row["account"] or "(any)",
    "FAILURES": lambda row: row["failures"],
    "LAST FAILURE": lambda row: moment(row["last_failure"]),
    "NEXT LOGIN": lambda row: moment(row["next_login"]) if row["reason"] else "at once",
    "FORGOTTEN AT": lambda row: moment(row["forgotten_at"]),
    "REASON": lambda row: row["reason"],
}


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show addresses and accounts with failed logins, the latest first.

    \b
    mailserver guard list
    A line without a reason is counted, but not slowed down yet.
    """
    print_listing(site.ask(config, "guard.list"), COLUMNS, as_json=json)


@app.command()
def clear(
    what: Annotated[str | None, typer.Argument(metavar="[ADDRESS|ACCOUNT]", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Forget failed logins of an address or an account; without one, all of them.

    \b
    mailserver guard clear 192.0.2.7
    mailserver guard clear alice@example.test
    """
    count = site.ask(config, "guard.clear", what=what)["count"]
    print(f"{count} forgotten" if count else "nothing to forget")
