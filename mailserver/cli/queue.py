"""queue list, show, retry, hold, release, remove."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from mailserver.cli import site
from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption, JsonOption, family
from mailserver.cli.output import moment, print_json, print_table, print_tree

app = family("Mail that still has somewhere to go.")
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Queue ids, as `queue list` shows them.", show_default=False),
]
OfAccount = Annotated[
    str | None,
    typer.Option(
        "--account", metavar="ADDRESS", help="All that this account has sent, logged in.", show_default=False
    ),
]


@app.command("list")
def list_(account: OfAccount = None, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show what waits, why, and when it is tried next. Without a running server: what lies on disk.

    \b
    mailserver queue list
    mailserver queue list --json | jq '.[].id'
    """
    from mailserver.control.client import ServerDown

    try:
        loading = site.ask(config, "status")["queue"][
            "loading"
        ]  # before: it may end while the queue is listed
        messages = site.ask(config, "queue.list", account=account)
        if loading:
            print("the queue is still being loaded: there is more of it", file=sys.stderr)
    except ServerDown:
        messages = [
            m for m in _on_disk(site.data_dir(config)) if not account or m["account"] == account.lower()
        ]
    if json:
        print_json(messages)
    else:
        print_table(
            ("ID", "SIZE", "ACCEPTED", "NEXT ATTEMPT", "SENDER", "RECIPIENT", "LAST REPLY"), _rows(messages)
        )


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID")], json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show all that is known about one message.

    \b
    mailserver queue show 1K5Q3ZB8W0QJ4
    """
    message = site.ask(config, "queue.show", id=id_)
    if json:
        print_json(message)
    else:
        print_tree(message)


@app.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", show_default=False)] = None,
    config: ConfigOption = None,
) -> None:
    """Try now what waits; without ID, all of it.

    \b
    mailserver queue retry
    """
    _report("tried now", site.ask(config, "queue.retry", ids=ids or None))


@app.command()
def hold(ids: Ids = None, account: OfAccount = None, config: ConfigOption = None) -> None:
    """Keep messages from being tried until they are released."""
    _report("held", _ask_about(config, "queue.hold", ids, account))


@app.command()
def release(ids: Ids = None, account: OfAccount = None, config: ConfigOption = None) -> None:
    """Let held messages go on. With --account the account may send as much as ever again."""
    _report("released", _ask_about(config, "queue.release", ids, account))


@app.command()
def remove(ids: Ids = None, account: OfAccount = None, config: ConfigOption = None) -> None:
    """Delete messages; nobody gets a report.

    \b
    mailserver queue remove 1K5Q3ZB8W0QJ4
    mailserver queue remove --account alice@example.test     # her password was stolen
    """
    _report("removed", _ask_about(config, "queue.remove", ids, account))


def _ask_about(config: str | None, command: str, ids: list[str] | None, account: str | None) -> Any:
    if not ids and account is None:
        fail("which messages? Give their ids, or --account ADDRESS", 2)
    return site.ask(config, command, ids=ids or [], account=account)


def _report(done: str, result: Any) -> None:
    count = result["count"]
    print(f"{count} {'message' if count == 1 else 'messages'} {done}")


def _rows(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """One line per recipient that is not settled; the message's own columns on its first."""
    rows: list[tuple[Any, ...]] = []
    for message in messages:
        waiting = "held" if message["held"] else moment(message["next_attempt"])
        own: tuple[Any, ...] = (
            message["id"], message["size"], moment(message["accepted"]), waiting, message["sender"] or "<>"
        )  # fmt: skip
        for recipient in message["recipients"]:
            if recipient["state"] == "pending":
                why = message.get("hold_reason") or recipient["last_reply"]
                rows.append((*own, recipient["address"], why))
                own = ("",) * len(own)
    return rows


def _on_disk(data_dir: str) -> list[dict[str, Any]]:
    """The spool, read without touching it; damaged files are passed over."""
    import msgspec

    from mailserver.queue.listing import message
    from mailserver.queue.spool import Spool

    print("the server is not running; this is what lies on disk", file=sys.stderr)
    spool = Spool(os.path.join(data_dir, "queue"), emit=lambda _: None)
    found = [
        message(one.envelope, due=one.due, attempts=one.attempts, held=one.held)
        for one in spool.load(read_only=True)
    ]
    return [msgspec.to_builtins(one) for one in sorted(found, key=lambda one: one.accepted)]
