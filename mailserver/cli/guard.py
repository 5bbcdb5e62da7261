"""guard list, clear."""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.cli import site
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import moment, print_json, print_table

app = family("Who is slowed down after failed logins.")


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show addresses and accounts with failed logins, the latest first.

    \b
    mailserver guard list
    A line without a reason is counted, but not slowed down yet.
    """
    slowed = site.ask(config, "guard.list")
    if json:
        print_json(slowed)
        return
    rows = [
        (row["address"], row["account"] or "(any)", row["failures"], moment(row["last_failure"]),
         moment(row["next_login"]) if row["reason"] else "at once", moment(row["forgotten_at"]), row["reason"])
        for row in slowed
    ]  # fmt: skip
    head = ("ADDRESS", "ACCOUNT", "FAILURES", "LAST FAILURE", "NEXT LOGIN", "FORGOTTEN AT", "REASON")
    print_table(head, rows)


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
