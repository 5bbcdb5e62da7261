"""May this client send to this recipient: the verdict of the relay rules and the route, turned into yes or
a reply.

The one place that joins both decisions; the SMTP listener and ``mailserver explain`` call the same
function. Nobody gets mail through us to other domains without a relay rule or a login, whatever the
recipient looks like; aliases of ours may leave, because an administrator wrote them. Statuses: RFC 3463 and
the IANA registry.
"""

from __future__ import annotations

from typing import NamedTuple

from mailserver.policy.relay import Verdict
from mailserver.reply import NOT_WELCOME, Reply, reply
from mailserver.routing.resolve import Foreign, Leaf, Leaves, Loop, Resolution, Unknown

_PATH_MAX = 400  # octets of a loop shown; a reply line has 512 (RFC 5321 4.5.3.1.5)

UNKNOWN_USER = reply(550, "5.1.1", "No such user here")
RELAYING_DENIED = reply(550, "5.7.1", "Relaying denied: log in, or send to our own users only")
LOOKUP_FAILED = reply(451, "4.3.0", "The recipient cannot be looked up now, try again later")


class Unavailable(NamedTuple):
    """Whoever knows the recipients cannot be asked at the moment; stands in for a Resolution."""

    reason: str


class Permit(NamedTuple):
    """RCPT is answered 250; the message goes to ``leaves`` (at least one)."""

    leaves: tuple[Leaf, ...]


class Refuse(NamedTuple):
    """RCPT is answered ``reply``; ``reason`` is for our log and may say more than the client learns."""

    reply: Reply
    reason: str


def recipient(verdict: Verdict, authenticated: bool, resolution: Resolution | Unavailable) -> Permit | Refuse:
    """The answer to RCPT. A login gives the right to relay; a rejected address keeps nothing, login or
    not."""
    if not verdict.may_connect:
        return Refuse(NOT_WELCOME, f"rejected by {verdict.rule}")
    match resolution:
        case Leaves(leaves=leaves):
            return Permit(leaves)
        case Foreign(route=route, address=address) if authenticated or verdict.may_relay:
            return Permit((Leaf(address, route, None, ()),))
        case Foreign():
            return Refuse(RELAYING_DENIED, f"not our domain, no login, {verdict.rule} does not relay")
        case _:
            return _nowhere(resolution)


def _nowhere(resolution: Unknown | Loop | Unavailable) -> Refuse:
    match resolution:
        case Unknown(reason=reason):
            return Refuse(UNKNOWN_USER, reason)
        case Loop(path=path, reason=reason):
            return Refuse(_endless(path), reason)
        case Unavailable(reason=reason):
            return Refuse(LOOKUP_FAILED, reason)


def _endless(path: tuple[str, ...]) -> Reply:
    shown = " > ".join(path)
    if not shown.isascii() or not shown.isprintable() or len(shown) > _PATH_MAX:
        shown = "too long to show"
    return reply(550, "5.4.6", f"Alias loop or too many aliases: {shown}")
