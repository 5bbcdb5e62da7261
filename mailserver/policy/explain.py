"""What would happen to such a message, without sending it: the decisions of the SMTP listener, told in
sentences."""

from __future__ import annotations

import ipaddress

import msgspec

from mailserver.message.address import AddressError, parse
from mailserver.message.envelope import Local, Remote
from mailserver.policy import admission
from mailserver.policy.relay import RelayTable, Verdict
from mailserver.reply import BAD_RECIPIENT_SYNTAX, BAD_SENDER_SYNTAX, RECIPIENT_OK, Reply
from mailserver.routing.directory import Directory
from mailserver.routing.resolve import Leaf, complete, resolve

_ACTIONS = {
    "relay": "may connect and may send to any domain",
    "accept": "may connect and may send to our own recipients",
    "reject": "may not connect",
}


class Destination(msgspec.Struct, frozen=True):
    """One place the message would go: ``kind`` mailbox | remote; ``to`` mailbox key, domain or route."""

    address: str
    kind: str
    to: str
    via: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """``verdict`` relay | accept | reject and ``rule`` for the client; ``reply`` what RCPT (or the
    greeting) says."""

    client: str
    sender: str
    recipient: str
    authenticated: bool
    verdict: str
    rule: str
    permitted: bool
    reply: str
    leaves: tuple[Destination, ...]
    steps: tuple[str, ...]

    def text(self) -> str:
        """For people: the decisions in their order, one line each, then the outcome."""
        lines = [*self.steps, f"reply: {self.reply}"]
        for leaf in self.leaves:
            through = f" (via {', '.join(leaf.via)})" if leaf.via else ""
            lines.append(f"→ {leaf.address}: {leaf.kind} {leaf.to}{through}")
        return "\n".join(lines)


def explain(
    directory: Directory,
    relay_table: RelayTable,
    *,
    sender: str,
    recipient: str,
    client: str,
    authenticated: bool = False,
) -> Explanation:
    """The whole decision for one sender ("" or "<>" = null sender), recipient and client address.

    A malformed sender or recipient is answered as the listener would; ValueError when ``client`` is no IP
    address.
    """
    ipaddress.ip_address(client.partition("%")[0])
    verdict = relay_table.decide(client)
    steps = [f"{client} {_ACTIONS[verdict.action]} ({verdict.rule})"]
    if authenticated:
        steps.append("the client has logged in: it may send to any domain")
    sender = sender.strip().removeprefix("<").removesuffix(">")
    recipient = recipient.strip().removeprefix("<").removesuffix(">")
    answer, leaves = _answer(directory, verdict, sender, recipient, authenticated, steps)
    return Explanation(
        client, sender, recipient, authenticated, verdict.action, verdict.rule, bool(leaves), answer.text,
        tuple(_destination(leaf) for leaf in leaves), tuple(steps),
    )  # fmt: skip


def _answer(
    directory: Directory, verdict: Verdict, sender: str, recipient: str, authenticated: bool, steps: list[str]
) -> tuple[Reply, tuple[Leaf, ...]]:
    try:
        if sender:
            parse(sender)
    except AddressError as error:
        steps.append(f"sender: {error}")
        return BAD_SENDER_SYNTAX, ()
    try:
        address = parse(complete(directory, recipient))
    except AddressError as error:
        steps.append(f"recipient: {error}")
        return BAD_RECIPIENT_SYNTAX, ()
    resolution = resolve(directory, address)
    steps.extend(resolution.steps)
    decision = admission.recipient(verdict, authenticated, resolution)
    if isinstance(decision, admission.Refuse):
        steps.append(f"refused: {decision.reason}")
        return decision.reply, ()
    return RECIPIENT_OK, decision.leaves


def _destination(leaf: Leaf) -> Destination:
    match leaf.route:
        case Local(mailbox=mailbox):
            return Destination(leaf.address, "mailbox", mailbox, leaf.via)
        case Remote(destination=destination):
            return Destination(leaf.address, "remote", destination, leaf.via)
