"""explain: what would happen to a message, and which rule decides it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailserver.cli import site
from mailserver.cli.failure import fail
from mailserver.cli.options import ConfigOption, JsonOption
from mailserver.cli.output import escaped, print_json

if TYPE_CHECKING:
    from mailserver.accounts.accounts import Accounts


def register(app: typer.Typer) -> None:
    """Hang the command into the tree."""
    app.command()(explain)


def explain(
    sender: Annotated[
        str, typer.Option("--from", metavar="ADDRESS", help='Sender; "<>" is the null sender.')
    ],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="Recipient.")],
    client: Annotated[str, typer.Option("--client", metavar="IP", help="Who connects.")] = "127.0.0.1",
    logged_in: Annotated[bool, typer.Option("--logged-in", help="As a user who has logged in.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Say, without sending, what would happen to such a message. Works without a running server, too.

    \b
    mailserver explain --from x@remote.test --to team@example.test --client 203.0.113.9
    """
    try:
        ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        fail(f"--client: {client!r} is no IP address, such as 203.0.113.9 or 2001:db8::1", 2)
    question = {"sender": sender, "recipient": to, "client": client, "authenticated": logged_in}
    answer = _answer(config, question)
    if json:
        print_json(answer)
    else:
        for step in answer["steps"]:
            print(escaped(step))
        print(escaped(f"reply: {answer['reply']}"))
        for leaf in answer["leaves"]:
            via = f" (via {', '.join(leaf['via'])})" if leaf["via"] else ""
            print(escaped(f"→ {leaf['address']}: {leaf['kind']} {leaf['to']}{via}"))


def _answer(config: str | None, question: dict[str, Any]) -> Any:
    from mailserver.control.client import ServerDown

    try:
        return site.ask(config, "explain", **question)
    except ServerDown:
        loaded = site.loaded(config)
    import msgspec

    from mailserver.policy.explain import explain as decide
    from mailserver.policy.relay import RelayTable

    table = RelayTable.compile(loaded.relay_rules())

    async def decided(accounts: Accounts) -> Any:
        return msgspec.to_builtins(decide(accounts.directory, table, **question))

    return site.with_accounts(loaded.config, decided)
